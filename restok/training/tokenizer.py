"""Training the tokenizer, from one checkpoint to the next (Table 7)."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from restok import config
from restok.config.load import ConfigError
from restok.data.loader import batches
from restok.data.sources import open_split
from restok.distributed import device
from restok.experiments.places import origin
from restok.experiments.records import load_record
from restok.files import read_json, sha256_file
from restok.networks.classifier import require_classifier
from restok.objective.tokenizer import Adversary, TokenizerObjective
from restok.tokenizer.model import ResTok
from restok.tokenizer.nested_dropout import draw_keep
from restok.tokenizer.quantizer import Revival
from restok.training.loop import Job, autocast, step_generator, train
from restok.training.optim import Updater


class TokenizerJob(Job):
    """Everything that changes while the tokenizer trains, and the step that changes it."""

    def __init__(self, params: config.Params, classifier: Path | None, on: torch.device):
        training, discriminator = params.tokenizer_training, params.objective.discriminator
        torch.manual_seed(params.seed)
        self.params, self.on = params, on
        self.tokenizer = ResTok(params.tokenizer).to(on)
        self.objective = TokenizerObjective(params.objective, params.tokenizer, classifier).to(on)
        self.adversary = Adversary(discriminator, classifier).to(on) if params.objective.gan else None
        self.average = AveragedModel(self.tokenizer, multi_avg_fn=get_ema_multi_avg_fn(training.ema))
        self.revival = Revival(self.tokenizer.quantizer, params.tokenizer.revive_after)
        update = training.clip, training.precision, training.total
        self.update = Updater([self.tokenizer, self.objective.alignment], training.optimizer, *update)
        if self.adversary:
            self.discriminate = Updater([self.adversary], discriminator.optimizer, *update, start=discriminator.start)

    def step(self, batch: tuple[Float[Tensor, "b 3 h w"], Tensor | None], step: int) -> dict[str, Tensor]:
        """Eq. 4 for tokenizer and alignment, then the discriminator's hinge loss, then the averages."""
        images, rng = batch[0].to(self.on, non_blocking=True), step_generator(self.params.seed, step)
        adversarial = self.adversary and step >= self.params.objective.discriminator.start
        precise = autocast(self.params.tokenizer_training.precision, self.on)
        keep = draw_keep(self.params.tokenizer, len(images), rng)
        if step == 0 and self.params.tokenizer.codebook_init == "data":
            self.place_codebook(images, rng)

        out = {}
        with precise:
            reconstruction = self.tokenizer(images, keep, self.objective.alignment.vf_token, out)
            terms = self.objective.terms(images, reconstruction, out)
            if adversarial:
                terms["gan"] = self.adversary.generator_loss(reconstruction, rng)
        self.update.apply(self.objective.total(terms), step)

        if adversarial:
            with precise:
                terms["discriminator"] = self.adversary.discriminator_loss(images, reconstruction, rng)
            self.discriminate.apply(terms["discriminator"], step)

        self.average.update_parameters(self.tokenizer)
        self.revival.step(out["quantized"].codes, out["latents"].detach(), rng)
        return {name: term.detach() for name, term in terms.items()}

    def place_codebook(self, images: Tensor, rng: torch.Generator) -> None:
        """Start every entry on a latent of the first batch."""
        with torch.no_grad():
            entries = torch.arange(self.params.tokenizer.codebook_size)
            self.tokenizer.quantizer.place(entries, self.tokenizer.latents(images), rng)

    def parts(self) -> dict:
        parts = {"tokenizer": self.tokenizer, "alignment": self.objective.alignment, "average": self.average,
                 "update": self.update, "revival": self.revival}
        if self.adversary:
            adversary = self.adversary
            trained = SimpleNamespace(state_dict=adversary.trained_state, load_state_dict=adversary.load_trained_state)
            parts |= {"discriminate": self.discriminate, "adversary": trained}
        return parts


def train_tokenizer(params: config.Params, checkpoint: str, data: Path, classifier: Path | None, previous: Path | None,
                    run_folder: Path, out: Path) -> None:
    """Train to `checkpoint`, from the folder of the checkpoint before it (None for the first); resume an unfinished run.

    Writes into `out`: model.safetensors (the average of the weights), config.json, state.pt (to go on from), log.jsonl,
    metrics.json. Raises ConfigError for an unknown checkpoint or one that cannot follow `previous`, StateError, LossError.
    """
    steps, training = _steps(params, checkpoint, previous), params.tokenizer_training
    split = open_split(data, "train")
    if len(split.classes) != params.generator.classes:        # before hours of training, not after
        raise ConfigError(f"generator.classes: {params.generator.classes}, but {data} has {len(split.classes)} classes")
    if classifier:
        require_classifier(classifier)
    weights = {name: folder and sha256_file(folder / "model.safetensors")
               for name, folder in (("classifier", classifier), ("previous", previous))}
    images = partial(batches, split, params.data, params.tokenizer.image_size, training.batch_size, params.seed)
    train(lambda: TokenizerJob(params, classifier, device()), f"tokenizer {checkpoint}", images, steps, training, run_folder,
          origin("tokenizer", params, checkpoint, data=split.digest, **weights), out, {"checkpoint": checkpoint}, previous,
          keep_state=True)


def _steps(params: config.Params, checkpoint: str, previous: Path | None) -> range:
    """The steps to train, `previous` being what the parameters put before `checkpoint`."""
    steps = params.tokenizer_training.checkpoints
    if checkpoint not in steps:
        raise ConfigError(f"checkpoint {checkpoint!r}: tokenizer_training.checkpoints has {', '.join(steps)}")
    before = dict(pairwise(reversed(steps))).get(checkpoint)
    if before is None:
        if previous is not None:
            raise ConfigError(f"checkpoint {checkpoint}: is the first, so there is none to go on from")
        return range(steps[checkpoint])
    if previous is None:
        raise ConfigError(f"checkpoint {checkpoint}: give the folder of {before} to go on from")
    if not (previous / "model.safetensors").is_file():
        raise ConfigError(f"{previous}: no checkpoint here to go on from; train {before} first")
    if load_record(previous / "metrics.json")["step"] != steps[before]:
        raise ConfigError(f"{previous}: not at step {steps[before]}, where {before} is; train {before} again")
    if read_json(previous / "config.json") != params.tokenizer.model_dump(mode="json"):
        raise ConfigError(f"{previous / 'config.json'}: another tokenizer than the parameters'; train {before} again")
    return range(steps[before], steps[checkpoint])
