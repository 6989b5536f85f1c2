"""Training the generator on a store of codes (Table 8)."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from restok import config
from restok.config.load import ConfigError
from restok.data.codes import CodeStore
from restok.data.loader import code_batches
from restok.distributed import device, own_share
from restok.experiments.places import origin
from restok.files import sha256_file
from restok.files.artifact import verify
from restok.generator.model import HAR
from restok.training.compute import arrange, autocast
from restok.training.loop import Job, train
from restok.training.optim import Average, Updater
from restok.training.parallel import exchanging, micro_batches, replicated, step_generator


class _Loss(nn.Module):
    def __init__(self, generator: HAR):
        super().__init__()
        self.generator = generator

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        return self.generator.loss(codes, labels)


class GeneratorJob(Job):
    def __init__(self, params: config.Params, on: torch.device):
        torch.manual_seed(params.seed)
        training = params.generator_training
        self.params, self.on = params, on
        self.generator = HAR(params.generator).to(on)
        self.average = Average(self.generator, training)
        self.update = Updater([self.generator], training.optimizer, training.clip, training.precision, training.steps)
        arrange(self.generator, training)
        self.forward = replicated(_Loss(self.generator))

    def step(self, batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
        """Each process has its part of the batch, and returns the mean loss over that."""
        codes, labels = (x.to(self.on, non_blocking=True) for x in batch)
        seed, rng = self.params.seed, step_generator(self.params.seed, step)
        labels = self.generator.drop_labels(labels, rng, own_share())
        parts, losses = micro_batches(self.params.generator_training.micro_batch, codes, labels), []
        for number, own_codes, own_labels in parts:
            with exchanging(self.forward, last=number == parts[-1][0]):
                losses.append(self.loss(own_codes, own_labels, step_generator(seed, step, number)))
                self.update.backward(losses[-1] / len(parts))
        self.update.step(step)
        self.average.update_parameters(self.generator)
        return {"cross_entropy": torch.stack([loss.detach() for loss in losses]).mean()}

    def measured(self) -> dict[str, float]:
        return self.update.measured()

    def loss(self, codes: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        with torch.random.fork_rng(devices=[self.on] if self.on.type == "cuda" else []):
            torch.manual_seed(rng.initial_seed())              # dropout draws from the global generator
            with autocast(self.params.generator_training.precision, self.on):
                return self.forward(codes, labels)

    def parts(self) -> dict:
        return {"generator": self.generator, "average": self.average, "update": self.update}


def train_generator(params: config.Params, codes: Path, tokenizer: Path, run_folder: Path, out: Path) -> None:
    """Train on the store `codes`, which `tokenizer` made; resume an unfinished run.

    Writes into `out`: model.safetensors (the average of the weights), config.json, log.jsonl, metrics.json with the hash of
    the tokenizer. Raises CodesError for codes of another tokenizer, ConfigError for codes of another shape, StateError,
    LossError.
    """
    store = CodeStore(codes, sha256_file(tokenizer / "model.safetensors"))
    for key in ("tokens", "codebook_size", "classes"):
        if (value := getattr(params.generator, key)) != store.manifest[key]:
            raise ConfigError(f"generator.{key}: {value}, but the codes in {codes} have {store.manifest[key]}")
    verify(codes, "codes.npy", "labels.npy")
    training, made_by = params.generator_training, store.manifest["tokenizer"]
    made_of = origin("generator", params, paths={"codes": codes, "tokenizer": tokenizer}, codes=store.manifest["sha256"],
                     tokenizer=made_by)
    facts = {"sampling_steps": len(params.generator.groups), "tokenizer": made_by}
    batches = partial(code_batches, store, training.batch_size, params.seed, share=own_share())
    train(lambda: GeneratorJob(params, device()), "generator", batches, range(training.steps), training, run_folder, made_of,
          out, facts)
