"""Training the generator on a store of codes (Table 8)."""

from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from restok import config
from restok.config.load import ConfigError
from restok.data.codes import open_codes
from restok.data.loader import code_batches
from restok.distributed import device
from restok.experiments.places import depends_on
from restok.files import atomic_folder, sha256_file, write_json
from restok.generator.model import HAR
from restok.training.loop import autocast, step_generator, train
from restok.training.optim import Updater
from restok.training.state import RunFolder, fingerprint
from restok.weights import save_model


class GeneratorJob:
    def __init__(self, params: config.Params, on: torch.device):
        torch.manual_seed(params.seed)
        training = params.generator_training
        self.params, self.on = params, on
        self.generator = HAR(params.generator).to(on)
        self.average = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(training.ema))
        self.update = Updater([self.generator], training.optimizer, training.clip, training.precision, training.steps)

    def step(self, batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
        codes, labels = (x.to(self.on, non_blocking=True) for x in batch)
        labels = self.generator.drop_labels(labels, step_generator(self.params.seed, step))
        with torch.random.fork_rng(devices=[self.on] if self.on.type == "cuda" else []):
            torch.manual_seed(self.params.seed * 1_000_003 + step)        # dropout draws from the global generator
            with autocast(self.params.generator_training.precision, self.on):
                loss = self.generator.loss(codes, labels)
        self.update.apply(loss, step)
        self.average.update_parameters(self.generator)
        return {"cross_entropy": loss.detach()}

    def _parts(self) -> dict:
        return {"generator": self.generator, "average": self.average, "update": self.update}

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


def train_generator(params: config.Params, codes: Path, tokenizer: Path, run_folder: Path, out: Path) -> None:
    """Train on the store `codes`, which `tokenizer` made; resume an unfinished run.

    Writes into `out`: model.safetensors (the average of the weights), config.json, log.jsonl, metrics.json with the hash of
    the tokenizer. Raises CodesError for codes of another tokenizer, ConfigError for codes of another shape, StateError,
    LossError.
    """
    store, on = open_codes(codes, sha256_file(tokenizer / "model.safetensors")), device()
    for key in ("tokens", "codebook_size", "classes"):
        if (value := getattr(params.generator, key)) != store.manifest[key]:
            raise ConfigError(f"generator.{key}: {value}, but the codes in {codes} have {store.manifest[key]}")
    job = GeneratorJob(params, on)
    settings = depends_on("generator", params)
    with RunFolder(run_folder, fingerprint(settings, store.manifest)) as run:
        first = 0
        if resumed := run.resume():
            first, state = resumed
            job.load_state_dict(state)
        order = code_batches(store, params.generator_training.batch_size, params.seed, first)
        rows = train(job, order, first, params.generator_training.steps, params.generator_training, run, "generator")
        with atomic_folder(out) as folder:
            save_model(folder, job.average.module)
            (folder / "log.jsonl").write_text((run.folder / "log.jsonl").read_text())
            write_json(folder / "metrics.json", {
                "step": params.generator_training.steps, "parameters": sum(p.numel() for p in job.generator.parameters()),
                "sampling_steps": len(params.generator.groups), "tokenizer": store.manifest["tokenizer"],
                "device": str(on), "torch": torch.__version__, "last": rows[-1]})
        run.clear()
