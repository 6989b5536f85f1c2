"""Where images come from: one function a kind of source, each of which gives both splits."""

from collections.abc import Callable
from itertools import permutations

from restok import config
from restok.data.classes import class_list
from restok.data.reading import DataError
from restok.data.sources.base import SPLITS, Found, Source
from restok.data.sources.digits import digits
from restok.data.sources.folder import class_names, imagefolder
from restok.data.sources.parquet import parquet
from restok.data.sources.tars import webdataset

Splits = dict[str, Source]
Chosen = tuple[str, ...] | None          # the classes that are taken, in the order of their numbers; None: all
SOURCES: dict[str, Callable[[config.Data, int, Chosen], Splits]] = {
    "digits": digits, "imagefolder": imagefolder, "webdataset": webdataset, "parquet": parquet}


def open_sources(data: config.Data, image_size: int) -> Splits:
    """The source of each split: what it holds, as its listing tells, before any image is read.

    image_size: side of the embedded digits, which are drawn at that size. Raises DataError for what is not there or is no such
    source, and for splits of other classes.
    """
    splits = SOURCES[data.source](data, image_size, class_list(data.classes))
    for here, there in permutations(splits.values()):
        if here.classes and there.classes and (alone := set(here.classes).difference(there.classes)):
            raise DataError(f"{there.name}: lacks {len(alone)} class(es) of {here.name}, such as {min(alone)!r}; both splits "
                            "need the same classes")
    return splits
