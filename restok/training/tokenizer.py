"""Training the tokenizer, from one checkpoint to the next (Table 7)."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from restok import config
from restok.config.load import ConfigError
from restok.data.loader import batches
from restok.data.sources import open_split
from restok.distributed import device
from restok.experiments.places import depends_on
from restok.files import atomic_folder, read_json, sha256_file, write_json
from restok.objective.tokenizer import Adversary, TokenizerObjective
from restok.tokenizer.model import ResTok
from restok.tokenizer.nested_dropout import draw_keep
from restok.tokenizer.quantizer import Revival
from restok.training.loop import autocast, step_generator, train
from restok.training.optim import Updater
from restok.training.state import RunFolder, StateError, fingerprint, load_state, save_state
from restok.weights import save_model


class TokenizerJob:
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

    def _parts(self) -> dict:
        parts = {"tokenizer": self.tokenizer, "alignment": self.objective.alignment, "average": self.average,
                 "update": self.update, "revival": self.revival}
        return parts | {"discriminate": self.discriminate} if self.adversary else parts

    def state_dict(self) -> dict:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        return state | {"adversary": self.adversary.trained_state()} if self.adversary else state

    def load_state_dict(self, state: dict) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        if self.adversary:
            self.adversary.load_trained_state(state["adversary"])


def train_tokenizer(params: config.Params, checkpoint: str, data: Path, classifier: Path | None, previous: Path | None,
                    run_folder: Path, out: Path) -> None:
    """Train to `checkpoint`, from the folder of the checkpoint before it (None for the first); resume an unfinished run.

    Writes into `out`: model.safetensors (the average of the weights), config.json, state.pt (to go on from), log.jsonl,
    metrics.json. Raises ConfigError for an unknown checkpoint or one that cannot follow `previous`, StateError, LossError.
    """
    begin, end = _steps(params, checkpoint, previous)
    split, on = open_split(data, "train"), device()
    if len(split.classes) != params.generator.classes:        # before hours of training, not after
        raise ConfigError(f"generator.classes: {params.generator.classes}, but {data} has {len(split.classes)} classes")
    job = TokenizerJob(params, classifier, on)
    settings = depends_on("tokenizer", params, checkpoint)
    inputs = (split.digest, sha256_file(classifier / "model.safetensors") if classifier else None,
              sha256_file(previous / "model.safetensors") if previous else None)
    with RunFolder(run_folder, fingerprint(settings, checkpoint, *inputs)) as run:
        first = begin
        if resumed := run.resume():
            first, state = resumed
            job.load_state_dict(state)
        elif previous is not None:
            job.load_state_dict(_state_of(previous))
        size, training = params.tokenizer.image_size, params.tokenizer_training
        order = batches(split, params.data, size, training.batch_size, params.seed, first)
        rows = train(job, order, first, end, training, run, f"tokenizer {checkpoint}")
        with atomic_folder(out) as folder:
            save_model(folder, job.average.module)
            save_state(folder / "state.pt", job.state_dict())
            (folder / "log.jsonl").write_text((run.folder / "log.jsonl").read_text())
            parameters = sum(p.numel() for p in job.tokenizer.parameters())
            write_json(folder / "metrics.json", {"checkpoint": checkpoint, "step": end, "parameters": parameters,
                                                 "device": str(on), "torch": torch.__version__, "last": rows[-1]})
        run.clear()


def _state_of(checkpoint: Path) -> dict:
    try:
        return load_state(checkpoint / "state.pt")
    except StateError as error:
        raise StateError(f"{error}; delete {checkpoint} and train that checkpoint again") from None


def _steps(params: config.Params, checkpoint: str, previous: Path | None) -> tuple[int, int]:
    """The steps from which and to which to train, `previous` being what the parameters put before `checkpoint`."""
    labels, steps = zip(*params.tokenizer_training.checkpoints.items(), strict=True)
    if checkpoint not in labels:
        raise ConfigError(f"checkpoint {checkpoint!r}: tokenizer_training.checkpoints has {', '.join(labels)}")
    place = labels.index(checkpoint)
    if place == 0:
        if previous is not None:
            raise ConfigError(f"checkpoint {checkpoint}: is the first, so there is none to go on from")
        return 0, steps[0]
    before = labels[place - 1]
    if previous is None:
        raise ConfigError(f"checkpoint {checkpoint}: give the folder of {before} to go on from")
    if not (previous / "model.safetensors").is_file():
        raise ConfigError(f"{previous}: no checkpoint here to go on from; train {before} first")
    if read_json(previous / "metrics.json")["step"] != steps[place - 1]:
        raise ConfigError(f"{previous}: not at step {steps[place - 1]}, where {before} is; train {before} again")
    if read_json(previous / "config.json") != params.tokenizer.model_dump(mode="json"):
        raise ConfigError(f"{previous / 'config.json'}: another tokenizer than the parameters'; train {before} again")
    return steps[place - 1], steps[place]
