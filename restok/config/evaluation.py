"""How images are measured."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from restok.config.base import Config, Many, Place, Sizes, Steps, Weight

# FDr6's networks beside Inception (arXiv 2604.28190), by their timm names.
FDR6 = {"convnextv2": "convnextv2_base.fcmae_ft_in22k_in1k", "dinov2-256": "vit_large_patch14_dinov2.lvd142m",
        "mae": "vit_large_patch16_224.mae", "siglip2": "vit_so400m_patch16_siglip_256.v2_webli",
        "clip": "vit_large_patch14_clip_224.openai"}
OfFDr6 = Literal[tuple(FDR6)]
# One network; the second resizes images as dgm-eval and EDM2 do.
DINOV2 = "dinov2", "dinov2-bicubic"
OfDINOv2 = Literal[DINOV2]


class Evaluation(Config):
    features: Literal["digits", "inception", OfDINOv2]      # of the network whose metrics bear the field's plain names
    also: tuple[Literal["fdr6", OfDINOv2, OfFDr6], ...]    # further networks, over the same images; fdr6: its five, and FDr6
    weights: str | None                    # of the Inception network: a file instead of what `restok fetch` brings
    dinov2_weights: str | None             # of DINOv2: a file instead of what `restok fetch` brings
    fdr6_weights: dict[OfFDr6, str]        # of FDr6's networks, by name: files instead of what `restok fetch` brings
    lpips: bool                            # whether reconstructions are measured by LPIPS-Alex
    lpips_weights: str | None              # of its AlexNet: a file instead of what `restok fetch` brings
    reference: Place | None                # of samples: images or statistics; null: the workflow's validation split
    samples_per_class: Many
    neighbours: Many                       # k of precision and recall
    distances: Annotated[tuple[Literal["exact", "adm-fp16"], ...], Field(min_length=1)]   # of precision and recall
    batch_size: Many
    save_every: Steps                      # images between resumable states: about the most that a killed run can lose

    @property
    def networks(self) -> tuple[str, ...]:
        """All whose features are measured."""
        return self.features, *(name for one in self.also for name in (FDR6 if one == "fdr6" else [one]))

    def weights_of(self, network: str) -> tuple[str, str | None]:
        """Of a pretrained one, the setting that may name a file of its weights, and the file."""
        if network in FDR6:
            return f"evaluation.fdr6_weights.{network}", self.fdr6_weights.get(network)
        setting = "dinov2_weights" if network in DINOV2 else "weights"
        return f"evaluation.{setting}", getattr(self, setting)

    @model_validator(mode="after")
    def check(self) -> Self:
        if len(set(self.networks)) < len(self.networks):
            raise ValueError(f"also: {', '.join(self.also)} beside features: {self.features}; name each network once")
        if "fdr6" in self.also and self.features != "inception":
            raise ValueError(f"also: fdr6 is of FID, too, and features is {self.features}; take features: inception")
        if "exact" not in self.distances or len(set(self.distances)) != len(self.distances):
            raise ValueError("distances: 'exact', which the reports show, and each at most once")
        return self


class Classifier(Config):
    """The demo's feature network, trained on the training split."""

    channels: Sizes
    steps: Steps
    batch_size: Many
    learning_rate: Weight
