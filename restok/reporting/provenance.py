"""From a number back to the images: what an artifact was made of, what that was made of, and whether all of it still matches.
"""

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from restok.errors import RestokError
from restok.experiments.manifests import RECORDS, Artifact, ManifestError, artifact_at, record_of
from restok.experiments.places import STAGES, stage_of
from restok.files import FileError, sha256_file
from restok.files.artifact import MANIFEST
from restok.files.making import commit_of, cost_of
from restok.progress import track
from restok.reporting.run import remedy

WEIGHTS = "model.safetensors"
SHARDS = ".tar", ".parquet"              # of images, which are known by what they hold, as folders are
AS_FOUND = {"train", "validation", "images", "originals", "reference images"}      # inputs that may be images of anybody's
MADE_BY = {"evaluation": "evaluate", "chart": "figure", "codes_part": "encode --part", "data part": "prepare --part",
           "images": "reconstruct", "released tokenizer": "convert", "released generator": "convert"} | {
               name: stage.verb for name, stage in STAGES.items()}


class ProvenanceError(RestokError):
    """Artifacts that no longer match what was made of them; the message names each, with its remedy."""


class Fault(NamedTuple):
    path: Path
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}"


@dataclass
class Node:
    """A thing in the tree: an artifact, a file without a manifest, or (no path) a value that is known by its digest alone."""

    path: Path | None
    artifact: Artifact | None = None
    here: bool = True
    faults: list[Fault] = field(default_factory=list)
    inputs: list["Input"] = field(default_factory=list)


class Input(NamedTuple):
    """What a thing was made of, by its names there, each with the digest that it then had."""

    digests: Mapping[str, str]
    node: Node


class Walk:
    """All that lies behind a file. Each artifact is read, and with `check` held against its manifest, once; `nodes` are those
    that another walk has read. Paths that are not here, as after a partial pull, are no faults."""

    def __init__(self, file: Path, check: bool = True, full: bool = False, nodes: dict[Path, Node] | None = None):
        self.check, self.full, self.nodes, self.faults = check, full, {} if nodes is None else nodes, []
        if not file.exists():
            raise FileError(f"{file}: not here; name a file or folder that restok made")
        if file.is_dir() and not (file / MANIFEST).exists() and stage_of(file) is None:
            raise FileError(f"{file}: holds no {MANIFEST}; name one of the files or folders in it")
        self.top = self._visit(self._own(file))
        if self.top.artifact is None and not self.top.faults:
            self._fault(self.top, file, "has no manifest: restok did not write it, or an earlier version did, or its record "
                        f"({RECORDS}/{file.stem}.json beside it) is gone", _again(file))
        if check:
            self._check()

    def _own(self, file: Path) -> Path:
        """Where a report was written, of which `file`, as reports/table2.csv, is a copy."""
        written = [path for path in sorted(file.parent.glob(f"*/{file.name}")) if record_of(path)]
        if not file.is_file() or artifact_of(file) is not None or not written:
            return file
        digest = sha256_file(file)
        same = next((path for path in written if sha256_file(path) == digest), None)
        if same is None:
            self.faults.append(Fault(file, f"is not what any run has ({', '.join(map(str, written))}): it was changed since it "
                                     "was copied, or is of an earlier run", _again(file)))
        return same or written[0]

    def _visit(self, path: Path) -> Node:
        key = Path(os.path.abspath((path.is_file() and record_of(path)) or path))       # files of one figure are one thing
        if (node := self.nodes.get(key)) is None:
            node = self.nodes[key] = Node(seen(path), here=path.exists())
            if node.here:
                self._read(node, path)
        return node

    def _read(self, node: Node, path: Path) -> None:
        try:
            node.artifact = artifact_at(path)
        except (ManifestError, FileError) as error:
            reason = str(error).partition(": ")[2]
            self._fault(node, node.path, reason, _again(path))
        if node.artifact is None:
            return
        places: dict[Path | None, dict[str, str]] = {}
        for name, digest, place in node.artifact.inputs:
            if digest is not None:
                places.setdefault(place, {})[name] = digest
        for place, digests in places.items():
            if place is None:
                node.inputs += [Input({name: digest}, Node(None)) for name, digest in digests.items()]
                continue
            found = self._visit(place)
            if not any(found is other.node for other in node.inputs):
                node.inputs.append(Input(digests, found))
            self._compare(node, found, place, digests)

    def _compare(self, node: Node, found: Node, place: Path, digests: Mapping[str, str]) -> None:
        """What a thing was made of, with what lies at its place now."""
        if not self.check or not found.here or found.faults:
            return
        if found.artifact:
            known, now = found.artifact.known_as, found.artifact.digest
        else:
            file = place if place.is_file() else place / WEIGHTS                # weights from elsewhere have no manifest
            if not file.is_file() or file.suffix in SHARDS or (stage_of(place) and "results" in place.parts):
                if not set(digests) <= AS_FOUND:
                    self._fault(found, found.path, f"has no manifest, so it may be another than {node.path} was made of",
                                _again(place))
                return
            now = sha256_file(file)
            known = {now}
        for name, digest in digests.items():
            if digest not in known:
                what = "file" if name == place.as_posix() or "/" in name else name
                self._fault(node, node.path, f"was made of another {what} ({digest[:12]}) than lies at {seen(place)} now "
                            f"({now[:12]})", f"put the other back, or {_again(node.path)}")

    def _check(self) -> None:
        pairs = [(node, name) for node in self.nodes.values() if node.artifact
                 for name in node.artifact.files or (None,)]
        for node, name in track(pairs, "checking", len(pairs), "files"):
            if what := node.artifact.fault(name, self.full):
                self._fault(node, seen(node.artifact.home / name) if name else node.path, what, _again(node.path))

    def _fault(self, node: Node, path: Path, what: str, how: str) -> None:
        node.faults.append(Fault(path, what, how))
        self.faults.append(node.faults[-1])

    def require_matching(self) -> None:
        """Raises ProvenanceError, which names every fault."""
        if self.faults:
            count = f"{len(self.faults)} fault{'s' * (len(self.faults) > 1)}"
            raise ProvenanceError("\n".join([f"{self.top.path}: {count} on the way to the images", *map(str, self.faults)]))

    def summary(self) -> str:
        artifacts = [node for node in self.nodes.values() if node.artifact]
        lacking = [node.path.as_posix() for node in self.nodes.values() if not node.here]
        gone = f"; not here, and not checked: {', '.join(lacking)}" if lacking else ""
        return f"everything matches: {len(artifacts)} artifact{'s' * (len(artifacts) != 1)}{gone}"

    def as_json(self) -> dict[str, Any]:
        """Every artifact by its path, whole, with its inputs by theirs."""
        faults = [{"path": fault.path.as_posix(), "what": fault.what, "remedy": fault.remedy} for fault in self.faults]
        return {"file": self.top.path.as_posix(), "matches": not faults, "faults": faults,
                "artifacts": {node.path.as_posix(): _facts(node) for node in self.nodes.values()}}


def artifact_of(path: Path) -> Artifact | None:
    """`artifact_at`, or None of what cannot be read."""
    try:
        return artifact_at(path)
    except (ManifestError, FileError):
        return None


def seen(path: Path) -> Path:
    """A path as it is shown: from here, where it lies below."""
    whole, here = os.path.abspath(path), os.getcwd()
    return Path(os.path.relpath(whole, here)) if Path(whole).is_relative_to(here) else Path(whole)


def _again(path: Path) -> str:
    """How something is made again."""
    if stage_of(path) is None and not path.parts[:1] == ("reports",):
        return "make it again with the command that wrote it"
    return remedy(path)


def verb_of(artifact: Artifact) -> str:
    stage = stage_of(artifact.path)
    return f"restok {stage[0].verb if stage else MADE_BY.get(artifact.kind, artifact.kind)}"


def _facts(node: Node) -> dict[str, Any]:
    if node.artifact is None:
        return {"here": node.here, "manifest": None}
    about = node.artifact
    inputs = {name: {"digest": digest, "path": place and seen(place).as_posix()} for name, digest, place in about.inputs}
    return {"here": True, "kind": about.kind, "verb": verb_of(about), "digest": about.digest, "inputs": inputs,
            "settings": about.facts["settings"], "made": about.facts["made"], "files": about.facts.get("files")}


def telling(nodes: Iterable[Node]) -> dict[str, set[str]]:
    """By kind, the settings in which some of these differ."""
    values: dict[str, dict[str, set[str]]] = {}
    for about in (node.artifact for node in nodes if node.artifact):
        for name, value in _leaves(about.facts["settings"]):
            values.setdefault(about.kind, {}).setdefault(name, set()).add(value)
    return {kind: {name for name, found in names.items() if len(found) > 1} for kind, names in values.items()}


def short_settings(settings: Mapping[str, Any], width: int, first: Container[str] = ()) -> str:
    """As much of 'seed=10086 threads=1 tokenizer.width=64 ...' as fits: those of `first`, then the plain ones."""
    leaves = sorted(_leaves(settings), key=lambda leaf: (leaf[0] not in first, leaf[0].count(".")))
    words, left = [], width
    for number, (name, value) in enumerate(leaves):
        word = f"{name}={value}"
        if left < len(word) + 12:
            return " ".join([*words, f"(+{len(leaves) - number})"])
        words.append(word)
        left -= len(word) + 1
    return " ".join(words)


def _leaves(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{above}{key}.")
        elif inner is not None and not (isinstance(inner, list) and len(str(inner)) > 40):
            yield f"{above}{key}", str(inner).replace(" ", "")


def line(node: Node, digests: Mapping[str, str]) -> dict[str, str]:
    """The parts of a node's line, where it was named by such names and digests: its digest, its verb, the commit, the cost."""
    name = node.path.as_posix() if node.path else ""
    roles = ", ".join(role for role in digests if "/" not in role)
    if node.artifact is None:
        digest = next(iter(digests.values()), "")
        kind = "" if node.path is None else "not here" if not node.here else "file" if node.path.is_file() else "no manifest"
        return {"role": roles, "path": name, "digest": digest[:12], "verb": kind, "commit": "", "cost": ""}
    makings = node.artifact.facts["made"]
    return {"role": roles, "path": name, "digest": node.artifact.digest[:12], "verb": verb_of(node.artifact),
            "commit": ", ".join(dict.fromkeys(map(commit_of, makings))), "cost": cost_of(makings)}
