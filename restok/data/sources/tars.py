"""Tar shards as webdataset writes them: KEY.jpg, KEY.cls and KEY.json together are a sample, as in timm/imagenet-1k-wds."""

import json
import os
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from restok import config
from restok.data.classes import imagenet_ids, stem, wordnet_id
from restok.data.reading import SUFFIXES, DataError
from restok.data.sources.base import Found, Source, cut, facts_of_file, shards
from restok.files import FileError, read_json

IMAGES = tuple(suffix[1:] for suffix in SUFFIXES)
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
            for sample in _samples(folder, name):
                count += 1
                yield sample
            if not count:
                raise DataError(f"{folder / name}: holds no samples; copy it again, or leave it out")
            if promised and count != promised[name]:
                raise DataError(f"{folder / name}: {count} samples, but {INFO} promises {promised[name]}; copy the shard again")

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


def _samples(folder: Path, shard: str) -> Iterator[Found]:
    """The samples of a shard, in order. Raises DataError for what is no plain tar, or one cut short, and for a sample without
    an image or a class."""
    path = folder / shard
    try:
        with open(path, "rb") as file, tarfile.TarFile(fileobj=file) as archive:
            members, last = (member for member in archive if member.isfile() and all(_parts(member.name))), None
            for key, together in groupby(members, lambda member: _parts(member.name)[0]):
                if last:
                    yield _sample(path, shard, *last)
                parts = {}
                for member in together:
                    if (kind := _parts(member.name)[1]) in parts:
                        raise DataError(f"{path}: holds {key}.{kind} twice; leave one out, or give it a key of its own")
                    parts[kind] = archive.extractfile(member).read()
                last = key, parts
                archive.members.clear()                  # which tarfile would keep, of millions
            file.seek(archive.offset)                    # where reading ended: tarfile takes damage for the end
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end mark")
            if last:                                     # only now it is sure to be whole
                yield _sample(path, shard, *last)
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


def _sample(path: Path, shard: str, key: str, parts: dict[str, bytes]) -> Found:
    place = f"{path}: {key}"
    image = next((parts[kind] for kind in IMAGES if kind in parts), None)
    if image is None:
        raise DataError(f"{place} has no image ({', '.join(IMAGES)}), but {', '.join(parts)}; mend the shard")
    try:
        about = json.loads(parts.get("json", b"{}"))
        about = about if isinstance(about, dict) else {}
        label = int(parts["cls"]) if "cls" in parts else about["label"]
        if type(label) is not int or about.get("label", label) != label:
            raise ValueError(f"cls is {label!r}, json says {about.get('label')!r}")
    except KeyError:
        raise DataError(f"{place} has no class: write its number into {key}.cls, or as 'label' into {key}.json") from None
    except (ValueError, RecursionError) as error:        # of a json that nests without end
        raise DataError(f"{place} has a class that is no number ({error}); write one from 0 on") from None
    if label < 0:
        raise DataError(f"{place} has label {label}; classes are numbered from 0 on")
    said = about.get("filename")
    said = said if isinstance(said, str) else key
    kind = wordnet_id(said) or wordnet_id(key) or said.rpartition("/")[0].rpartition("/")[2] or None
    return Found(f"{label if kind is None else kind}/{stem(key)}", place, shard, label, kind, lambda: image)
