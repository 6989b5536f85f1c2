"""Raw images to a folder of prepared ones: all at once, or in parts by as many jobs as one likes, which are gathered then. The
folder is the same."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from restok import config
from restok.config.base import Count, Positive
from restok.data.classes import class_list
from restok.data.decoding import require_decoder
from restok.data.pack import Piece, listing, pack
from restok.data.reading import DataError
from restok.data.sources import SPLITS, Source, open_sources
from restok.data.split import About, about_source, split_facts
from restok.data.table import shard_name
from restok.files import read_json
from restok.files.artifact import MANIFEST, Origin, link, makings_of
from restok.files.loading import Known, load_model
from restok.files.noted import beside, noted_in
from restok.files.run import make
from restok.parts import Shard

PART = "data part"                       # the kind of a part's folder


class _Part(Known):
    """The manifest of a part."""

    kind: str
    settings: dict[str, Any]
    part: Count
    parts: Positive
    about: Annotated[dict[Literal["train", "validation"], About], Field(min_length=2)]
    pieces: dict[str, tuple[Piece, ...]]
    files: dict[str, str]


def prepare(data: config.Data, image_size: int, folder: str | Path, run: Path | None = None) -> dict:
    """Write `folder`/train and `folder`/validation, files of encoded images as found and an index, and manifest.json.

    image_size: side of the embedded digits, which are drawn at that size; all others are packed as they are. Returns the
    manifest, which names what was skipped, because it is not read, and what is odd (`inspect`). The folder appears whole or not
    at all. Raises DataError for what is not two splits of the same classes, and where more than 1 % of a split would be skipped
    or are odd. In the folder `run`, where it is named, they are kept.
    """
    sources = open_sources(data, image_size)
    every = {split: range(source.pieces) for split, source in sources.items()}
    origin = _origin(data, _listed(sources, every, data.workers))

    def write(partial: Path) -> dict:
        return _manifest(data, partial, _about(sources), _pack(sources, every, partial, data))

    make(Path(folder), origin, run, write)
    return read_json(Path(folder) / MANIFEST)


def prepare_part(data: config.Data, image_size: int, part: Shard, folder: Path) -> None:
    """Write one part of what `prepare` packs: pieces of the sources as they are, and what is known of them. Raises as that."""
    sources = open_sources(data, image_size)
    own = _share(sources, part)
    settings = _settings(data, image_size) | {"part": f"{part.part}/{part.parts}"}

    def write(partial: Path) -> dict:
        packed = _pack(sources, own, partial, data)
        return {"part": part.part, "parts": part.parts, "files": _files(packed),
                "about": {split: about.model_dump(mode="json") for split, about in _about(sources).items()},
                "pieces": {split: [piece.model_dump(mode="json") for piece in pieces] for split, pieces in packed.items()}}

    with noted_in(beside(folder)):
        make(folder, Origin(PART, settings, _together(_listed(sources, own, data.workers)), _paths(data)), None, write)


def gather(data: config.Data, image_size: int, folders: Sequence[Path], folder: Path, run: Path | None = None) -> None:
    """What `prepare` writes, of all its parts: their files get a second name, and no second place on the disk. Raises DataError
    for a part that is missing, there twice, or of other settings or another source."""
    parts = _all_parts(folders, _settings(data, image_size))
    pieces = {split: sorted((piece for part in parts.values() for piece in part.pieces[split]), key=lambda piece: piece.number)
              for split in SPLITS}
    about = next(iter(parts.values())).about

    def write(partial: Path) -> dict:
        for split in SPLITS:
            (partial / split).mkdir()
        for place, part in parts.items():
            for name in part.files:
                link(place / name, partial / name)
        return _manifest(data, partial, about, pieces) | {"makings": makings_of(parts)}

    listed = {split: [piece.facts for piece in each] for split, each in pieces.items()}
    make(folder, _origin(data, listed), run, write)


def _settings(data: config.Data, image_size: int) -> dict[str, Any]:
    """What decides of a part, beside the source itself."""
    own = data.model_dump(mode="json", include={"source", "path", "train", "validation", "decoder"})
    return own | {"classes": _listed_classes(data), "image_size": image_size if data.source == "digits" else None}


def _listed_classes(data: config.Data) -> list[str] | None:
    """As JSON holds them."""
    classes = class_list(data.classes)
    return None if classes is None else list(classes)


def _origin(data: config.Data, listed: Mapping[str, Iterable[str]]) -> Origin:
    settings = {"source": data.source, "decoder": data.decoder, "classes": _listed_classes(data)}
    return Origin("data", settings, _together(listed), _paths(data))


def _paths(data: config.Data) -> dict[str, Path]:
    """Where the images of files lie."""
    return dict.fromkeys(SPLITS, Path(data.path)) if data.path else {}


def _together(listed: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """One sha256 a split, of those of its pieces."""
    return {split: sha256("".join(each).encode()).hexdigest() for split, each in listed.items()}


def _listed(sources: Mapping[str, Source], numbers: Mapping[str, Sequence[int]], workers: int) -> dict[str, list[str]]:
    return {split: list(listing(source, numbers[split], workers)) for split, source in sources.items()}


def _share(sources: Mapping[str, Source | About], part: Shard) -> dict[str, list[int]]:
    """The pieces of a part, of both splits."""
    every = [(split, number) for split in SPLITS for number in range(sources[split].pieces)]
    own = every[slice(*part.bounds(len(every)))]
    return {split: [number for each, number in own if each == split] for split in SPLITS}


def _pack(sources: Mapping[str, Source], numbers: Mapping[str, Sequence[int]], folder: Path,
          data: config.Data) -> dict[str, list[Piece]]:
    classes = class_list(data.classes)
    return {split: pack(source, numbers[split], folder / split, classes, data.decoder, data.workers)
            for split, source in sources.items()}


def _about(sources: Mapping[str, Source]) -> dict[str, About]:
    return {split: about_source(source) for split, source in sources.items()}


def _manifest(data: config.Data, folder: Path, about: Mapping[str, About], pieces: Mapping[str, Sequence[Piece]]) -> dict:
    return {"source": data.source, "decoder": require_decoder(data.decoder),
            "splits": split_facts(folder, about, pieces, class_list(data.classes), data.classes), "files": _files(pieces)}


def _files(pieces: Mapping[str, Sequence[Piece]]) -> dict[str, str]:
    """The sha256 of each packed file."""
    return {f"{split}/{shard_name(piece.number)}": piece.sha256 for split, each in pieces.items() for piece in each}


def _all_parts(folders: Sequence[Path], settings: Mapping[str, Any]) -> dict[Path, _Part]:
    """The manifests of all parts, once it is sure that they are the parts of one whole, by their folders."""
    parts: dict[Path, _Part] = {}
    for folder in folders:
        part = load_model(folder / MANIFEST, _Part)
        number = f"part {part.part}/{part.parts}"
        if part.kind != PART:
            raise DataError(f"{folder}: is of kind {part.kind!r}, not a part; name folders that `restok prepare --part` wrote")
        other = {key: value for key, value in part.settings.items() if key != "part" and value != settings.get(key)}
        for key, value in other.items():
            raise DataError(f"{folder}: {number} was made with {key} {value!r}, not {settings.get(key)!r}; make it again")
        for place, before in parts.items():
            if before.parts != part.parts:
                raise DataError(f"{folder}: one of {part.parts} parts, but {place} is one of {before.parts}; name the parts of "
                                "one whole")
            if before.part == part.part:
                raise DataError(f"{folder}: {number}, as {place} is; name each part once")
            if before.about != part.about:
                raise DataError(f"{folder}: {number} saw other images in {part.about['train'].name} than {place} did, for they "
                                "were changed in between; make all parts again")
        _require_files(folder, part)
        parts[folder] = part
    count = next(iter(parts.values())).parts
    if missing := sorted(set(range(count)).difference(part.part for part in parts.values())):
        more = f", and {len(missing) - 1} more" if missing[1:] else ""
        raise DataError(f"part {missing[0]}/{count} is missing{more}; make it (`restok prepare --part {missing[0]}/{count}`), "
                        f"and name all {count} folders")
    return parts


def _require_files(folder: Path, part: _Part) -> None:
    due = _share(part.about, Shard(part.part, part.parts))
    if {split: [piece.number for piece in pieces] for split, pieces in part.pieces.items()} != due:
        raise DataError(f"{folder / MANIFEST}: does not list the pieces of part {part.part}/{part.parts}; make the part again")
    for split, pieces in part.pieces.items():
        for piece in pieces:
            path = folder / split / shard_name(piece.number)
            if not path.is_file() or path.stat().st_size != piece.bytes:
                raise DataError(f"{path}: missing or cut short; make part {part.part}/{part.parts} again")
