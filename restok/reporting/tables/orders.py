"""What the paper says of the order of rows, and whether it holds here."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, variance
from typing import NamedTuple

from restok.metrics.intervals import side, student_quantile
from restok.reporting.cells import read_settings
from restok.reporting.measured import Row, value_of
from restok.reporting.run import ReportError

COLUMNS = ("item", "quantity", "lower", "higher", "source", "note")
VERDICTS = {-1: "yes", 0: "undecided", 1: "no"}  # by where the lower row lies
NAMES = {"rfid": "rFID", "gfid": "gFID", "entropy": "entropy"}
READING = "our reading"                          # the note of an order that the paper's text does not put so
DISTANCES = ("rfid", "gfid")                     # compared by their logarithms: their spread grows with them


class Noise(NamedTuple):
    """The variance between seeds, pooled over the rows of a table, and its degrees of freedom (0: one seed a row)."""

    variance: float
    freedom: int


class Claim(NamedTuple):
    """What the paper says of a row, and whether it holds here: 'gFID below #1: yes'."""

    quantity: str
    text: str
    ours: bool                # our reading: the paper's text does not put it so


def claims(item: str, rows: Sequence[Row], orders_csv: str | Path, paper_rows: Sequence[str]) -> dict[str, list[Claim]]:
    """By row, what the paper says it is below, each with 'yes', 'no' or 'undecided'.

    With several seeds, means differ by Student's t, two-sided 95 % for each pair, with the variance pooled over the table's
    rows (of logarithms for distances). With one seed, the 95 % intervals of the images must not overlap. A '*' stands for every
    other row of the paper, `paper_rows`: a row that a user adds takes no part in it. An order's note follows it in brackets.
    """
    by_key, said = {row.key: row for row in rows}, {}
    for order in read_settings(orders_csv, COLUMNS).itertuples(index=False):
        if order.quantity not in NAMES:
            raise ReportError(f"{orders_csv}: quantity {order.quantity!r}; choose one of {', '.join(NAMES)}")
        if order.item != item or order.lower not in by_key:
            continue
        others = [row for row in paper_rows if row != order.lower] if order.higher == "*" else [order.higher]
        noise = _noise(order.quantity, rows)
        verdicts = {other: _verdict(order.quantity, by_key[order.lower], by_key.get(other), noise) for other in others}
        judged = any(verdict in ("yes", "no", "undecided") for verdict in verdicts.values())
        name = NAMES[order.quantity]
        claim = f"lowest {name}" if order.higher == "*" else f"{name} below {order.higher}"
        claim += f" ({order.note})" if order.note else ""
        text = f"{claim}: {_summary(verdicts, single=judged and not noise.freedom)}"
        said.setdefault(order.lower, []).append(Claim(order.quantity, text, order.note == READING))
    return said


def joined(said: Mapping[str, Sequence[Claim]], row: str) -> str:
    """The claims of a row as one cell."""
    return "; ".join(claim.text for claim in said.get(row, ()))


def _summary(verdicts: dict[str, str], single: bool) -> str:
    """One word and, in brackets, whether it is of one seed and which rows stand against it."""
    words = set(verdicts.values())
    whole = min(words) if len(words) == 1 else "no" if "no" in words else "undecided"
    remarks = ["one seed"] if single else []
    if len(words) > 1:
        against = {word: ", ".join(row for row, found in verdicts.items() if found == word) for word in sorted(words - {"yes"})}
        remarks += [f"against {rows}" if word == whole else f"{word}: {rows}" for word, rows in against.items()]
    return f"{whole} ({'; '.join(remarks)})" if remarks else whole


def _verdict(quantity: str, lower: Row, higher: Row | None, noise: Noise) -> str:
    if higher is None:
        return "not run"
    a, b = _numbers(quantity, lower), _numbers(quantity, higher)
    if a is None or b is None:
        return "not measured"
    if not noise.freedom:
        return VERDICTS[side(value_of(lower.first, quantity)[1], value_of(higher.first, quantity)[1])]
    half = student_quantile(noise.freedom) * math.sqrt(noise.variance * (1 / len(a) + 1 / len(b)))
    difference = mean(a) - mean(b)
    return VERDICTS[side((difference - half, difference + half), (0, 0))]


def _noise(quantity: str, rows: Sequence[Row]) -> Noise:
    """Rows that share their measurements count once; the seeds of finished weights differ in the sampling alone: left out."""
    trained = [row for row in rows if not row.trials[0].tokenizer]
    groups = {frozenset(record.path for record in row.records(quantity)): found
              for row in trained if (found := _numbers(quantity, row)) and len(found) > 1}.values()
    freedom = sum(len(group) - 1 for group in groups)
    return Noise(sum((len(group) - 1) * variance(group) for group in groups) / max(freedom, 1), freedom)


def _numbers(quantity: str, row: Row) -> list[float] | None:
    """By seed, on the scale on which they are compared; None where one is unknown or has no logarithm."""
    found = row.values(quantity)
    if found is None or quantity not in DISTANCES:
        return found
    return [math.log(value) for value in found] if min(found) > 0 else None
