"""How long an image takes in each step of the chain, and the memory of the trainings: measured in a process of its own, which
ends when its time is over, or the memory is."""

import gc
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from restok import config
from restok.config.load import parse
from restok.distributed import device, peak_memory, use_threads
from restok.experiments.demand import GPU_FROM, parameters
from restok.generator.model import HAR
from restok.generator.sampling import generate
from restok.metrics.features import inception_features, load_features
from restok.metrics.reconstruction import similarity
from restok.networks.classifier import SmallClassifier
from restok.networks.inception import inception_network
from restok.networks.lpips import random_lpips
from restok.networks.pretrained import random_weights
from restok.stages.bench.peaks import ran_out
from restok.stages.bench.timing import machine, time_runs
from restok.stages.bench.training import generator_training, jpegs, loading, tokenizer_training
from restok.stages.doctor.work import Draw
from restok.tokenizer.model import ResTok

WITHIN = 120                             # seconds, all together
REPEATS = 3                              # timed runs of each case, after the warm-up
log = logging.getLogger("restok")
Case = tuple[str, int, Callable[[], object]]        # a name, images a run, and the run


class Speed(NamedTuple):
    seconds: float                  # an image
    memory: int                     # bytes at the most
    batch: int


class Speeds(NamedTuple):
    device: str
    memory: int | None              # bytes of the GPU
    speeds: dict[str, Speed]
    faults: dict[str, str]          # of what could not be measured: why


def measure(params: config.Params, draws: Iterable[Draw], within: float = WITHIN) -> Speeds:
    """The speeds by their names: 'image' (to decode and crop, on one core), 'tokenizer' and 'generator' (a training step, with
    its update), 'encode', 'decode', 'judge' (features), 'compare' (a reconstruction with its original), and those of `draws`.
    Weights are random and images noise: neither weights nor data are needed."""
    asked = json.dumps({"params": params.model_dump(mode="json"), "draws": list(draws)})
    command = [sys.executable, "-m", "restok.stages.doctor.speed"]
    try:
        done = subprocess.run(command, input=asked.encode(), capture_output=True, timeout=within)
        said, ended = done.stdout, f"the measuring process ended with {done.returncode}"
        if done.returncode:
            log.warning("doctor: %s: %s", ended, (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1])
    except subprocess.TimeoutExpired as late:
        said, ended = late.stdout or b"", f"not within {within:g} s"
    found = Speeds("none", None, {}, {})
    for line in said.decode(errors="replace").splitlines():
        row = json.loads(line)
        if "device" in row:
            found = found._replace(device=row["device"], memory=row["memory"])
        elif "fault" in row:
            found.faults[row["name"]] = row["fault"]
        elif "skipped" in row:
            ended = row["skipped"]
        else:
            name = row.pop("name")
            found.speeds[name] = Speed(**row)
    names = ("image", "tokenizer", "generator", "encode", "decode", "judge", "compare", *(draw.name for draw in draws))
    return found._replace(faults={name: ended for name in names if name not in found.speeds} | found.faults)


def _measure(params: config.Params, draws: Iterable[Draw]) -> None:
    """In the process of its own: says one line of JSON a case."""
    use_threads(params.threads)
    torch.manual_seed(params.seed)
    on = device()
    _say(device=machine()["device"], memory=torch.cuda.mem_get_info()[1] if on.type == "cuda" else None)
    with tempfile.TemporaryDirectory() as scratch, random_weights():
        seconds = loading(params, jpegs(params, Path(scratch)), REPEATS)["images_per_second"]
        _say(name="image", seconds=1 / seconds, memory=0, batch=1)
        if on.type == "cpu" and parameters(params) >= GPU_FROM:
            _say(skipped=f"models of {parameters(params) / 1e6:,.0f} million parameters, and no GPU here")
            return
        for name, count, run in _cases(params, draws, on, Path(scratch)):
            peak_memory(on, forget=True)
            if ran_out(run):
                _say(name=name, fault="the GPU's memory does not hold a micro-batch")
                continue
            seconds = median(time_runs(run, REPEATS))
            _say(name=name, seconds=seconds / count, memory=peak_memory(on), batch=count)
            del run                  # and its model, before the next is built
            gc.collect()


def _say(**row: Any) -> None:
    print(json.dumps(row), flush=True)


def _cases(params: config.Params, draws: Iterable[Draw], on: torch.device, scratch: Path) -> Iterator[Case]:
    """The most telling ones first. Each model is gone before the next is built."""
    classifier = None
    if params.classifier:
        classifier = scratch / "classifier"
        SmallClassifier(params.generator.classes, params.classifier.channels).save(classifier)
    for kind, build in (("tokenizer", lambda changed: tokenizer_training(changed, classifier)),
                        ("generator", generator_training)):
        settings = getattr(params, f"{kind}_training")
        size = settings.micro_batch or settings.batch_size
        changed = settings.model_copy(update={"micro_batch": None, "compile": False})
        yield kind, size, build(params.model_copy(update={f"{kind}_training": changed})).of(size)
    for draw in draws:
        yield _drawing(params, draw, on)
    yield from _tokenizing(params, on)
    yield from _measuring(params.evaluation, params.tokenizer.image_size, classifier, on)


def _drawing(params: config.Params, draw: Draw, on: torch.device) -> Case:
    settings, sampling = params.generator.model_copy(update={"ntp": draw.ntp}), params.sampling
    model, labels = HAR(settings).to(on).eval(), torch.arange(sampling.batch_size) % settings.classes
    guidance = config.Guidance(schedule="constant", scale=2.0 if draw.guided else 1.0)
    chosen = sampling.temperature, sampling.top_k, sampling.top_p
    return draw.name, len(labels), lambda: generate(model, labels, guidance, *chosen)


def _tokenizing(params: config.Params, on: torch.device) -> Iterator[Case]:
    model, side, count = ResTok(params.tokenizer).to(on).eval(), params.tokenizer.image_size, params.codes.batch_size
    images = torch.rand(count, 3, side, side).to(on)
    codes = torch.randint(params.tokenizer.codebook_size, (params.sampling.batch_size, params.tokenizer.latents)).to(on)
    yield "encode", count, lambda: model.encode(images)
    yield "decode", len(codes), lambda: model.decode(codes)


def _measuring(evaluation: config.Evaluation, side: int, classifier: Path | None, on: torch.device) -> Iterator[Case]:
    images = np.random.default_rng(0).integers(256, size=(evaluation.batch_size, side, side, 3), dtype=np.uint8)
    inception = evaluation.features == "inception"
    network = inception_features(inception_network(None), "random", on) if inception else load_features(evaluation, classifier)
    lpips = random_lpips("alex").to(on) if evaluation.lpips else None
    yield "judge", len(images), lambda: network(images)
    yield "compare", len(images), lambda: similarity(images, images[::-1].copy(), lpips, on)


if __name__ == "__main__":
    asked = json.loads(sys.stdin.read())
    _measure(parse(config.Params, asked["params"], "params"), [Draw(*draw) for draw in asked["draws"]])
