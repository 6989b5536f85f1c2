"""How long an image takes in each step of the chain, and the memory of the trainings: measured in a process of its own, which
ends when its time is over, or the memory is."""

import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from restok import config
from restok.config.load import parse
from restok.distributed import device, peak_memory, use_threads
from restok.experiments.demand import GPU_FROM, parameters
from restok.experiments.work import Draw
from restok.generator.model import HAR
from restok.generator.sampling import Steps
from restok.metrics.features import JUDGES, load_features, random_features
from restok.metrics.reconstruction import similarity
from restok.networks.classifier import SmallClassifier
from restok.networks.lpips import random_lpips
from restok.networks.pretrained import random_weights
from restok.stages.bench.timing import machine, time_runs
from restok.stages.bench.training import Trained, generator_training, jpegs, loading, tokenizer_training
from restok.tokenizer.model import ResTok
from restok.training.compute import autocast

WITHIN = 120                             # seconds, all together
REPEATS = 3                              # timed runs of each case, after the warm-up
log = logging.getLogger("restok")
FULL = "the GPU's memory does not hold so many images"
Run = Callable[[], object]
Case = tuple[str, int, Callable[[], Run]]           # a name, images a run, and what builds the run


class Speed(NamedTuple):
    seconds: float                  # an image
    memory: int                     # bytes at the most
    batch: int


class Speeds(NamedTuple):
    device: str
    memory: int | None              # bytes of the GPU
    speeds: dict[str, Speed]
    faults: dict[str, str]          # of what could not be measured: why
    no_gpu: bool = False            # models are too large for what is here, and none of them was measured


def measure(params: config.Params, draws: Iterable[Draw], within: float = WITHIN) -> Speeds:
    """The speeds by their names: 'image' (to decode and crop, on one core), 'tokenizer' and 'generator' (a training step, with
    its update), 'encode', 'decode', 'judge' (features), 'score' (those of the first network), 'compare' (a reconstruction with
    its original), and those of `draws`. Weights are random and images noise: neither weights nor data are needed."""
    asked = json.dumps({"params": params.model_dump(mode="json"), "draws": list(draws)})
    command = [sys.executable, "-m", "restok.stages.doctor.speed"]
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:      # of a process that may be killed
            done = subprocess.run(command, input=asked.encode(), capture_output=True, timeout=within,
                                  env=os.environ | {"TMPDIR": scratch})
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
            ended, found = row["skipped"], found._replace(no_gpu=True)
        else:
            name = row.pop("name")
            found.speeds[name] = Speed(**row)
    if not params.evaluation.also and "judge" in found.speeds:           # one network: it is the first
        found.speeds["score"] = found.speeds["judge"]
    names = ("image", "tokenizer", "generator", "encode", "decode", "judge", "score", "compare", *(draw.name for draw in draws))
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
        for name, count, build in _cases(params, draws, on, Path(scratch)):
            _say(name=name, **_timed(build, count, on))
            gc.collect()                     # the model, before the next is built


def _timed(build: Callable[[], Run], count: int, on: torch.device) -> dict[str, Any]:
    """A Speed, or why there is none."""
    peak_memory(on, forget=True)
    try:
        run = build()
        return {"seconds": median(time_runs(run, REPEATS)) / count, "memory": peak_memory(on), "batch": count}
    except torch.OutOfMemoryError:
        return {"fault": FULL}


def _say(**row: Any) -> None:
    print(json.dumps(row), flush=True)


def _cases(params: config.Params, draws: Iterable[Draw], on: torch.device, scratch: Path) -> Iterator[Case]:
    """The most telling ones first."""
    classifier = None
    if params.classifier:
        classifier = scratch / "classifier"
        SmallClassifier(params.generator.classes, params.classifier.channels).save(classifier)
    for kind, train in (("tokenizer", partial(tokenizer_training, classifier=classifier)), ("generator", generator_training)):
        settings = getattr(params, f"{kind}_training")
        size = settings.micro_batch or settings.batch_size
        changed = settings.model_copy(update={"micro_batch": None, "compile": False})
        plain = params.model_copy(update={f"{kind}_training": changed})
        yield kind, size, partial(_training, train, plain, size)
    for draw in draws:
        yield draw.name, params.sampling.batch_size, partial(_drawing, params, draw, on)
    yield "encode", params.codes.batch_size, partial(_encoding, params, on)
    yield "decode", params.sampling.batch_size, partial(_decoding, params, on)
    parts = {"judge": params.evaluation.networks} | ({"score": [params.evaluation.features]} if params.evaluation.also else {})
    for part, networks in parts.items():
        yield part, params.evaluation.batch_size, partial(_judging, params, networks, classifier, on)
    yield "compare", params.evaluation.batch_size, partial(_comparing, params, on)


def _training(train: Callable[[config.Params], Trained], params: config.Params, size: int) -> Run:
    return train(params).of(size)


def _drawing(params: config.Params, draw: Draw, on: torch.device) -> Run:
    settings, sampling = params.generator.model_copy(update={"ntp": draw.ntp}), params.sampling
    model = HAR(settings).to(on, torch.bfloat16 if sampling.precision == "bf16" else torch.float32).eval()
    guidance = config.Guidance(schedule="constant", scale=2.0 if draw.guided else 1.0)
    steps = Steps(model, sampling.batch_size, guidance, sampling.temperature, sampling.top_k, sampling.top_p)
    steps.capture()
    return lambda: steps(torch.arange(sampling.batch_size) % settings.classes)


def _encoding(params: config.Params, on: torch.device) -> Run:
    model, side = ResTok(params.tokenizer).to(on).eval(), params.tokenizer.image_size
    images = torch.rand(params.codes.batch_size, 3, side, side).to(on)
    return lambda: model.encode(images)


def _decoding(params: config.Params, on: torch.device) -> Run:
    model, settings = ResTok(params.tokenizer).to(on).eval(), params.tokenizer
    codes = torch.randint(settings.codebook_size, (params.sampling.batch_size, settings.latents)).to(on)

    def decode() -> None:
        with autocast(params.sampling.precision, on):
            model.decode(codes)

    return decode


def _judging(params: config.Params, names: Sequence[str], classifier: Path | None, on: torch.device) -> Run:
    images = _pixels(params)
    networks = [random_features(name, on) if name in JUDGES else load_features(params.evaluation, classifier, on, name)
                for name in names]

    def judge() -> None:
        for network in networks:
            network(images)

    return judge


def _comparing(params: config.Params, on: torch.device) -> Run:
    images, lpips = _pixels(params), random_lpips("alex").to(on) if params.evaluation.lpips else None
    return lambda: similarity(images, images[::-1].copy(), lpips, on)


def _pixels(params: config.Params) -> UInt8[np.ndarray, "b h w c"]:
    shape = params.evaluation.batch_size, params.tokenizer.image_size, params.tokenizer.image_size, 3
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


if __name__ == "__main__":
    asked = json.loads(sys.stdin.read())
    _measure(parse(config.Params, asked["params"], "params"), [Draw(*draw) for draw in asked["draws"]])
