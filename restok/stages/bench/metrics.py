"""The metrics beside the way the field computes them: side by side in one run, because only ratios survive another machine."""

import logging
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from restok.config.load import load_protocol
from restok.distributed import device, peak_memory
from restok.metrics.features import full_precision, judging
from restok.metrics.frechet import Frechet, Gaussian, Moments
from restok.metrics.intervals import GROUPS
from restok.metrics.precision_recall import precision_recall
from restok.networks.inception import arranged, inception_network
from restok.stages.bench.timing import machine, report, require_positive, seconds
from restok.stages.evaluator import CHUNK, Evaluator
from restok.stages.subjects import Batch, Subject

OURS, THEIRS = partial(precision_recall, neighbours=3), partial(calculate_precision_recall_full, neighborhood=3)
log = logging.getLogger("restok")


@dataclass(frozen=True)
class Pair:
    """Two ways to one result. `run` and `peer` handle `count` and `peer_count` images."""

    name: str
    run: Callable[[], object]
    peer_name: str
    peer: Callable[[], object]
    count: int
    peer_count: int


@dataclass(frozen=True)
class Sizes:
    samples: int                  # of precision and recall, on each side
    dims: int
    images: int                   # that go through the Inception network
    side: int                     # their pixels
    batch_size: int


def benchmark(sizes: Sizes, repeats: int, out: str | Path) -> list[dict]:
    """Time every pair, print a table, write the rows as JSON and return them. Raises ConfigError for sizes below 1.

    A row: case, seconds and peer_seconds (medians), images_per_second of both, ratio (how many times as fast as the peer, an
    image), for precision and recall bytes and peer_bytes (what each takes beside the features); device, threads, torch, sizes.
    """
    require_positive(**vars(sizes), repeats=repeats)
    rows, cells, about = [], [], machine() | {"repeats": repeats} | vars(sizes)
    for pair in _pairs(sizes, device()):
        log.info("bench: %s", pair.name)
        pair.run(), pair.peer()                # untimed: libraries load, memory is taken
        times = [(seconds(pair.run), seconds(pair.peer)) for _ in range(repeats)]     # in turn: a busy moment hits both
        ours, theirs = map(median, zip(*times, strict=True))
        rates = pair.count / ours, pair.peer_count / theirs
        rows.append({"case": pair.name, "peer": pair.peer_name, "seconds": ours, "peer_seconds": theirs,
                     "images_per_second": rates[0], "peer_images_per_second": rates[1], "ratio": rates[0] / rates[1], **about})
        cells.append((pair.name, pair.peer_name, ours, theirs, rates[0] / rates[1]))
    log.info("bench: memory of precision and recall")
    ours, theirs = _peak(OURS, sizes), _peak(THEIRS, sizes)
    rows.append({"case": "precision and recall, memory", "peer": "torch-fidelity", "bytes": ours, "peer_bytes": theirs,
                 "ratio": theirs / ours, **about})
    cells.append((rows[-1]["case"], rows[-1]["peer"], f"{ours / 1e6:,.0f} MB", f"{theirs / 1e6:,.0f} MB", theirs / ours))
    report(rows, out, "{device}, {threads} threads, {samples} x {dims} features, torch {torch}",
           ("case", "against", "seconds", "theirs", "times as good"), cells)
    return rows


def _pairs(sizes: Sizes, on: torch.device) -> Iterator[Pair]:
    features, others = (_features(max(sizes.samples, 2 * sizes.dims), sizes.dims, seed).to(on) for seed in (0, 1))
    yield _accumulation(features[:CHUNK])
    yield _solver(features, others)
    samples, references = features[:sizes.samples].clone(), others[:sizes.samples].clone()
    del features, others
    yield Pair("precision and recall", partial(OURS, samples, references), "torch-fidelity",
               partial(THEIRS, samples, references), sizes.samples, sizes.samples)
    yield from _inception(sizes, on)


def _features(n: int, dims: int, seed: int) -> torch.Tensor:
    """Somewhat like Inception's: not negative, correlated, with a mean away from zero."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 64, generator=rng) @ torch.randn(64, dims, generator=torch.Generator().manual_seed(99))
    return (0.3 * hidden / 8 + 0.3 + 0.2 * torch.randn(n, dims, generator=rng)).relu()


def _accumulation(features: torch.Tensor) -> Pair:
    """A chunk into the sums as `restok evaluate` takes it, against the sum of one outer product a sample."""
    moments, few = Moments(2**20, features.shape[1], groups=GROUPS, device=features.device), features[:64].double()
    places = iter(range(0, 2**20, len(features)))
    outer = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=features.device)

    def peer():
        for sample in few:
            outer.add_(torch.outer(sample, sample))

    return Pair("accumulation", lambda: moments.update(next(places), features), "outer products, one a sample", peer,
                len(features), len(few))


def _solver(features: torch.Tensor, others: torch.Tensor) -> Pair:
    import scipy.linalg
    a, b = (Gaussian(x.double().mean(0), x.double().T.cov()) for x in (features, others))
    left, right = a.covariance.cpu().numpy(), b.covariance.cpu().numpy()
    return Pair("Frechet distance", lambda: Frechet(b)(a), "scipy.linalg.sqrtm",
                lambda: np.trace(scipy.linalg.sqrtm(left @ right)).real, 1, 1)


def _inception(sizes: Sizes, on: torch.device) -> Iterator[Pair]:
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (sizes.images, sizes.side, sizes.side, 3), dtype=np.uint8)
    network, other = arranged(inception_network(None), on), inception_network(None).to(on)

    def forward(model):
        with torch.no_grad(), full_precision(on):
            for batch in torch.from_numpy(images).split(sizes.batch_size):
                model(batch.to(on).permute(0, 3, 1, 2))

    yield Pair("Inception", lambda: forward(network), "torch-fidelity's", lambda: forward(other), len(images), len(images))
    yield Pair("8-bit images to statistics", lambda: _stream(network, images, sizes.batch_size, on), "Inception forward alone",
               lambda: forward(network), len(images), len(images))


def _stream(network: torch.nn.Module, images: np.ndarray, batch_size: int, on: torch.device) -> object:
    """What `restok evaluate` does until the last image is in."""
    settings = load_protocol([f"evaluation.batch_size={batch_size}"])
    facts = {"name": "random", "digest": "random", "n": max(len(images), 2049), "size": list(images.shape[1:3]),
             "rounding": "8 bit, as stored"}
    subject = Subject(facts, None, lambda size, start, stop: iter([Batch(0, images)]))
    return Evaluator(settings, judging("inception", network, "0" * 64, on), None, None, 0).statistics(subject)


def _peak(function: Callable, sizes: Sizes) -> int:
    """Bytes that a call takes beside the features: the rise of the peak of a process of its own, or of its GPU's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_taken, (function, sizes))


def _taken(function: Callable, sizes: Sizes) -> int:
    on = device()
    features = [_features(sizes.samples, sizes.dims, seed).to(on) for seed in (0, 1)]
    function(*(x[:64] for x in features))      # libraries load now
    before = peak_memory(on, forget=True)
    function(*features)
    return max(peak_memory(on) - before, 1)
