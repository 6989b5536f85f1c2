"""Tar shards as webdataset writes them: KEY.jpg, KEY.cls and KEY.json together are a sample, as in timm/imagenet-1k-wds."""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path

from restok import config
from restok.data.classes import imagenet_ids, stem, wordnet_id
from restok.data.reading import SUFFIXES, DataError
from restok.data.sources.base import Found, Listed, Source, cut, facts_of_file, shards
from restok.files import FileError, read_json

IMAGES = tuple(suffix[1:] for suffix in SUFFIXES)
Parts = dict[str, partial[bytes]]        # of a sample, by kind, read when they are called
INFO = "_info.json"                      # beside the shards, as timm writes it: how many samples each holds


def webdataset(data: config.Data, image_size: int, chosen: tuple[str, ...] | None) -> dict[str, Source]:
    """The shards below data.path that data.train and data.validation name, by patterns or folders."""
    folder, splits = shards(data, "tar")
    ids = imagenet_ids()
    known = ids if chosen and set(chosen) <= set(ids) else None          # for samples that say no more than their number
    return {split: _source(folder, split, names, "{" in getattr(data, split), known) for split, names in splits.items()}


def _source(folder: Path, split: str, names: list[str], named: bool, classes: tuple[str, ...] | None) -> Source:
    promised = _promised(folder, names, named)
    sizes = [os.stat(folder / name).st_size for name in names]
    pieces = cut(sizes)

    def read(piece: int) -> Iterator[Found]:
        for name in (names[i] for i in pieces[piece]):
            count = 0
            for key, parts in samples(folder / name):
                count += 1
                yield _sample(folder / name, name, key, parts)
            _require_all(folder / name, count, promised and promised[name])

    counts = tuple(sum(promised[names[i]] for i in piece) for piece in pieces) if promised else None
    return Source(f"{folder}/{split}", classes, False, len(pieces), counts, INFO if promised else None, sum(sizes),
                  lambda piece: (facts_of_file(names[i], folder / names[i]) for i in pieces[piece]), read)


def _promised(folder: Path, names: list[str], named: bool) -> dict[str, int] | None:
    """How many samples each shard holds, as _info.json beside the first says. Raises DataError for a shard that it lists and
    that is not there, unless the shards are `named` one by one."""
    for place in dict.fromkeys((folder / names[0]).parent / up / INFO for up in (".", "..")):
        if place.is_file():
            break
    else:
        return None
    try:
        splits = {tuple(about["filenames"]): about["shard_lengths"] for about in read_json(place)["splits"].values()}
        lengths = {Path(file).name: int(length) for files, all_of_them in splits.items()
                   for file, length in zip(files, all_of_them, strict=True)}
        if min(lengths.values(), default=0) < 0:
            raise ValueError(f"a shard of {min(lengths.values())} samples")
    except (FileError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: not as timm writes it ({type(error).__name__}: {error}); copy it again, or remove it"
                        ) from None
    here = {Path(name).name for name in names}
    if unlisted := here.difference(lengths):
        raise DataError(f"{place}: does not list {min(unlisted)}, which lies beside it; copy it again, or remove it")
    for files in splits:
        listed = {Path(file).name for file in files}
        if not named and listed & here and (missing := listed - here):
            raise DataError(f"{place}: lists {len(missing)} shard(s) that are not there, such as {min(missing)}; copy them, or "
                            "name those that are wanted in braces: {0000..0099}")
    return {name: lengths[Path(name).name] for name in names}


def require_all_shards(folder: Path, counts: Mapping[str, int]) -> None:
    """Raises DataError where shards of so many samples are not all that _info.json beside them lists, and for one without."""
    promised = _promised(folder, list(counts), False)
    for name, count in counts.items():
        _require_all(folder / name, count, promised and promised[name])


def _require_all(path: Path, count: int, promised: int | None) -> None:
    if not count:
        raise DataError(f"{path}: holds no samples; copy it again, or leave it out")
    if promised is not None and count != promised:
        raise DataError(f"{path}: {count} samples, but {INFO} promises {promised}; copy the shard again")


def samples(path: Path) -> Iterator[tuple[str, Parts]]:
    """The samples of a shard, in order: the key of each, and what it holds by kind. Raises DataError for what is no plain tar,
    or one cut short."""
    try:
        with open(path, "rb") as file, tarfile.TarFile(fileobj=file) as archive:
            members, last = (member for member in archive if member.isfile() and all(_parts(member.name))), None
            for key, together in groupby(members, lambda member: _parts(member.name)[0]):
                if last:
                    yield last
                parts = {}
                for member in together:
                    if (kind := _parts(member.name)[1]) in parts:
                        raise DataError(f"{path}: holds {key}.{kind} twice; leave one out, or give it a key of its own")
                    parts[kind] = (partial(read_at, path, member.offset_data, member.size) if kind in IMAGES else
                                   partial(bytes, archive.extractfile(member).read()))
                last = key, parts
                archive.members.clear()                  # which tarfile would keep, of millions
            file.seek(archive.offset)                    # where reading ended: tarfile takes damage for the end
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end mark")
            if last:                                     # only now it is sure to be whole
                yield last
    except tarfile.TarError as error:
        raise DataError(f"{path}: not a whole tar file ({error}); copy the shard again (a compressed one must be unpacked)"
                        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file") from None


def _parts(name: str) -> tuple[str, str]:
    """Key and kind: what stands before and after the first dot of a file's own name. Hidden files, as those that macOS puts
    beside others, have no key, and files without a dot no kind: they are of no sample."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    base, _, kind = base.partition(".")
    return base and folder + slash + base, kind.lower()


def _sample(path: Path, shard: str, key: str, parts: Parts) -> Found:
    place = f"{path}: {key}"
    image = parts[_images(place, parts)[0]]
    label, about = _class(place, parts)
    if label is None:
        raise DataError(f"{place} has no class: write its number into {key}.cls, or as 'label' into {key}.json")
    said = about.get("filename")
    said = said if isinstance(said, str) else key
    kind = wordnet_id(said) or wordnet_id(key) or said.rpartition("/")[0].rpartition("/")[2] or None
    return Found(f"{label if kind is None else kind}/{stem(key)}", place, shard, label, kind, image)


def _images(place: str, parts: Parts) -> list[str]:
    """The kinds of a sample's images. Raises DataError where it has none."""
    if kinds := [kind for kind in IMAGES if kind in parts]:
        return kinds
    raise DataError(f"{place} has no image ({', '.join(IMAGES)}), but {', '.join(parts)}; mend the shard")


def _class(place: str, parts: Parts) -> tuple[int | None, dict]:
    """The number of a sample's class, where it says one, and what its json says."""
    try:
        about = json.loads(parts["json"]()) if "json" in parts else {}
        about = about if isinstance(about, dict) else {}
        label = int(parts["cls"]()) if "cls" in parts else about.get("label")
        if label is not None and (type(label) is not int or about.get("label", label) != label):
            raise ValueError(f"cls is {label!r}, json says {about.get('label')!r}")
    except (ValueError, RecursionError) as error:        # of a json that nests without end
        raise DataError(f"{place} has a class that is no number ({error}); write one from 0 on") from None
    if label is not None and label < 0:
        raise DataError(f"{place} has label {label}; classes are numbered from 0 on")
    return label, about


def tar_images(path: Path) -> Iterator[Listed]:
    """The images of a shard, which need no classes, in order: where each lies. Raises DataError as `samples` does, and for a
    sample without an image or with two."""
    for key, parts in samples(path):
        place = f"{path}: {key}"
        kind, *others = _images(place, parts)
        if others:
            raise DataError(f"{place} has {len(others) + 1} images, {kind} and {', '.join(others)}; give each a key of its own")
        yield Listed(f"{key}.{kind}", place, _class(place, parts)[0], parts[kind].args)


def read_at(path: Path, offset: int, size: int) -> bytes:
    """So many bytes of a file. Raises DataError where they cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file") from None
