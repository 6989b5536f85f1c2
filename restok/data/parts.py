"""Parts of a code store, which several jobs make: told from others, and gathered."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt16

from restok.data.codes import CodesError
from restok.experiments.records import CodesPart
from restok.files import FileError
from restok.files.artifact import MANIFEST, Origin, verify
from restok.files.loading import Record, load_record
from restok.parts import Shard

CHUNK = 4096                             # images that are copied at a time: 10 MB of ten crops of 128 tokens


def part_origin(whole: Origin, part: Shard, unit: int) -> Origin:
    """What a part of the store `whole` is made of; the only part is the store itself. unit: images a batch, at multiples of
    which parts are cut: a batch of others may round otherwise."""
    if part.parts == 1:
        return whole
    of = {"part": part.part, "parts": part.parts, "images_a_batch": unit}
    return replace(whole, kind="codes_part", settings={**whole.settings, **of})


class Part:
    """A folder that `restok encode --part` wrote. Raises CodesError where it is none, or is cut short."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.about: Record = load_record(folder / MANIFEST, CodesPart, lambda what: CodesError(
            f"{folder}: no part of a code store ({MANIFEST}: {what}); name the folders that `restok encode --part` wrote"))
        self.shard = Shard(self.about["settings"]["part"], self.about["settings"]["parts"])
        self.name = f"{self.shard.part}/{self.shard.parts}"
        self.remedy = f"delete {folder} and run `restok encode --part {self.name}` again"

    def require(self, whole: Origin, unit: int, count: int) -> None:
        """Raises CodesError, which names the first thing that differs, for a part of another store than `whole`, of so many
        images."""
        expected = part_origin(whole, self.shard, unit)
        ours, theirs = {**expected.inputs, **expected.settings}, {**self.about["inputs"], **self.about["settings"]}
        for key in dict.fromkeys((*ours, *theirs)):
            if ours.get(key) != theirs.get(key):
                raise CodesError(f"{self.folder}: part of another code store: {key} is {theirs.get(key)}, not {ours.get(key)}; "
                                 "encode every part, and gather them, with the same data, tokenizer and settings")
        if (rows := self.shard.bounds(count, unit)) != tuple(self.about["rows"]):
            raise CodesError(f"{self.folder}: rows {self.about['rows']}, but part {self.name} of {count} images are "
                             f"{list(rows)}; {self.remedy}")

    def batches(self) -> Iterator[tuple[UInt16[np.ndarray, "b crops n"], Int[np.ndarray, " b"]]]:
        """Its codes and labels in order. Raises CodesError for files other than those that it was written with."""
        try:
            verify(self.folder, "codes.npy", "labels.npy")
        except (OSError, FileError) as error:
            raise CodesError(f"{error}; part {self.name} is not whole: {self.remedy}") from None
        start, stop = self.about["rows"]
        if start < stop:                                             # numpy maps no empty files
            codes, labels = (np.load(self.folder / name, mmap_mode="r") for name in ("codes.npy", "labels.npy"))
            if codes.shape != (shape := (stop - start, self.about["crops"], self.about["tokens"])):
                raise CodesError(f"{self.folder}: codes of shape {codes.shape}, but {MANIFEST} says {shape}; {self.remedy}")
            for first in range(0, len(codes), CHUNK):
                yield codes[first:first + CHUNK], labels[first:first + CHUNK]


def open_parts(folders: Sequence[Path], whole: Origin, unit: int, count: int) -> list[Part]:
    """The parts of the store `whole` of `count` images in order. Raises CodesError for one that is missing, doubled or foreign.
    """
    found: dict[int, Part] = {}
    for part in map(Part, folders):
        first = next(iter(found.values()), part)
        if part.shard.parts != first.shard.parts:
            raise CodesError(f"{part.folder}: one of {part.shard.parts} parts, but {first.folder} is one of "
                             f"{first.shard.parts}; gather parts of one number")
        part.require(whole, unit, count)
        for key in ("crops", "tokens", "codebook_size"):
            if (a := part.about[key]) != (b := first.about[key]):
                raise CodesError(f"{part.folder}: {key} is {a}, but {first.folder} has {b}; delete the one that was changed, "
                                 "and encode that part again")
        if other := found.get(part.shard.part):
            raise CodesError(f"{part.folder}: part {part.name}, and so is {other.folder}; name each part once")
        found[part.shard.part] = part
    parts = first.shard.parts
    if missing := [f"{number}/{parts}" for number in range(parts) if number not in found]:
        raise CodesError(f"part {', '.join(missing)} is missing, of those that are gathered; name its folder, or run `restok "
                         f"encode --part {missing[0]}`")
    return [found[number] for number in range(parts)]
