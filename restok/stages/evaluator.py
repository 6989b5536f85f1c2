"""A feature network at work: the statistics of a subject, whole, in shards, over processes, and from where a run was cut."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from restok import config
from restok.data.images import open_images
from restok.distributed import WHOLE, Shard, device, own_share
from restok.errors import RestokError
from restok.files import npz_names, sha256_file
from restok.metrics.features import FeatureNetwork, Features, load_features
from restok.metrics.reconstruction import similarity, similarity_names
from restok.metrics.statistics import Statistics, StatisticsError, published_gaussians
from restok.networks.lpips import load_lpips
from restok.progress import track
from restok.stages.subjects import Batch, Subject, images_of

CHUNK = 512        # images taken in at once; states are saved, and shards cut, between chunks
log = logging.getLogger("restok")


class MeasureError(RestokError):
    """Images that cannot be measured; the message names the file and the remedy."""


@dataclass(frozen=True)
class Evaluator:
    """A feature network and how it is used; `lpips` is a network with the sha256 of its weights, or None."""

    settings: config.Evaluation
    network: FeatureNetwork
    lpips: tuple[torch.nn.Module, str] | None
    crop: int | None
    workers: int

    @classmethod
    def load(cls, settings: config.Evaluation, classifier: Path | None, crop: int | None, workers: int,
             paired: bool = False) -> "Evaluator":
        """With LPIPS where reconstructions are to be measured by it."""
        network = load_features(settings, classifier, device())
        lpips = load_lpips("alex", settings.lpips_weights, "evaluation.lpips_weights") if paired and settings.lpips else None
        return cls(settings, network, lpips and (lpips[0].to(network.device), lpips[1]), crop, workers)

    def statistics(self, subject: Subject, state: Path | None = None, shard: Shard | None = None) -> Statistics:
        """Measure a subject, each process of `processes` a share of it; or one shard alone. With `state`, from where an
        interrupted call left it there."""
        share = own_share()
        if shard is None and share != WHOLE:
            own = state and state.with_stem(f"{state.stem}.{share.part}of{share.parts}")
            return self.statistics(subject, own, share).all_reduced()
        found = self.begin(subject)
        start, stop = (shard or WHOLE).bounds(subject.n, CHUNK)
        if state is not None and state.exists():
            start, found = _resume(state, found, start, stop)
        log.info("%s: keeps the features of %d images, %.0f MB", subject.facts["name"], len(found.kept),
                 found.kept.nbytes / 1e6)
        unsaved, chunks = 0, subject.batches(CHUNK, start, stop) if start < stop else ()
        for batch in track(chunks, f"measuring {subject.facts['name']}", -(-(stop - start) // CHUNK)):
            self._take(found, subject, batch)
            unsaved += len(batch.images)
            if state is not None and unsaved >= self.settings.save_every:
                found.save(state)
                unsaved = 0
        return found

    def reference(self, path: Path, state: Path | None = None) -> Statistics:
        """The statistics of a reference: a statistics file, an ADM npz, an npz of images, a prepared or any image folder."""
        if path.suffix == ".safetensors":
            return Statistics.load(path, self.network.device)
        published, images = {}, True
        if path.suffix == ".npz":
            names = npz_names(path)
            published, images = published_gaussians(path), "arr_0" in names
            if not published and not images:
                raise MeasureError(f"{path}: has neither arr_0 (images) nor mu and sigma (statistics), only {', '.join(names)}")
        if images:
            found = self.statistics(images_of(open_images(path, self.crop, self.workers)), state)
        else:
            found = self.begin(Subject({"name": path.name, "digest": sha256_file(path), "n": 0, "size": None,
                                         "rounding": "unknown", "originals": None, "in_order": False}, None,
                                        lambda *_: iter(())))
        for part, width in (("pooled", self.network.dims), ("spatial", self.network.spatial)):
            if part in published and len(published[part].mean) != width:
                raise MeasureError(f"{path}: its statistics have {len(published[part].mean)} dimensions, {self.network.name}'s "
                                   f"features {width}; take the network that they were made with")
        found.published = published
        return found

    def begin(self, subject: Subject) -> Statistics:
        """The empty state of a subject."""
        likeness = {}
        if subject.paired:
            names = similarity_names(subject.facts["size"], self.lpips is not None)
            likeness = {name: self.lpips[1] if name == "lpips" else None for name in [*names, "perfect"]}
        classes = max(subject.classes, self.network.classes) if self.network.knows_labels else subject.classes
        return Statistics.begin(self.network, subject.facts, self.settings.batch_size, spatial=not subject.paired,
                                classes=classes if subject.classes else 0, likeness=likeness, levels=subject.levels,
                                codebook_size=subject.codebook_size)

    def _take(self, found: Statistics, subject: Subject, batch: Batch) -> None:
        size, count = self.settings.batch_size, len(batch.images)
        parts = [slice(first, min(first + size, count)) for first in range(0, count, size)]
        features = [self.network(batch.images[part]) for part in parts]
        features = Features(*(None if kind[0] is None else torch.cat(kind) for kind in zip(*features, strict=True)))
        likeness = None
        if subject.paired:
            alike = [similarity(batch.images[part], batch.originals[part], self.lpips and self.lpips[0], self.network.device)
                     for part in parts]
            likeness = {name: torch.cat([part[name] for part in alike]) for name in alike[0]}
            likeness["perfect"] = torch.from_numpy((batch.images == batch.originals).all((1, 2, 3)))
        labels = None if subject.labels is None else subject.labels[batch.start:batch.start + count]
        found.update(batch.start, features, labels, likeness, batch.codes)


def _resume(path: Path, fresh: Statistics, start: int, stop: int) -> tuple[int, Statistics]:
    """(next image, state) of an interrupted call; the fresh one where the file is damaged or of something else."""
    try:
        found = Statistics.load(path, fresh.seen.device)
    except StatisticsError as error:
        log.warning("%s; starting again", error)
        return start, fresh
    done = int(found.seen.sum())
    if found.facts != fresh.facts or not found.seen[start:min(start + done, stop)].all() or start + done > stop:
        log.warning("%s: of other images, settings or shards; starting again", path)
        return start, fresh
    log.info("%s: goes on from image %d of %d", path, start + done, stop)
    return start + done, found
