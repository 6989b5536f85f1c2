"""The results of a run of the paper, and the trainings that go on, each as a run of MLflow."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from restok.config import Params
from restok.errors import RestokError
from restok.experiments import Tree, artifacts
from restok.experiments.manifests import Artifact, artifact_at
from restok.experiments.underway import Running, running
from restok.files import FileError, read_json
from restok.files.artifact import MANIFEST, OWN, digest_of
from restok.files.making import Making, commit_of, cost_of
from restok.files.run import CALLS, ORIGIN
from restok.mirror import pictures, values
from restok.mirror.curves import curves
from restok.mirror.places import KINDS, Place, places
from restok.tracking import GOING_ON, Dataset, Model, Point, Tracked

MODELS = "tokenizer", "generator"
WITHIN = {"guidance": ("candidate", "finalist"),                      # what is done for it
          "generation": ("generation", "unguided", "reconstruction")}
READ = "", ".json"                   # suffixes of what is read of the results behind a result: folders and JSON
log = logging.getLogger("restok")


class Source(NamedTuple):
    """A result, or what is to become one: a `stamp` that changes when it does, and how it is read."""

    path: Path
    stamp: tuple
    read: Callable[[], Tracked | None]


class Results:
    """All of one parameter file, in results/RUN, runs/RUN and reports/RUN."""

    def __init__(self, tree: Tree, params: Params, runs: Path, reports: Path, parameters: Path):
        self.tree, self.params, self.runs, self.reports, self.parameters = tree, params, runs, reports, parameters
        self._read: dict[Path, Artifact | None] = {}

    def sources(self) -> Iterator[Source]:
        """What is there, in the order in which each is made of those before it."""
        work = {(each.place.stage, each.place.row, each.place.checkpoint): each for each in reversed(running(self.runs))}
        for place in places(self.tree):
            files = [place.path / MANIFEST if place.path.suffix == "" else place.path, *self._measured(place).values()]
            if files[0].exists():
                yield Source(place.path, stamp(*files), partial(self._finished, place))
                continue
            now = next((work[key] for stage in WITHIN.get(place.stage, (place.stage,))
                        if (key := (stage, place.row.name, place.label)) in work), None)
            if folder := self._folder(place):
                now_is = *stamp(folder / "log.jsonl", folder / CALLS), str(now)
                yield Source(place.path, now_is, partial(self._going_on, place, folder, now))
            elif now:
                yield Source(place.path, (str(now),), partial(self._measuring, place, now))
        if files := sorted(file for file in self.reports.glob("*") if file.is_file() and not file.name.startswith(".")):
            yield Source(self.reports, stamp(*files), partial(self._reports, files))

    def _measured(self, place: Place) -> dict[str, Path]:
        """The evaluations that a run shows beside its own result."""
        if place.stage not in ("tokenizer", "generation"):
            return {}
        paths = {"reconstruction": self.tree.path("reconstruction", *place.users[0])}
        if place.stage == "generation":
            paths |= {"generation": place.path, "unguided": self.tree.path("unguided", *place.users[0])}
        return {name: path for name, path in paths.items() if path.exists()}

    def _folder(self, place: Place) -> Path | None:
        """In which it is made, of the newest call."""
        home = self.runs / place.path.relative_to(self.tree.root)
        files = [file for file in home.glob(f"*/{ORIGIN}") if (file.parent / CALLS).exists()]
        return max(files, key=lambda file: stamp(file)[0]).parent if files else None

    def _finished(self, place: Place) -> Tracked | None:
        artifact = artifact_at(place.path)
        if artifact is None:
            return None
        self._read[place.path.absolute()] = artifact
        behind, makings = self._behind(artifact), artifact.facts["made"]
        ended = _milliseconds(max(one["finished"] for one in makings))
        cost = {KINDS[place.stage]: list(makings)}
        for each in behind:
            if each.kind in MODELS:                        # of a tokenizer, of all the checkpoints up to it
                cost.setdefault(each.kind, []).extend(each.facts["made"])
        found = [*self._values(place, artifact), *values.costs(cost)]      # MLflow's comparison shows the first of them
        step = self.params.tokenizer_training.checkpoints.get(place.label, 0)
        points = [*(curves(place.path / "log.jsonl", place.steps, ended) if place.stage in MODELS else ()),
                  *(Point(name, float(value), ended, step) for name, value in found)]
        model = Model(f"{place.stage} {place.row.name} {place.label}".replace(".", " "), place.stage, place.path,
                      artifact.digest) if place.stage in MODELS else None
        return self._tracked(place, artifact, behind, ended=ended, points=points, model=model,
                             pictures=self._pictures(place), digest=artifact.digest)

    def _going_on(self, place: Place, folder: Path, now: Running | None) -> Tracked | None:
        try:
            facts = read_json(folder / ORIGIN) | {"made": read_json(folder / CALLS)}
        except FileError:
            if (folder / ORIGIN).exists():
                raise
            return None                                    # it was finished since, as the next look finds
        artifact = Artifact(place.path, place.path, facts)
        one = self._tracked(place, artifact, self._behind(artifact), list(curves(folder / "log.jsonl", place.steps, 0)))
        return replace(one, stopped=bool(now and now.stopped), tags={**one.tags, "progress": str(now or "")})

    def _measuring(self, place: Place, now: Running) -> Tracked:
        """What leaves no more than a note of how far it is."""
        return Tracked(key=f"{place.shown}{GOING_ON}", path=place.shown, name=place.name, started=round(1000 * now.began),
                       stopped=bool(now.stopped), tags=place.tags | {"progress": str(now)})

    def _tracked(self, place: Place, artifact: Artifact, behind: list[Artifact], points: list[Point], ended: int | None = None,
                 model: Model | None = None, pictures: Mapping[str, bytes] | None = None, digest: str = "") -> Tracked:
        makings, settings = artifact.facts["made"], _settings([artifact, *behind])
        began = min((one["started"] for one in makings if one["started"]), default=None)
        data = next((each for each in behind if each.kind == "data"), None)
        tags = place.tags | {"progress": "", "seed": str(settings.get("seed", place.row.seed)), "digest": digest,
                             "data": data.digest[:12] if data else "", "cost": cost_of(makings), **_made(makings)}
        return Tracked(
            key=f"{place.shown}@{digest_of({key: artifact.facts[key] for key in OWN})[:12]}@{began or 'unknown'}",
            path=place.shown, name=place.name,
            started=_milliseconds(began) if began else ended or 0, ended=ended, tags=tags, params=settings, points=points,
            files={"parameters.yaml": self.parameters}, pictures=pictures or {}, model=model,
            made_from=tuple(each.digest for each in behind if each.kind in MODELS),
            datasets=tuple(Dataset(each.kind, each.digest[:12], each.path.as_posix()) for each in behind
                           if each.kind in ("data", "codes")))

    def _values(self, place: Place, artifact: Artifact) -> values.Values:
        if place.stage == "guidance":
            yield from values.searched(artifact.facts)
        elif measured := self._measured(place):
            yield from values.evaluated(*(read_json(measured[name]) if name in measured else None
                                          for name in ("reconstruction", "generation", "unguided")))

    def _pictures(self, place: Place) -> dict[str, bytes]:
        """A grid of samples, where there are some."""
        samples = self.tree.path("samples", place.row, place.label)
        if place.stage != "generation" or not samples.exists():
            return {}
        return {"samples.png": pictures.grid(samples)}

    def _behind(self, artifact: Artifact) -> list[Artifact]:
        """What it was made of, and what that was made of, each once, as far as it is here; the nearest first."""
        found: dict[Path, Artifact] = {}
        ahead = [artifact]
        while ahead:
            for _, digest, place in ahead.pop(0).inputs:
                if digest and place and place.absolute() not in found and (each := self._at(place)):
                    found[place.absolute()] = each
                    ahead.append(each)
        return list(found.values())

    def _at(self, path: Path) -> Artifact | None:
        key = path.absolute()
        if key not in self._read:
            try:
                self._read[key] = artifact_at(path) if path.exists() and path.suffix in READ else None
            except (RestokError, OSError) as error:
                log.warning("%s: not read for MLflow (%s)", path, error)
                self._read[key] = None
        return self._read[key]

    def _reports(self, files: list[Path]) -> Tracked:
        """The tables, figures and pages, in one run, which changes with them."""
        times = [round(1000 * file.stat().st_mtime) for file in files]
        path = self.reports.as_posix()
        return Tracked(key=path, path=path, name="99 reports", started=min(times), ended=max(times),
                       tags={"stage": "reports", "row": "", "checkpoint": ""},
                       files={"parameters.yaml": self.parameters} | {file.name: file for file in files})


def _made(makings: list[Making]) -> dict[str, str]:
    """Where, by whom and of which code: of several calls all that differ."""
    clean = {"unknown" if one["changed"] is None else "no" if one["changed"] else "yes" for one in makings}
    gpus = [f"{one['processes']} x {one['device']}" for one in makings if one["device"] != "cpu"]
    told = {"commit": map(commit_of, makings), "clean": sorted(clean), "slurm_job": (one["job"] for one in makings),
            "host": (one.get("host") for one in makings), "gpus": gpus or ["none"]}
    return {name: ", ".join(dict.fromkeys(filter(None, found))) for name, found in told.items()}


def _settings(of: list[Artifact]) -> dict[str, str]:
    """All settings behind a result, as its manifest and those before it have them."""
    found: dict[str, str] = {}
    for artifact in (each for each in of if each.kind != "data"):              # of which those after it say `data.source`
        for name, value in artifacts.leaves(artifact.facts["settings"]):
            found.setdefault(name, "" if value is None else value if isinstance(value, str) else json.dumps(value))
    return dict(sorted(found.items()))


def _milliseconds(text: str) -> int:
    return round(1000 * datetime.fromisoformat(text).timestamp())


def stamp(*files: Path) -> tuple:
    """Changes when one of these files does."""
    found = []
    for file in files:
        try:
            found += [(about := file.stat()).st_mtime_ns, about.st_size]
        except FileNotFoundError:
            found += [0, 0]
    return tuple(found)
