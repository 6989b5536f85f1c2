"""Manifests of every kind, read alike and held against what they are of: folders, results in JSON, npz, statistics, reports."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from restok.config import Guidance
from restok.errors import InputError, RestokError
from restok.experiments.items import RECORDS
from restok.files import FileError, read_json, require_no_pipe, sha256_file
from restok.files.artifact import FORMAT, MANIFEST, body_of, digest_of
from restok.files.loading import Known, checked
from restok.files.npz import npz_manifest
from restok.files.tensors import arrays_sha256

LONG = ".arrow", "state.pt"              # packed images, and states to train on from: as large as all the rest together


class ManifestError(RestokError):
    """A file without a manifest, or with one of another version; `remedy` says what to do."""


class _Made(BaseModel):
    """How something was made: `restok.files.making.made` says it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    restok: str | None
    source: str
    commit: str | None
    changed: list[str] | None
    versions: dict[str, str]
    device: str
    processor: str
    threads: int | None
    processes: int
    job: str | None
    started: str | None
    finished: str
    seconds: float | None
    calls: int
    unknown: int
    host: str | None = None                  # of earlier manifests nobody knows these
    memory_gb: float | None = None
    gpu_memory_gb: float | None = None


class _Manifest(Known):
    format: int
    kind: str
    settings: dict[str, JsonValue]
    inputs: dict[str, str | None]
    paths: dict[str, str]
    made: list[_Made] = Field(min_length=1)
    files: dict[str, str] | None = None
    bytes: dict[str, int] | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Artifact:
    """What lies at a path, as its manifest says: `facts` are the whole manifest, `found` the digest of what is really there, of
    results that are no folders."""

    path: Path
    home: Path                           # the folder of `files`
    facts: Mapping[str, Any]
    found: str | None = None

    @property
    def kind(self) -> str:
        return self.facts["kind"]

    @property
    def files(self) -> Mapping[str, str]:
        return self.facts.get("files") or {}

    @property
    def digest(self) -> str:
        """Of what it holds: of a model its weights', of codes their own."""
        names = self.path.name, "model.safetensors", "codes.npy"
        return self.found or next((self.files[name] for name in names if name in self.files), None) or digest_of(self.files)

    @cached_property
    def known_as(self) -> set[str]:
        """Every digest by which what was made of it may name it as an input."""
        known = {self.digest, *self.files.values()}
        known |= {split["sha256"] for split in self.facts.get("splits", {}).values()}        # of prepared images
        if "facts" in self.facts:                                                            # of statistics
            known.add(digest_of(self.facts["facts"]))
        if "chosen" in self.facts:                                                           # of a search: what it chose
            known.add(digest_of(Guidance(**self.facts["chosen"]).model_dump(mode="json")))
        return known

    @property
    def inputs(self) -> Iterator[tuple[str, str | None, Path | None]]:
        """Each input's name, its digest, and its place, where it is a file."""
        base = self.home.parent if self.home == self.path else self.home
        for name, digest in self.facts["inputs"].items():
            place = self.facts["paths"].get(name)
            yield name, digest, None if place is None else Path(os.path.normpath(base / place))

    def fault(self, name: str | None, full: bool) -> str | None:
        """Why a file, or (None) the artifact itself, is not what the manifest says; without `full`, of LONG ones by the length
        alone."""
        if name is None:
            said, found = self.facts.get("digest"), self.found
            return f"was changed since it was written (it says {said[:12]}, and is {found[:12]})" if said != found else None
        file, said = self.home / name, self.files[name]
        if not file.is_file():                                            # of a report's files some may be elsewhere
            return "is missing" if self.home == self.path else "is no regular file" if file.exists() else None
        if not full and name.endswith(LONG):
            size, was = file.stat().st_size, self.facts["bytes"][name]
            return f"has {size} bytes, not {was}" if size != was else None
        if (found := sha256_file(file)) != said:
            return f"was changed or swapped since it was written (its manifest says {said[:12]}, it is {found[:12]})"
        return None


def record_of(file: Path) -> Path | None:
    """The record that lists a report, where there is one beside it."""
    for record in sorted(file.parent.glob(f"{RECORDS}/*.json")):
        try:
            if file.name in read_json(record)["files"]:
                return record
        except (FileError, KeyError, TypeError):
            continue
    return None


def artifact_at(path: Path) -> Artifact | None:
    """The artifact at a path, or the one that a file in its folder belongs to; None of a file that has no manifest. Raises
    ManifestError, which names it, where there should be one that can be read, FileError."""
    require_no_pipe(path)
    if path.is_dir():
        return _artifact(path, path, read_json(path / MANIFEST)) if (path / MANIFEST).exists() else None
    if (beside := path.with_name(MANIFEST)).exists():
        return artifact_at(path.parent) if path == beside or path.name in read_json(beside).get("files", {}) else None
    if path.parent.name == RECORDS and path.suffix == ".json":
        return _artifact(path, path.parent.parent, read_json(path))
    if record := record_of(path):
        return _artifact(path, path.parent, read_json(record))
    if path.suffix == ".json":
        facts = read_json(path)
        known = isinstance(facts, dict) and {"kind", "inputs"} <= facts.keys()
        return _artifact(path, path.parent, facts, digest_of(body_of(facts))) if known else None
    if path.suffix == ".npz":
        facts = npz_manifest(path)
        return facts and _artifact(path, path.parent, facts, facts.pop("found"))
    return _statistics(path) if path.suffix == ".safetensors" else None


def _statistics(path: Path) -> Artifact | None:
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
            if "facts" not in about:
                return None
            found = arrays_sha256((name, file.get_tensor(name)) for name in sorted(file.keys()))
        facts = {key: text if key == "digest" else json.loads(text) for key, text in about.items()}
    except (SafetensorError, ValueError) as error:
        raise ManifestError(f"{path}: damaged or cut short ({error})") from None
    measured = facts["facts"]
    images = measured["images"]
    inputs = (images.get("inputs") or {"images": images["digest"]}) | {"features": measured["features"]["sha256"]}
    inputs |= {name: digest for name, digest in measured["likeness"].items() if digest}
    inputs |= {f"features {one['features']['kind']}": one["features"]["sha256"] for one in measured.get("also", ())}
    settings = images.get("settings", {}) | {"n": images["n"], "batch_size": measured["batch_size"], "size": images["size"]}
    return _artifact(path, path.parent, facts | {"kind": "statistics", "settings": settings, "inputs": inputs}, found)


def _artifact(path: Path, home: Path, facts: Any, found: str | None = None) -> Artifact:
    """Once its manifest is one of this version."""
    if not isinstance(facts, dict) or "format" not in facts:
        raise ManifestError(f"{path}: its manifest has no 'format': an earlier version of restok wrote it")
    if facts["format"] != FORMAT:
        raise ManifestError(f"{path}: its manifest is of format {facts['format']!r}, which another version of restok wrote; "
                            f"this one reads {FORMAT}")
    try:
        checked(facts, _Manifest)
    except InputError as error:
        raise ManifestError(f"{path}: its manifest is of another version, or was changed: {error}") from None
    if "files" in facts and set(facts["files"]) != set(facts.get("bytes") or ()):
        raise ManifestError(f"{path}: its manifest is of another version, or was changed: bytes are not those of files")
    return Artifact(path, home, facts, found)
