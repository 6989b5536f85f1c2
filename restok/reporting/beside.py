"""What was measured of several rows, a quantity a line: its name, which side is better, and how sure a difference is."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, variance
from typing import Any, NamedTuple

from restok.metrics.intervals import side, student_quantile
from restok.reporting.cells import Measure
from restok.reporting.measured import ROLES, UNGUIDED, Checkpoint, Row

LOWER = r"[rg]?FID|sFID|[rg]?FD-.+|FDr6|KID|KD-.+|MIND(-.+)?|lpips|codebook entropy"     # metrics of which lower is better
APART = "codebook", "per_class_accuracy"                         # of a result's metrics: several numbers each


class Against(NamedTuple):
    """A value beside that of the first row."""

    difference: float
    verdict: str                 # 'better', 'worse', 'undecided', 'equal', or of one result that both rows have, 'same'


@dataclass(frozen=True)
class Metric:
    """One quantity of every row."""

    name: str                    # as it deserves: gFID of Inception's features alone
    of: str                      # reconstruction, generation or unguided: samples without guidance
    lower: bool                  # whether that is better
    measures: tuple[Measure, ...]
    refused: tuple[str, ...]                     # why a row does not have it; blank: it has, or nothing was generated
    against: tuple[Against | None, ...]          # None: of the first row itself, and where one of both is unknown

    @property
    def known(self) -> bool:
        """Of any row."""
        return any(measure.value is not None for measure in self.measures)

    def as_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        values = [measure._asdict() | {"refused": why or None, "against_first": against and against._asdict()}
                  for measure, why, against in zip(self.measures, self.refused, self.against, strict=True)]
        return {"name": self.name, "of": self.of, "better": "lower" if self.lower else "higher", "values": values}

    @property
    def again(self) -> bool:
        """Whether it is another one once more, as other programs count it: 'IS ADM splits', 'precision adm-fp16'."""
        return " " in self.name and not self.name.startswith("codebook ")


def better_lower(name: str) -> bool:
    """Whether of a metric lower is better."""
    return re.fullmatch(LOWER, name) is not None


def judged(difference: float, where: int, lower: bool) -> Against:
    """A difference from the first value, of which the other lies below (-1), above (1), or by chance where it does (0)."""
    if not where:
        return Against(difference, "undecided" if difference else "equal")
    return Against(difference, "better" if (where < 0) == lower else "worse")


def metrics(rows: Sequence[Row]) -> list[Metric]:
    """What any of the rows has, and what was refused to all of them, as the results have them."""
    return [_metric(rows, of, quantity) for of, quantity in _quantities(rows)]


def _quantities(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """As `Checkpoint.value` calls them, the distances first."""
    for of, chief in (("reconstruction", ("rfid", "entropy", "usage")), ("generation", ("gfid", "is")),
                      ("unguided", ("gfid_unguided", "is_unguided"))):
        records = [record for row in rows for e in row.measured if (record := e.record(chief[0]))]
        named = {quantity: {record["names"].get(_role(quantity)) for record in records} - {None} for quantity in chief}
        for quantity in chief if records else ():
            if not _role(quantity) or named[quantity]:
                yield of, quantity
        for name in dict.fromkeys(name for record in records for name in record["metrics"]):
            if name not in APART and not any(name in each for each in named.values()):
                yield of, f"{of} {name}" if of == "reconstruction" else name + UNGUIDED * (of == "unguided")


def _role(quantity: str) -> str | None:
    return ROLES.get(quantity.removesuffix(UNGUIDED))


def _metric(rows: Sequence[Row], of: str, quantity: str) -> Metric:
    refused = tuple(next(filter(None, (_refused(e, quantity) for e in row.measured)), "") for row in rows)
    measures = tuple(Measure(None) if why or _lacks(row, quantity) else row.measure(quantity)
                     for row, why in zip(rows, refused, strict=True))
    name = next(filter(None, (e.metric(quantity) for row in rows for e in row.measured)))
    name = f"g{name}" if quantity.removesuffix(UNGUIDED) == "gfid" else f"codebook {quantity}" if name == "codebook" else name
    lower = better_lower(name)
    against = tuple(_against(rows[0], row, quantity, measures[0], own, lower) if row is not rows[0] else None
                    for row, own in zip(rows, measures, strict=True))
    return Metric(name, of, lower, measures, refused, against)


def _lacks(row: Row, quantity: str) -> bool:
    """Whether nothing was generated of it, or it was not measured at all."""
    return any((record := e.record(quantity)) is None or e.metric(quantity) not in record["metrics"] for e in row.measured)


def _refused(e: Checkpoint, quantity: str) -> str:
    record, metric = e.record(quantity), e.metric(quantity)
    return record["refused"][metric] if record is not None and metric in record["refused"] else ""


def _against(first: Row, row: Row, quantity: str, base: Measure, own: Measure, lower: bool) -> Against | None:
    if base.value is None or own.value is None:
        return None
    paths = [{e.record(quantity).path for e in each.measured} for each in (first, row)]
    if paths[0] == paths[1]:
        return Against(0.0, "same")
    return judged(own.value - base.value, _side(first.values(quantity), row.values(quantity), base, own), lower)


def _side(first: Sequence[float], own: Sequence[float], base: Measure, other: Measure) -> int:
    """-1 where a row lies below the first one, 1 where above, 0 where chance may be the reason.

    Of several seeds each, by Student's t with the variance of both rows; of one each, where the intervals of their images do
    not overlap. One seed against several says nothing.
    """
    if len(first) > 1 and len(own) > 1:
        freedom = len(first) + len(own) - 2
        pooled = ((len(first) - 1) * variance(first) + (len(own) - 1) * variance(own)) / freedom
        half = student_quantile(freedom) * math.sqrt(pooled * (1 / len(first) + 1 / len(own)))
        difference = mean(own) - mean(first)
        return side((difference - half, difference + half), (0, 0))
    if len(first) == len(own) and None not in (base.low, other.low):
        return side(other[2:], base[2:])
    return 0
