"""What the manifest says of a whole split, from what is known of its pieces."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from restok.config.base import Count
from restok.data.classes import ordered, require_known
from restok.data.index import write_index
from restok.data.pack import Piece, require_few
from restok.data.reading import DataError
from restok.data.sources import Source
from restok.files.loading import Known

log = logging.getLogger("restok")


class About(Known):
    """What a source says of itself before its images are read: all parts must have seen the same."""

    name: str
    classes: tuple[str, ...] | None
    in_order: bool
    pieces: Count
    count: Count | None
    promise: str | None


def about_source(source: Source) -> About:
    return About(**{name: getattr(source, name) for name in About.model_fields})


def split_facts(folder: Path, about: Mapping[str, About], pieces: Mapping[str, Sequence[Piece]],
                chosen: Sequence[str] | None, list_name: str | None) -> dict[str, dict]:
    """Write the index of both splits in `folder`; their parts of the manifest.

    chosen: the classes that are taken, of the file `list_name`. Raises DataError for labels in another order than WordNet's
    ids where images carry these, for a class without images, for two images of one name, for more than 1 % of images skipped or
    odd, and where the validation split has fewer images than its source promises.
    """
    names, order = _classes(about, pieces, chosen, list_name)
    facts, indices = {}, {}
    for split, own in pieces.items():
        found = sum(piece.found for piece in own)
        skipped = {name: why for piece in own for name, why in piece.skipped.items()}
        require_few(about[split].name, sum(piece.images for piece in own) + len(skipped), own)
        if split == "validation" and skipped and about[split].promise:
            raise DataError(f"{about[split].name}: {len(skipped)} of the {found} images that {about[split].promise} promises "
                            f"are not read, such as {min(skipped)}, and metrics on fewer would not compare; mend them")
        index = indices[split] = write_index(folder / split, about[split].name, own, about[split].in_order)
        odd = sorted({kind for piece in own for kind in piece.odd})
        facts[split] = {
            "count": len(index.labels), "classes": list(names), "class_order": order[split],
            "images_per_class": _counts(about[split].name, index.labels, names), "skipped": skipped,
            "odd": {kind: [name for piece in own for name in piece.odd.get(kind, ())] for kind in odd},
            "files": [{"images": piece.images, "bytes": piece.bytes} for piece in own], "sha256": index.digest}
    shared = facts["validation"]["in_train"] = indices["validation"].shared(indices["train"])
    if shared:
        log.warning("%s: %d of its images are in %s, too: what is learned by heart there is measured here",
                    about["validation"].name, shared, about["train"].name)
    return facts


def _counts(name: str, labels: Int[np.ndarray, " n"], names: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(labels, minlength=len(names)).tolist()
    for label, count in enumerate(counts):
        if not count:
            raise DataError(f"{name}: class {names[label]!r} (label {label}) has no readable image; add some, or leave the "
                            "class out of both splits")
    return dict(zip(names, counts, strict=True))


def _classes(about: Mapping[str, About], pieces: Mapping[str, Sequence[Piece]], chosen: Sequence[str] | None,
             list_name: str | None) -> tuple[list[str], dict[str, str]]:
    """The classes' names by label, and for each split what is known of their order."""
    names, order, known, last = {}, {}, set(), 0
    for split, own in pieces.items():
        seen = {}
        for piece in own:
            for label, kinds in piece.seen.items():
                seen.setdefault(label, set()).update(kinds)
        known.update(*seen.values(), about[split].classes or ())
        last = max(last, *seen, len(about[split].classes or ()) - 1)
        here, order[split] = ordered(about[split].name, seen, about[split].classes)
        for label, name in here.items():
            if names.setdefault(label, name) != name:
                raise DataError(f"{about[split].name}: label {label} is {name!r}, but {names[label]!r} in the other split; "
                                "number both alike")
    if chosen is not None:
        require_known(chosen, sorted(known), list_name, "either split")
        return list(chosen), order
    return [names.get(label, str(label)) for label in range(1 + last)], order
