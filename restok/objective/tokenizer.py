"""Eq. 4: what the tokenizer minimises. Teacher, perceptual network and discriminator live here, never in the tokenizer."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from restok import config
from restok.objective.adversarial import LeCam, diff_augment, hinge_discriminator, hinge_generator
from restok.objective.alignment import Alignment, load_teacher
from restok.objective.discriminator import FeatureDiscriminator
from restok.objective.perceptual import build_perceptual


class TokenizerObjective(nn.Module):
    """Eq. 4 plus the quantiser's codebook and commitment losses. Its trainable part is `alignment`.

    A term of weight 0 is not computed, and its network not loaded: `perceptual` and `teacher` are then None."""

    def __init__(self, objective: config.Objective, tokenizer: config.Tokenizer, classifier: Path | None = None):
        super().__init__()
        self.config, self.commitment = objective, tokenizer.commitment
        self.perceptual = build_perceptual(objective.perceptual_network, classifier) if objective.perceptual else None
        settings = objective.alignment if objective.vf else objective.alignment.model_copy(update={"encoder": 0, "decoder": 0})
        aligned = settings.encoder or settings.decoder
        self.teacher = load_teacher(settings, tokenizer.grid, classifier) if aligned else None
        width = self.teacher.width if aligned else 0
        self.alignment = Alignment(settings, tokenizer.width, width, width)

    def terms(self, images: Float[Tensor, "b 3 h w"], reconstruction: Float[Tensor, "b 3 h w"],
              out: dict) -> dict[str, Float[Tensor, ""]]:
        """Unweighted terms in float32; `out` is what the tokenizer's forward filled."""
        quantized = out["quantized"]
        features = self.teacher(images) if self.teacher else ()                 # frozen: the autocast's precision will do
        with torch.autocast(images.device.type, enabled=False):
            reconstruction = reconstruction.float()
            terms = {"mse": F.mse_loss(reconstruction, images)}
            if self.perceptual:
                terms["perceptual"] = self.perceptual(reconstruction, images).mean()
            terms |= {"codebook": quantized.codebook_loss, "commitment": quantized.commitment_loss}
            if self.teacher:
                aligned = self.alignment(out["scales"][0].float(), out["vf_tokens"].float() if "vf_tokens" in out else None,
                                         *(x.float() for x in features))
                terms |= {f"vf_{side}": loss for side, loss in aligned.items()}
            return terms

    def total(self, terms: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Eq. 3 and 4."""
        c = self.config
        weights = {"mse": c.mse, "perceptual": c.perceptual, "gan": c.gan, "codebook": 1.0, "commitment": self.commitment,
                   "vf_encoder": c.vf * c.alignment.encoder, "vf_decoder": c.vf * c.alignment.decoder}
        return sum(weights[name] * term for name, term in terms.items())


class Adversary(nn.Module):
    """The discriminator with its augmentation and regulariser: two losses, one for each player."""

    def __init__(self, discriminator: config.Discriminator, classifier: Path | None = None):
        super().__init__()
        self.config = discriminator
        self.discriminator = FeatureDiscriminator(discriminator, classifier)
        self.lecam = LeCam()

    def generator_loss(self, reconstruction: Float[Tensor, "b 3 h w"], rng: torch.Generator) -> Float[Tensor, ""]:
        """Gradients flow to the reconstruction alone: the heads have a loss of their own."""
        heads = self.discriminator.heads.requires_grad_(False)
        try:
            return hinge_generator(self.discriminator(diff_augment(reconstruction, self.config.augment, rng)))
        finally:
            heads.requires_grad_(True)

    def discriminator_loss(self, images: Float[Tensor, "b 3 h w"], reconstruction: Float[Tensor, "b 3 h w"],
                           rng: torch.Generator, heads: nn.Module | None = None,
                           out: dict | None = None) -> Float[Tensor, ""]:
        """`heads` stands for the discriminator's own, where they are wrapped; `out` receives the mean predictions, "real" and
        "fake", which `lecam` is to be updated with."""
        pairs = images, reconstruction.detach()
        real, fake = (heads or self.discriminator.heads)(
            *(self.discriminator.features(diff_augment(one, self.config.augment, rng)) for one in pairs))
        if out is not None:
            out |= {"real": real.detach().mean(), "fake": fake.detach().mean()}
        return hinge_discriminator(real, fake) + self.config.lecam * self.lecam(real, fake)

    def trained_state(self) -> dict:
        """What a checkpoint keeps: the heads with the vectors of their spectral norm, LeCam's averages, nothing pretrained."""
        return {"heads": self.discriminator.heads.state_dict(), "lecam": self.lecam.state_dict()}

    def load_trained_state(self, state: dict) -> None:
        self.discriminator.heads.load_state_dict(state["heads"])
        self.lecam.load_state_dict(state["lecam"])
