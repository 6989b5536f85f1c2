"""Training the tokenizer, from one checkpoint to the next (Table 7)."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from restok import config
from restok.config.load import ConfigError
from restok.data.loader import batches, lost_readers
from restok.data.table import open_split
from restok.distributed import device, own_share
from restok.experiments import demand
from restok.experiments.places import origin
from restok.files import read_json, sha256_file
from restok.files.loading import load_record
from restok.networks.backbone import source_of
from restok.networks.classifier import require_classifier
from restok.objective.alignment import Alignment
from restok.objective.tokenizer import Adversary, TokenizerObjective
from restok.tokenizer.model import ResTok
from restok.tokenizer.nested_dropout import draw_keep
from restok.tokenizer.quantizer import Revival
from restok.training.compute import arrange, autocast, channels_last
from restok.training.log import CodebookUse
from restok.training.loop import Job, train
from restok.training.optim import Average, Updater
from restok.training.parallel import (
    averaged,
    exchanging,
    from_first_micro_batch,
    joined,
    micro_batches,
    own_part,
    replicated,
    step_generator,
)

T = TypeVar("T")


class _Forward(nn.Module):
    """What Eq. 4 trains; the frozen networks stay outside."""

    def __init__(self, tokenizer: ResTok, alignment: Alignment):
        super().__init__()
        self.tokenizer, self.alignment = tokenizer, alignment

    def forward(self, images: Tensor, keep: Tensor, out: dict) -> Tensor:
        return self.tokenizer(images, keep, self.alignment.vf_token, out)


class TokenizerJob(Job):
    """Everything that changes while the tokenizer trains, and the step that changes it."""

    def __init__(self, params: config.Params, classifier: Path | None, on: torch.device):
        training, discriminator = params.tokenizer_training, params.objective.discriminator
        torch.manual_seed(params.seed)
        self.params, self.on = params, on
        self.tokenizer = ResTok(params.tokenizer).to(on)
        self.objective = TokenizerObjective(params.objective, params.tokenizer, classifier).to(on)
        self.adversary = Adversary(discriminator, classifier).to(on) if params.objective.gan else None
        self.average = Average(self.tokenizer, training)
        self.revival = Revival(self.tokenizer.quantizer, params.tokenizer.revive_after)
        self.use = CodebookUse(params.tokenizer.codebook_size, params.tokenizer.levels, on)
        update = training.clip, training.precision, training.total
        self.update = Updater([self.tokenizer, self.objective.alignment], training.optimizer, *update)
        if self.adversary:
            self.discriminate = Updater([self.adversary], discriminator.optimizer, *update, start=discriminator.start)
            self.heads = replicated(self.adversary.discriminator.heads)
        if training.channels_last:                         # what the CNN decoder reads is laid out so
            channels_last(self.tokenizer.cnn_encoder, *filter(None, [self.objective.perceptual]))
        arrange(self.tokenizer, training)
        self.forward = replicated(_Forward(self.tokenizer, self.objective.alignment))

    def step(self, batch: tuple[Float[Tensor, "b 3 h w"], Tensor | None], step: int) -> dict[str, Tensor]:
        """Eq. 4 for tokenizer and alignment, then the discriminator's hinge loss, then the averages. Each process has its part
        of the batch, and of each loss the mean over that."""
        params, seed, size = self.params, self.params.seed, self.params.tokenizer_training.micro_batch
        images, rng = batch[0].to(self.on, non_blocking=True), step_generator(seed, step)
        keep = own_part(draw_keep(params.tokenizer, len(images) * own_share().parts, rng)).to(self.on, non_blocking=True)
        if step == 0 and params.tokenizer.codebook_init == "data":
            self.place_codebook(images, rng)
        adversarial = self.adversary is not None and step >= params.objective.discriminator.start
        parts = [(x, kept, step_generator(seed, step, number) if number else rng)
                 for number, x, kept in micro_batches(size, images, keep)]

        made, terms = [], []
        for x, kept, own in self.repeated(parts):
            with exchanging(self.forward, last=x is parts[-1][0]):
                made.append(self.reconstruct(x, kept, own, adversarial))
                terms.append(made[-1].pop("terms"))
                self.use.add(made[-1]["codes"])
                self.update.backward(self.objective.total(terms[-1]) / len(parts))
            terms[-1] = {name: term.detach() for name, term in terms[-1].items()}
        self.update.step(step)

        if adversarial:
            for (x, _, own), out, losses in zip(self.repeated(parts), made, terms, strict=True):
                with exchanging(self.heads, last=x is parts[-1][0]), self.precise():
                    loss = self.adversary.discriminator_loss(x, out["reconstruction"], own, self.heads, out)
                    self.discriminate.backward(loss / len(parts))
                losses["discriminator"] = loss.detach()
            self.discriminate.step(step)
            predictions = torch.stack([torch.stack([out["real"], out["fake"]]) for out in made]).mean(0)
            self.adversary.lecam.update(*averaged(predictions))

        self.average.update_parameters(self.tokenizer)
        if self.revival.after:
            codes, latents = (joined(torch.cat([out[name] for out in made])) for name in ("codes", "latents"))
            self.revival.step(codes, latents, from_first_micro_batch(rng))
        return {name: torch.stack([losses[name] for losses in terms]).mean() for name in terms[0]}

    def measured(self) -> dict[str, float]:
        discriminate = self.discriminate.measured("_discriminator") if self.adversary else {}
        return self.update.measured() | discriminate | self.use.measured()

    def reconstruct(self, images: Tensor, keep: Tensor, rng: torch.Generator, adversarial: bool) -> dict[str, Any]:
        """The terms of Eq. 4 for a micro-batch, with the reconstruction, codes and latents, which take no gradients."""
        out = {}
        with self.precise():
            reconstruction = self.forward(images, keep, out)
            terms = self.objective.terms(images, reconstruction, out)
            if adversarial:
                terms["gan"] = self.adversary.generator_loss(reconstruction, rng)
        return {"terms": terms, "reconstruction": reconstruction.detach(), "codes": out["quantized"].codes,
                "latents": out["latents"].detach()}

    def precise(self) -> torch.autocast:
        return autocast(self.params.tokenizer_training.precision, self.on)

    def repeated(self, parts: list[T]) -> Iterator[T]:
        """The parts in turn, each of which finds the vectors of the spectral norms where the first one did: they take a step
        with each forward, and must not depend on how many there are."""
        vectors = list(self.adversary.discriminator.heads.buffers()) if self.adversary else []
        start = [vector.clone() for vector in vectors]
        for part in parts:
            for vector, at in zip(vectors, start, strict=True):
                vector.copy_(at)
            yield part

    def place_codebook(self, images: Tensor, rng: torch.Generator) -> None:
        """Start every entry on a latent of the first batch."""
        size = self.params.tokenizer_training.micro_batch or len(images)
        with torch.no_grad():
            entries = torch.arange(self.params.tokenizer.codebook_size)
            latents = joined(torch.cat([self.tokenizer.latents(part) for part in images.split(size)]))
            self.tokenizer.quantizer.place(entries, latents, rng)

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
    split = open_split(data, "train", params.data.decoder)
    if len(split.classes) != params.generator.classes:        # before hours of training, not after
        raise ConfigError(f"generator.classes: {params.generator.classes}, but {data} has {len(split.classes)} classes")
    if classifier:
        require_classifier(classifier)
    folders, teachers = {"classifier": classifier, "previous": previous}, _teachers(params)
    weights = {name: folder and sha256_file(folder / "model.safetensors") for name, folder in folders.items()}
    weights |= {name: sha256_file(file) for name, file in teachers.items()}
    images = partial(batches, split, params.data, params.tokenizer.image_size, training.batch_size, params.seed,
                     share=own_share())
    made_of = origin("tokenizer", params, checkpoint, {"data": data, **folders, **teachers}, data=split.digest, **weights)
    with lost_readers(data):
        train(lambda: TokenizerJob(params, classifier, device()), f"tokenizer {checkpoint}", images, steps, training,
              run_folder, made_of, out, {"checkpoint": checkpoint}, previous, keep_state=True)


def _teachers(params: config.Params) -> dict[str, Path]:
    """The files of the pretrained networks that take part, by what they do; what is not there, its own reader says."""
    files = {(wanted.setting or wanted.network).removesuffix(".weights"):
             Path(wanted.file) if wanted.file else source_of(wanted.network).found()
             for wanted in demand.teachers(params.objective)}
    return {name: file for name, file in files.items() if file and file.is_file()}


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
