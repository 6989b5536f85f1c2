"""What a verb wrote, known again by its manifest: of what kind, from which settings and inputs, of which files.

A folder has its manifest in manifest.json, a result in JSON around itself, an npz in its comment, statistics in their header.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from restok.files import FileError, new_folder, read_json, sha256_file, write_json
from restok.files.making import Making, made, together

MANIFEST = "manifest.json"
FORMAT = 1                               # of manifests; another number where a reader of this one would be misled
OWN = "kind", "settings", "inputs"       # what an artifact is known by
BESIDE = "format", "digest", "bytes", "paths", "made"              # what else a manifest says of it
PASSING = ".snakemake_timestamp", ".nfs", ".DS_Store"      # files that the workflow, and file systems, put into any folder
log = logging.getLogger("restok")


def digest_of(value: Any) -> str:
    """Hexadecimal sha256 of a value as JSON, whatever the order of its keys."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Origin:
    """What an artifact is made of: the settings that its verb reads, as plain values, and the sha256 of each of its inputs.
    What is made of the same is the same."""

    kind: str                            # 'tokenizer', 'codes', ...: one a verb
    settings: Mapping[str, Any]
    inputs: Mapping[str, str | None]     # None: there is no such input
    paths: Mapping[str, Path | None] = field(default_factory=dict, compare=False)       # of inputs that are files, their places

    @property
    def own(self) -> dict[str, Any]:
        """What the artifact is known by: where its inputs lay is no part of it."""
        return {"kind": self.kind, "settings": dict(self.settings), "inputs": dict(self.inputs)}

    @property
    def identity(self) -> str:
        """A sha256 over all of it."""
        return digest_of(self.own)

    def made(self, folder: Path) -> bool:
        """Whether `folder` is just this, whole: every file is there, as its digest says, and no other."""
        facts = _manifest(folder)
        if facts is None or {key: facts.get(key) for key in OWN} != self.own:
            return False
        try:
            return facts["files"] == _digests(folder)
        except (OSError, KeyError):
            return False

    def manifest(self, out: Path, makings: Sequence[Making] = ()) -> dict[str, Any]:
        """What the manifest of an artifact at `out` says of its origin and its making, by this call and `makings` before it."""
        paths = {name: seen_from(path, out) for name, path in self.paths.items() if path}
        return {"format": FORMAT, **self.own, "paths": paths, "made": together([made(), *makings])}

    def sealed(self, result: Mapping[str, Any], out: Path, makings: Sequence[Making] = ()) -> dict[str, Any]:
        """A result that is a JSON file, with what it is known again by."""
        return {**result, **self.manifest(out, makings), "digest": digest_of(result)}

    def result(self, path: Path) -> dict[str, Any] | None:
        """The result at `path`, where it is just this, as it was measured."""
        facts = _object(path) or {}
        whole = {key: facts.get(key) for key in OWN} == self.own and facts.get("digest") == digest_of(body_of(facts))
        return facts if whole else None

    def seal(self, folder: Path, out: Path, makings: Sequence[Making] = (), **facts: Any) -> dict[str, Any]:
        """Write the manifest of what is to lie at `out`, last of all, with `facts` beside what makes the artifact known again.
        Returns it. The digests of `files` among the facts are known already; `makings` are of parts and of calls before."""
        known = facts.pop("files", {})
        names = [name for name in _files(folder) if name != MANIFEST]
        manifest = facts | self.manifest(out, makings) | {
            "bytes": {name: (folder / name).stat().st_size for name in names},
            "files": {name: known.get(name) or sha256_file(folder / name) for name in names}}
        write_json(folder / MANIFEST, manifest)
        return manifest


def makings_of(folders: Iterable[Path]) -> list[Making]:
    """How parts were made, of those whose manifests say it."""
    return [one for folder in folders for one in (_manifest(folder) or {}).get("made", ())]


def body_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of a result in JSON what was measured, which its digest is of."""
    return {key: value for key, value in facts.items() if key not in OWN + BESIDE}


def seen_from(path: Path, out: Path) -> str:
    """How a manifest names an input: relative to the place of the artifact, so that all of it may be moved; an absolute path
    stays one."""
    return path.as_posix() if path.is_absolute() else Path(os.path.relpath(path, out.parent)).as_posix()


def require_replaceable(out: Path, kind: str) -> None:
    """Raises FileError where writing the folder `out` would replace anything but an artifact of this kind."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise FileError(f"{out}: is a file, or a link to nothing; name a folder to write")
    facts = _manifest(out) or {}
    if "kind" in facts and facts["kind"] != kind:
        raise FileError(f"{out}: is of kind {facts['kind']!r}, which writing {kind} there would delete; name another folder")
    known = {MANIFEST, *facts["files"]} if isinstance(facts.get("files"), dict) else ()
    if strange := [name for name in _files(out) if name not in known]:
        raise FileError(f"{out}: holds {strange[0]}, which writing {kind} there would delete; name another folder, or move it "
                        "away")


def already_made(out: Path, origin: Origin) -> bool:
    """Whether nothing is left to do, as the log then says: `out` is what would be made. Raises as `require_replaceable`."""
    if origin.made(out):
        log.info("%s: stands already, made of the same settings and inputs; delete it to have it made again", out)
        return True
    require_replaceable(out, origin.kind)
    return False


def verify(folder: Path, *names: str) -> None:
    """Raises FileError where one of these files is not the one that the folder's manifest lists. A folder without a manifest,
    as earlier versions wrote them, passes."""
    listed = (_manifest(folder) or {}).get("files", {})
    for name in names:
        if name in listed and listed[name] != sha256_file(folder / name):
            raise FileError(f"{folder / name}: not the file that {MANIFEST} beside it lists (sha256 {listed[name][:12]}); it "
                            "was changed or swapped since: copy the whole folder again, or delete it and make it again")


def publish(kept: Path, out: Path) -> None:
    """`out` becomes a second name of the files in the folder `kept`, or on another file system a copy. It is `reserved`."""
    with new_folder(out) as folder:
        shutil.copytree(kept, folder, copy_function=link, dirs_exist_ok=True)


def link(source: str | Path, target: str | Path) -> None:
    """`target` becomes a second name of the file `source`, or on another file system a copy."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:                      # another file system, or one without links
        shutil.copyfile(source, target)


def _manifest(folder: Path) -> dict | None:
    return _object(folder / MANIFEST)


def _object(path: Path) -> dict | None:
    try:
        facts = read_json(path)
    except FileError:
        return None
    return facts if isinstance(facts, dict) else None


def _digests(folder: Path) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in _files(folder) if name != MANIFEST}


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                  if (path.is_file() or path.is_symlink()) and not path.name.startswith(PASSING))
