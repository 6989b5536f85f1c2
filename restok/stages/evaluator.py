"""A feature network at work: the statistics of a subject, whole, in shards, over processes, and from where a run was cut."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from restok import config
from restok.distributed import device, gathered, is_first, own_share, shared_errors
from restok.metrics.features import JUDGES, FeatureNetwork, Features, load_features
from restok.metrics.published import CACHE
from restok.metrics.reconstruction import similarity, similarity_names
from restok.metrics.statistics import Statistics, StatisticsError
from restok.networks.lpips import load_lpips
from restok.networks.pretrained import FetchError
from restok.parts import WHOLE, Shard
from restok.progress import track
from restok.stages.subjects import Batch, Images, MeasureError, Subject, reference_of

CHUNK = 512        # images taken in at once; states are saved, and shards cut, between chunks
log = logging.getLogger("restok")


@dataclass(frozen=True)
class Evaluator:
    """Feature networks and how they are used, `network` and those that are `also` asked; `lpips` is a network with the sha256
    of its weights, or None."""

    settings: config.Evaluation
    network: FeatureNetwork
    lpips: tuple[torch.nn.Module, str] | None
    crop: int | None
    workers: int
    paths: Mapping[str, Path] = field(default_factory=dict)       # of the weights of its networks
    also: tuple[FeatureNetwork, ...] = ()

    @classmethod
    def load(cls, settings: config.Evaluation, classifier: Path | None, crop: int | None, workers: int,
             paired: bool = False, spare: bool = False) -> "Evaluator":
        """With LPIPS where reconstructions are to be measured by it. With `spare`, FDr6's networks are all left out where a
        process lacks weights of one."""
        network = load_features(settings, classifier, device())
        if paired and "fdr6" in settings.also:
            log.warning("FDr6 is of samples: reconstructions have its distances alone")
        lpips = load_lpips("alex", settings.lpips_weights, "evaluation.lpips_weights") if paired and settings.lpips else None
        also, lacking = {}, []
        for name in settings.networks[1:]:
            try:
                also[name] = load_features(settings, classifier, device(), name)
            except FetchError as error:
                if name in settings.also or not spare:
                    raise
                lacking.append(str(error))
        if told := [reason for process in gathered(lacking) for reason in process]:
            also = {name: network for name, network in also.items() if name in settings.also}
            if is_first():
                log.warning("images are measured here without FDr6's networks: %s", "; ".join(dict.fromkeys(told)))
        files = {name: settings.weights_of(name)[1] for name in (settings.features, *also) if name != "digits"}
        paths = {"features": files.get(settings.features, classifier), "lpips": lpips and settings.lpips_weights}
        paths |= {f"features {JUDGES[name].kind}": files[name] for name in also}
        return cls(settings, network, lpips and (lpips[0].to(network.device), lpips[1]), crop, workers,
                   {name: Path(path) for name, path in paths.items() if path}, tuple(also.values()))

    def statistics(self, subject: Subject | Statistics, state: Path | None = None, shard: Shard = WHOLE) -> Statistics:
        """Measure a shard of a subject, unless that was done before, each process a share of it, and give all of them the sum.
        With `state`, from where an interrupted call left it there. Raises MeasureError where the processes were asked for
        different things, and for a shard of statistics alone."""
        if shard != WHOLE and (isinstance(subject, Statistics) or not subject.n):
            raise MeasureError(f"{subject.name}: statistics, without images to take a shard of; leave --part out")
        if isinstance(subject, Statistics):
            return subject
        asked = subject.facts, shard
        if any(other != asked for other in gathered(asked)):
            raise MeasureError(f"{subject.name}: the processes that run together were asked for different images or "
                               "shards; ask all of them for the same, of which each takes its share")
        share = own_share()
        if state is not None and share != WHOLE:
            state = state.with_stem(f"{state.stem}.process{share.part}of{share.parts}")
        with shared_errors():
            own = self._measure(subject, state, *shard.divided(share).bounds(subject.n, CHUNK))
        whole = own if share == WHOLE else own.all_reduced()
        whole.published = subject.published
        return whole

    def is_measured(self, path: Path, subject: Subject | Statistics, shard: Shard) -> bool:
        """Whether the statistics at `path` are those of a shard of a subject, whole."""
        if isinstance(subject, Statistics):
            return False
        start, stop = shard.bounds(subject.n, CHUNK)
        fresh = self.begin(subject)
        done, sums = _resume(path, fresh, start, stop)
        return sums is not fresh and done == stop          # a shard without images is measured where it is one of these

    def _measure(self, subject: Subject, state: Path | None, start: int, stop: int) -> Statistics:
        """Images start .. stop - 1 alone."""
        sums, first = self.begin(subject), start
        if state is not None and state.exists():
            start, sums = _resume(state, sums, start, stop)
        kept = sum(each.kept.nbytes for each in (sums, *sums.also.values()))
        log.info("%s: keeps the features of %d images, %.0f MB", subject.name, len(sums.kept), kept / 1e6)
        unsaved, chunks = 0, subject.batches(CHUNK, start, stop) if start < stop else ()
        for batch in track(chunks, f"measuring {subject.name}", stop - first, "images", before=start - first,
                           size=lambda batch: len(batch.images)):
            self._take(sums, subject, batch)
            unsaved += len(batch.images)
            if state is not None and unsaved >= self.settings.save_every:
                sums.save(state)
                unsaved = 0
        return sums

    def open_reference(self, path: Path) -> Subject | Statistics:
        """A statistics file, or images to measure as `reference_of` says. Published statistics are Inception's, but those that
        torch-fidelity keeps, which may be DINOv2's: with images another network takes these. Raises MeasureError without."""
        if path.suffix == ".safetensors":
            return Statistics.load(path, self.network.device)
        subject, kind = reference_of(path, self.crop, self.workers), self.network.kind
        others = {judge.kind for judge in JUDGES.values()} - {JUDGES["inception"].kind}
        if not subject.published or kind not in others or (path.suffix == CACHE and kind == JUDGES["dinov2"].kind):
            return subject
        if not subject.n:
            raise MeasureError(f"{subject.name}: statistics without images, and not of {kind} with the resize of here: "
                               "give images, or what `restok statistics` makes of them")
        return subject.with_published({})

    def reference(self, path: Path) -> Statistics:
        """The statistics of a reference."""
        return self.statistics(self.open_reference(path))

    def begin(self, subject: Subject) -> Statistics:
        """The empty state of a subject. Raises MeasureError where its published statistics are another network's."""
        widths = {"pooled": self.network.dims, "spatial": self.network.spatial}
        for part, gaussian in subject.published.items():
            if len(gaussian.mean) != widths[part]:
                raise MeasureError(f"{subject.name}: its statistics have {len(gaussian.mean)} dimensions, "
                                   f"{self.network.name}'s features {widths[part]}; take the network that they were made with")
        likeness = {}
        if subject.paired:
            names = similarity_names(subject.facts["size"], self.lpips is not None)
            likeness = {name: self.lpips[1] if name == "lpips" else None for name in [*names, "perfect"]}
        classes, codes = 0 if subject.labels is None else int(subject.labels.max()) + 1, subject.tokenizer
        if classes and self.network.knows_labels:
            classes = max(classes, self.network.classes)
        begun = Statistics.begin(self.network, subject.facts, self.settings.batch_size, spatial=not subject.paired,
                                 classes=classes, likeness=likeness, levels=codes.levels if codes else (),
                                 codebook_size=codes.codebook_size if codes else 0, also=self.also)
        begun.paths = {**subject.paths, **self.paths}
        return begun

    def _take(self, sums: Statistics, subject: Subject, batch: Batch) -> None:
        size, count = self.settings.batch_size, len(batch.images)
        parts = [slice(first, min(first + size, count)) for first in range(0, count, size)]
        features, *also = (_features(network, batch.images, parts) for network in (self.network, *self.also))
        likeness = None
        if subject.paired:
            alike = [similarity(batch.images[part], batch.originals[part], self.lpips and self.lpips[0], self.network.device)
                     for part in parts]
            likeness = {name: torch.cat([part[name] for part in alike]) for name in alike[0]}
            likeness["perfect"] = torch.from_numpy((batch.images == batch.originals).all((1, 2, 3)))
        labels = None if subject.labels is None else subject.labels[batch.start:batch.start + count]
        sums.update(batch.start, features, labels, likeness, batch.codes,
                    {network.kind: theirs for network, theirs in zip(self.also, also, strict=True)})


def _features(network: FeatureNetwork, images: Images, parts: list[slice]) -> Features:
    found = [network(images[part]) for part in parts]
    return Features(*(None if kind[0] is None else torch.cat(kind) for kind in zip(*found, strict=True)))


def _resume(path: Path, fresh: Statistics, start: int, stop: int) -> tuple[int, Statistics]:
    """(next image, state) of an interrupted call; the fresh one where the file is damaged or of something else."""
    try:
        sums = Statistics.load(path, fresh.seen.device)
        done = int(sums.seen.sum())
        if sums.facts != fresh.facts or not sums.seen[start:min(start + done, stop)].all() or start + done > stop:
            raise StatisticsError(f"{path}: of other images, settings or shards")
    except StatisticsError as error:
        log.warning("%s; starting again", error)
        return start, fresh
    log.info("%s: goes on from image %d of %d", path, start + done, stop)
    sums.paths = fresh.paths
    return start + done, sums

