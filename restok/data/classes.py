"""Which classes there are, and in what order: a list of some of them, and ImageNet's own order, that of the WordNet ids."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from restok.config.text import read_text
from restok.data.reading import DataError

CLASSES = 1_000_000                      # at most: a label beyond is none
WORDNET = re.compile(r"n\d{8}")
_IN_NAME = re.compile(r"(n\d{8})(?:_.*)?|.*_(n\d{8})")
CHECKED, SORTED = "sorted WordNet ids, checked", "sorted names"
UNKNOWN = "not checked: nothing but the labels tells the classes"
MOST = 950                               # of 1,000 names that agree: they are ImageNet's
OWN_ORDER = ("timm/imagenet-1k-wds, ILSVRC/imagenet-1k and folders named by WordNet ids have ImageNet's own order: prepare one "
             "of them, or number the labels so")


def wordnet_id(name: str) -> str | None:
    """The id of the class that an image's name carries: of its folder, or within that of the file."""
    folder, _, base = name.rpartition("/")
    for part in (folder.rpartition("/")[2], os.path.splitext(base)[0]):
        if match := _IN_NAME.fullmatch(part):
            return match[1] or match[2]
    return None


def stem(name: str) -> str:
    """'n01440764_10026' of 'a/n01440764_10026.JPEG', and of 'n01440764_10026_n01440764', as ILSVRC/imagenet-1k has it."""
    base = os.path.splitext(name.rpartition("/")[2])[0]
    return re.sub(r"(?<=.)_n\d{8}$", "", base)


def class_list(path: str | None) -> tuple[str, ...] | None:
    """The classes that a file names, one a line, in sorted order; None without a file. Raises ConfigError where it cannot be
    read, DataError for no names and for one that stands twice."""
    if path is None:
        return None
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{path}: names no classes; write one a line, or set data.classes to null")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path}: names class {name!r} {times} times; name it once")
    return tuple(sorted(names))


def imagenet_ids() -> tuple[str, ...]:
    """The 1,000 classes of ImageNet, by label, as timm ships them; read without timm, which imports torch."""
    return tuple(_timm("imagenet_synsets.txt").split())


def _timm(name: str) -> str:
    return Path(find_spec("timm").submodule_search_locations[0], "data/_info", name).read_text("utf-8")


def require_known(chosen: Sequence[str] | None, names: Sequence[str], path: str | None, where: str) -> None:
    """Raises DataError where a list of classes has one that the images of `where` do not have."""
    for name in chosen or ():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0)
            raise DataError(f"{path}: class {name!r} is no class of {where}; did you mean {near[0]!r}?")


def _named_as_imagenet(source: str, names: Sequence[str]) -> bool:
    """Whether these are ImageNet's 1,000 classes in its order, in WordNet's words for them, of which some publishers change a
    few. Raises DataError for the same words in another order."""
    words = dict(line.split("\t") for line in _timm("imagenet_synset_to_lemma.txt").splitlines())
    due = [words[each] for each in imagenet_ids()]
    if len(names) != len(due) or len(set(names) & set(due)) < MOST:
        return False
    if sum(name == word for name, word in zip(names, due, strict=True)) < MOST:
        label, name = next((i, name) for i, name in enumerate(names) if name != due[i])
        raise DataError(f"{source}: label {label} is {name!r}, where ImageNet's order has {due[label]!r}; {OWN_ORDER}")
    return True


def ordered(source: str, seen: Mapping[int, set[str]], declared: Sequence[str] | None) -> tuple[dict[int, str], str]:
    """The name of each label, where that is known, and what is known of their order.

    seen: what the images of each label say of their class; declared: the source's own names, by label. Raises DataError where
    images carry WordNet ids, and the labels are not the ranks of these.
    """
    ids = {}
    for label, kinds in sorted(seen.items()):
        found = sorted(filter(WORDNET.fullmatch, kinds))
        if len(found) > 1:
            raise DataError(f"{source}: label {label} stands for {found[0]} and for {found[1]}; {OWN_ORDER}")
        if found:
            ids[label] = found[0]
    known = declared is not None and all(map(WORDNET.fullmatch, declared))
    for label, due in zip(ids, sorted(ids.values()), strict=True):
        due = declared[label] if known else due
        if ids[label] != due:
            raise DataError(f"{source}: label {label} is {ids[label]}, where the order of WordNet ids has {due}; {OWN_ORDER}")
    for before, label in pairwise(ids):
        if ids[before] == ids[label]:
            raise DataError(f"{source}: labels {before} and {label} are both {ids[label]}; {OWN_ORDER}")
    names = dict(enumerate(declared)) if declared is not None else ids
    if len(ids) == len(seen):
        return names, CHECKED
    if not any(seen.values()):
        return names, UNKNOWN
    if declared is not None and _named_as_imagenet(source, declared):
        return names, CHECKED
    if declared is not None:
        return names, SORTED if list(declared) == sorted(declared) else UNKNOWN
    said = {label: next(iter(kinds)) for label, kinds in seen.items() if len(kinds) == 1}
    if len(set(said.values())) == len(seen):             # a class each, and not a folder of them all
        return said, SORTED if sorted(said.values()) == [said[label] for label in sorted(said)] else UNKNOWN
    return names, UNKNOWN
