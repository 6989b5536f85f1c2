"""Which reconstruction goes with which original."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

from restok.data.images import ImageSource
from restok.data.reading import DataError

log = logging.getLogger("restok")


def in_order_of(source: ImageSource, originals: ImageSource) -> ImageSource:
    """Reconstructions in the order of their originals, where the images of both are files: each file goes with the original of
    its name, without suffix. The class is part of the name where both lie in class folders. Else both go by place.

    Raises DataError, which names the file, for one without its other, and for two files of one name.
    """
    if source.names is None or originals.names is None:
        for named in (source, originals):
            if named.names and named.names != sorted(named.names, key=_by_number):
                log.warning("%s: paired by place, in the order of its names, %s first and %s last; pad their numbers with "
                            "zeros if that is not meant", named.name, named.names[0], named.names[-1])
        return source
    whole = len(source.names[0].parts) == len(originals.names[0].parts)
    place, wanted = _places(source, whole), _places(originals, whole)
    for ours, theirs, other in ((place, wanted, originals), (wanted, place, source)):
        if alone := sorted(ours.keys() - theirs.keys()):
            raise DataError(f"{source.name}, reconstructions of {originals.name}: {len(alone)} of {len(ours)} names have no "
                            f"other in {other.name}, such as {alone[0]!r}; name every file as its original, but for the suffix")
    order = [place[name] for name in wanted]
    return replace(source, read=source.read.taken(order), names=[source.names[i] for i in order],
                   labels=None if source.labels is None else source.labels[order])


def _places(source: ImageSource, whole: bool) -> dict[str, int]:
    """Where each name is, without its suffix and, unless it is to be `whole`, its class."""
    places = {}
    for place, name in enumerate(source.names):
        key = normalize("NFC", (name if whole else Path(name.name)).with_suffix("").as_posix())
        first = places.setdefault(key, place)
        if first != place:
            raise DataError(f"{source.name}: {source.names[first]} and {name} have one name, so no reconstruction is known to "
                            "belong to either; rename one, or put both sides into class folders")
    return places


def _by_number(name: Path) -> list[list[str | int]]:
    """Of which '2' sorts before '10'."""
    return [[int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", each))] for each in name.parts]
