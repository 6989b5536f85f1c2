"""What the paper says of the order of rows, and whether it holds here."""

import math
from collections.abc import Sequence
from statistics import mean, variance
from typing import NamedTuple

from restok.metrics.intervals import side, student_quantile
from restok.reporting.cells import read_settings
from restok.reporting.inputs import Inputs
from restok.reporting.measured import Row
from restok.reporting.run import ReportError
from restok.reporting.tables.table import Rows, column

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

    row: str
    quantity: str
    text: str
    ours: bool                # our reading: the paper's text does not put it so


def claims(inputs: Inputs, item: str, rows: Sequence[Row]) -> list[Claim]:
    """What the paper says a row is below, each with 'yes', 'no' or 'undecided'.

    With several seeds, means differ by Student's t, two-sided 95 % for each pair, with the variance pooled over the table's
    rows (of logarithms for distances). With one seed, the 95 % intervals of the images must not overlap. A '*' stands for every
    other row of the paper: a row that a user adds takes no part in it. An order's note follows it in brackets.
    """
    by_key, said = {row.key: row for row in rows}, []
    for order in read_settings(inputs.orders, COLUMNS, COLUMNS[:4]).itertuples(index=False):
        if order.quantity not in NAMES:
            raise ReportError(f"{inputs.orders}: quantity {order.quantity!r}; choose one of {', '.join(NAMES)}")
        if order.item != item or order.lower not in by_key:
            continue
        others = [order.higher]
        if order.higher == "*":
            others = [row for row in inputs.published.rows(item) if row != order.lower]
        noise = _noise(order.quantity, rows)
        verdicts = {other: _verdict(order.quantity, by_key[order.lower], by_key.get(other), noise) for other in others}
        judged = any(verdict in ("yes", "no", "undecided") for verdict in verdicts.values())
        name = NAMES[order.quantity]
        claim = f"lowest {name}" if order.higher == "*" else f"{name} below {order.higher}"
        claim += f" ({order.note})" if order.note else ""
        text = f"{claim}: {_summary(verdicts, single=judged and not noise.freedom)}"
        said.append(Claim(order.lower, order.quantity, text, order.note == READING))
    return said


def joined(said: Sequence[Claim], row: str) -> str:
    """The claims of a row as one cell."""
    return "; ".join(claim.text for claim in said if claim.row == row)


def unprinted(rows: Rows, said: Sequence[Claim]) -> list[str]:
    """What the paper prints no values of and, of that, what it orders without our reading."""
    blank = [name for name in ("rfid", "entropy", "gfid") if not any(column(rows, f"{name}_paper"))]
    ordered = [NAMES[name] for name in blank if any(claim.quantity == name and not claim.ours for claim in said)]
    order = f", only an order of {', '.join(ordered)}" if ordered else ""
    names = ", ".join(NAMES[name] for name in blank)
    return [f"Of {names} the text of the paper prints no values here{order}."] if blank else []


def explained(said: Sequence[Claim]) -> list[str]:
    """What the column of the paper's order says."""
    if not said:
        return []
    reading = ["Our reading: there the text says which row is best and names no quantity."] if any(
        claim.ours for claim in said) else []
    return ["The paper's order: what its text says of a row, in its own names of the quantities, and whether it holds here, "
            "by Student's t with the variance pooled over the table's rows (two-sided 95 % for each pair) or, with one seed, "
            "where intervals do not overlap.", *reading]


def _summary(verdicts: dict[str, str], single: bool) -> str:
    """One word and, in brackets, whether it is of one seed and which rows stand against it."""
    words = set(verdicts.values())
    whole = min(words) if len(words) == 1 else "no" if "no" in words else "undecided"
    remarks = ["one seed"] if single else []
    if len(words) > 1:
        for word in sorted(words - {"yes"}):
            rows = ", ".join(row for row, verdict in verdicts.items() if verdict == word)
            remarks.append(f"against {rows}" if word == whole else f"{word}: {rows}")
    return f"{whole} ({'; '.join(remarks)})" if remarks else whole


def _verdict(quantity: str, lower: Row, higher: Row | None, noise: Noise) -> str:
    if higher is None:
        return "not run"
    a, b = _by_seed(quantity, lower), _by_seed(quantity, higher)
    if a is None or b is None:
        return "not measured"
    if not noise.freedom:
        return VERDICTS[side(lower.first.value(quantity)[1], higher.first.value(quantity)[1])]
    half = student_quantile(noise.freedom) * math.sqrt(noise.variance * (1 / len(a) + 1 / len(b)))
    difference = mean(a) - mean(b)
    return VERDICTS[side((difference - half, difference + half), (0, 0))]


def _noise(quantity: str, rows: Sequence[Row]) -> Noise:
    """Rows that share their measurements count once; the seeds of finished weights differ in the sampling alone: left out."""
    trained = [row for row in rows if not row.trials[0].tokenizer]
    groups = {frozenset(e.record(quantity).path for e in row.measured): values
              for row in trained if (values := _by_seed(quantity, row)) and len(values) > 1}.values()
    freedom = sum(len(group) - 1 for group in groups)
    return Noise(sum((len(group) - 1) * variance(group) for group in groups) / max(freedom, 1), freedom)


def _by_seed(quantity: str, row: Row) -> list[float] | None:
    """The values on the scale on which they are compared; None where one is unknown or has no logarithm."""
    values = row.values(quantity)
    if values is None or quantity not in DISTANCES:
        return values
    return [math.log(value) for value in values] if min(values) > 0 else None
