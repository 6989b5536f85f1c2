"""The demo's feature network: a small classifier of the training images, checked on the validation split."""

from pathlib import Path

import torch
import torch.nn.functional as F

from restok import config
from restok.config.load import ConfigError
from restok.data.loader import batches, evaluation_batches
from restok.data.table import Split, open_split
from restok.distributed import device
from restok.experiments.places import origin
from restok.files import write_json
from restok.files.run import make
from restok.networks.classifier import SmallClassifier
from restok.progress import track
from restok.training.loop import LossError
from restok.training.optim import AdamW, learning_rate


def train_classifier(params: config.Params, data: Path, out: Path, run: Path | None = None) -> None:
    """Train from scratch with the tokenizer's crops; seconds, so it is not resumed. Writes model.safetensors, config.json and
    metrics.json with the validation accuracy. Raises ConfigError where the parameters have no classifier, LossError, FileError
    for an `out` that holds anything else."""
    settings, size = params.classifier, params.tokenizer.image_size
    if settings is None:
        raise ConfigError("classifier: null; these parameters use pretrained networks and train none")
    split, validation = open_split(data, "train", params.data.decoder), open_split(data, "validation")

    def write(folder: Path) -> dict:
        model = _trained(params, split)
        with torch.no_grad():
            right = sum((model(images.to(device())).argmax(-1).cpu() == labels).sum().item()
                        for images, labels in evaluation_batches(validation, size, settings.batch_size))
        model.save(folder)
        write_json(folder / "metrics.json", {"validation_accuracy": right / len(validation), "n": len(validation),
                                             "step": settings.steps, "parameters": sum(p.numel() for p in model.parameters()),
                                             "threads": torch.get_num_threads()})
        return {}

    splits = {"train": split.digest, "validation": validation.digest}
    make(out, origin("classifier", params, paths=dict.fromkeys(splits, data), **splits), run, write)


def _trained(params: config.Params, split: Split) -> SmallClassifier:
    settings, on = params.classifier, device()
    torch.manual_seed(params.seed)
    model = SmallClassifier(len(split.classes), settings.channels, params.data.name).to(on).train()
    schedule = config.Optimizer(learning_rate=settings.learning_rate, final_learning_rate=0.0, warmup_steps=20,
                                betas=(0.9, 0.95), weight_decay=0.05)
    optimizer = AdamW(model.parameters(), betas=schedule.betas, weight_decay=schedule.weight_decay, fused=True)
    order = batches(split, params.data, params.tokenizer.image_size, settings.batch_size, params.seed, 0)
    losses = []
    for step in track(range(settings.steps), "classifier", settings.steps, "steps"):
        images, labels = (x.to(on) for x in next(order))
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, schedule, settings.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    if not (sound := torch.stack(losses).isfinite()).all():
        raise LossError(f"the classifier's loss is not finite from step {int(sound.long().argmin()) + 1} on; lower "
                        "classifier.learning_rate")
    return model.eval()
