"""A table's file as a reader wants it: few columns, rounded, with their units, and notes on how it was measured.

The page and the Markdown tables show the same, and both name the file, which has every column.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from restok.reporting.tables.cells import number

PAPERS = {"rfid": ("rFID", "rFID"), "gfid": ("gFID", "FID"), "is": ("IS", "IS")}   # the paper's names, and of our metrics

READING = "(our reading)"                  # how orders.csv marks an order that the paper's text does not put so


class View(NamedTuple):
    """Cells as text under readable names; the notes below them; the rows that are this run's own, to be set apart."""

    frame: pd.DataFrame
    notes: list[str]
    own: tuple[int, ...] = ()


def view(item: str, frame: pd.DataFrame) -> View:
    """The table of an item as a reader wants it, from its CSV's cells (text)."""
    return VIEWS[item](frame)


def _table1(frame: pd.DataFrame) -> View:
    columns = {"method": "method", "family": "tokens are", "tokenizer_type": "tokenizer", "tokenizer_params": "params",
               "tokens": "tokens", "reconstruction_distance": "rFID ↓", "generator_type": "generator",
               "generator_params": "params ", "steps": "steps", "generation_distance": "gFID ↓", "score": "IS ↑",
               "precision": "precision ↑", "recall": "recall ↑"}
    own = frame[frame["n"] != ""]
    notes = [f"{row['method']}: in the place of rFID, FID and IS, {row['features']}; {row['n']} samples; {row['notes']}. "
             + (row["intervals"] and f"95 % intervals: {row['intervals']}.") for _, row in own.iterrows()]
    if any("rFID" not in features for features in own["features"]):
        notes.append("Rows measured by other features do not compare.")
    notes += [f"{row['method']}: {row['notes']}." for _, row in frame[(frame["n"] == "") & (frame["notes"] != "")].iterrows()]
    return View(_columns(frame, columns), notes, tuple(own.index))


def _ablation(frame: pd.DataFrame) -> View:
    """Tables 2 to 5."""
    columns = {"setting": frame["setting"], "what it is": frame["description"]}
    own = (frame[["rfid_paper", "entropy_paper", "usage_paper", "gfid_paper", "steps_paper"]] == "").all(axis=1)
    if own.any():                                       # the description says what sets the paper's rows apart
        columns["changes"] = frame["changes"].where(own, "")
    if set(frame["steps_paper"]) != {""}:
        columns |= _with_paper("steps", frame["steps"], "steps", frame["steps_paper"])
    columns |= _measured(frame, "rfid", _one(frame["rfid_metric"]) + " ↓")
    columns |= _measured(frame, "entropy", "entropy (bits) ↓")
    columns["codebook use (%)"] = [number(float(cell)) if cell else "" for cell in frame["usage"]]
    columns |= _measured(frame, "gfid", _one(frame["gfid_metric"]) + " ↓")
    columns["the paper's order"] = frame["agrees"]
    usage = _one(frame["usage_paper"])
    paper = [f"Codebook use in the paper: {usage} % in each of its rows."] if usage else []
    notes = [*_how(frame), *_unprinted(frame, "rfid", "entropy", "gfid"), *paper, *_orders(frame)]
    return View(pd.DataFrame(columns), notes, tuple(frame.index[own]))


def _table6(frame: pd.DataFrame) -> View:
    columns = {"checkpoint": frame["checkpoint"]}
    if frame["seed"].nunique() > 1:
        columns["seed"] = frame["seed"]
    names = {"schedule": "schedule", "start_ratio": "start ratio", "max_scale": "largest scale", "top_k": "top-k",
             "top_p": "top-p"}
    ours = frame.assign(schedule=frame["schedule"].mask(_unguided(frame), _none(frame)))
    for name in ("start_ratio", "max_scale"):
        ours[name] = frame[name].mask(_unguided(frame), "")
    columns |= {called: ours[name] for name, called in names.items()}
    metric = _one(frame["metric"])
    if metric:
        columns |= {f"{metric} ↓": [number(float(cell)) if cell else "" for cell in frame["distance"]],
                    "95 % interval": frame["interval"]}
    columns["the paper"] = [", ".join(f"{called} {cell}" for name, called in names.items() if (cell := row[f"{name}_paper"]))
                            for _, row in frame.iterrows()]
    chosen = f"{metric} over {_one(frame['n'])} samples, the lowest of {_one(frame['candidates'])} candidates."
    fixed = "Set by the parameters, not searched: " + _one(frame["checkpoint"][frame["guidance"] == "set"]) + "."
    notes = [*([chosen] if metric else []), *([fixed] if "set" in set(frame["guidance"]) else [])]
    return View(pd.DataFrame(columns), notes)


def _unguided(frame: pd.DataFrame) -> list[bool]:
    """The rows whose largest scale, of every seed, is 1: no guidance."""
    return [all(float(scale) == 1 for scale in cell.split("; ")) for cell in frame["max_scale"]]


def _none(frame: pd.DataFrame) -> list[str]:
    """What stands in the place of a guidance of scale 1."""
    return ["none" if cell == "set" else f"none ({cell})" for cell in frame["guidance"]]


def _settings(frame: pd.DataFrame) -> View:
    """Tables 7 and 8."""
    columns = {"name": "setting", "paper": "paper", "ours": "ours", "same": "same", "setting": "in the parameter file"}
    return View(_columns(frame, columns), [])


def _table9(frame: pd.DataFrame) -> View:
    columns = {"tokens kept": frame["tokens"]}
    columns |= {"probability": frame["probability"], "in the paper, of 128": frame["probability_paper"]}
    return View(pd.DataFrame(columns | {"as a decimal": frame["decimal"].map(short)}), [])


def _table10(frame: pd.DataFrame) -> View:
    starts = [f", from {row['start_ratio']} on" if row["schedule"] == "step" else "" for _, row in frame.iterrows()]
    guided = frame["schedule"] + ", at most " + frame["max_scale"] + starts + " (" + frame["guidance"] + ")"
    guided = guided.mask(_unguided(frame), _none(frame))
    columns = {"generator": frame["setting"]}
    columns |= _with_paper("steps", frame["steps"], "steps", frame["steps_paper"]) | {"guidance": guided}
    columns |= _measured(frame, "gfid", _one(frame["gfid_metric"]) + " ↓")
    columns |= _measured(frame, "is", _one(frame["score_metric"]) + " ↑")
    for name in ("precision", "recall"):                # their intervals would make the table too wide
        ours = [value.split(" [")[0] for value in _values(frame, name)]
        columns |= _with_paper(f"{name} ↑", ours, name, frame[f"{name}_paper"])
    columns["the paper's order"] = frame["agrees"]
    notes = [f"Checkpoint {_one(frame['checkpoint'])} of the tokenizer.", *_how(frame), *_orders(frame)]
    return View(pd.DataFrame(columns), notes)


def _release_switches(frame: pd.DataFrame) -> View:
    columns = {"switch": frame["switch"], "ours → switched": frame["default"] + " → " + frame["switched_setting"]}
    names = {"rfid": _one(frame["rfid_metric"]), "entropy": "entropy (bits)", "gfid": _one(frame["gfid_metric"])}
    names |= {"class_accuracy": "read as the class asked for"} if any(frame["default_class_accuracy"]) else {}
    for name, called in names.items():
        columns[called] = _values(frame, f"default_{name}")
        columns[f"change of {called}"] = [_change(row, name) for _, row in frame.iterrows()]
    notes = [f"{row.switch}. The paper: {row.paper}. The release: {row.release}." + (row.note and f" Here: {row.note}.")
             for row in frame.itertuples()]
    return View(pd.DataFrame(columns), [
        *_how(frame), "A change is the switched side less ours, seed by seed. It is 'higher' or 'lower' where its 95 % "
        "interval over the seeds leaves out 0 or, with one seed, where the intervals of both sides do not overlap.", *notes])


def _fig7(frame: pd.DataFrame) -> View:
    columns = {"checkpoint": frame["checkpoint"], "step": frame["step"]}
    for stage in ("reconstruction", "generation"):
        columns[f"{stage} {_one(frame[f'{stage}_metric'])} ↓"] = _values(frame, f"{stage}_distance")
    return View(pd.DataFrame(columns), [_seeds(frame)])


def _codebook(frame: pd.DataFrame) -> View:
    columns = {"level": frame["level"], "tokens": frame["tokens"], "codes used": frame["used"],
               "use of the codebook (share)": frame["usage"].map(short), "entropy (bits)": frame["entropy"].map(short)}
    return View(pd.DataFrame(columns), [f"Checkpoint {_one(frame['checkpoint'])}, over {_one(frame['n'])} reconstructions."])


VIEWS: dict[str, Callable[[pd.DataFrame], View]] = {
    "table1": _table1, "table2": _ablation, "table3": _ablation, "table4": _ablation, "table5": _ablation, "table6": _table6,
    "table7": _settings, "table8": _settings, "table9": _table9, "table10": _table10, "release_switches": _release_switches,
    "fig7": _fig7, "codebook": _codebook}


def numeric(frame: pd.DataFrame) -> list[bool]:
    """The columns that hold numbers alone, to be set to the right."""
    return [all(cell[:1].isdigit() or not cell for cell in frame[column]) for column in frame.columns]


def short(cell: str) -> str:
    """A cell for the eye: long decimals are rounded, the file keeps them whole."""
    whole, point, decimals = cell.partition(".")
    return number(float(cell)) if point and len(decimals) > 4 and (whole.lstrip("-") + decimals).isdigit() else cell


def _columns(frame: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    return frame[list(names)].map(short).rename(columns=names)


def _measured(frame: pd.DataFrame, name: str, called: str) -> dict[str, Sequence[str]]:
    """Our values under our metric's name and, where the paper prints some, those beside them under its own."""
    theirs = PAPERS[name][0] if name in PAPERS else called.rstrip(" ↓↑")
    return _with_paper(called, _values(frame, name), theirs, frame[f"{name}_paper"])


def _with_paper(called: str, ours: Sequence[str], theirs: str, paper: pd.Series) -> dict[str, Sequence[str]]:
    return {called: ours} | ({f"{theirs}, paper": paper} if set(paper) != {""} else {})


def _values(frame: pd.DataFrame, name: str) -> list[str]:
    """'18.1 ± 0.4' of several seeds, '18.1 [17.0 to 19.2]' of one."""
    return [_value(*cells) for cells in zip(*(frame[f"{name}{end}"] for end in ("", "_sd", "_low", "_high")), strict=True)]


def _value(value: str, sd: str, low: str, high: str) -> str:
    if not value:
        return ""
    shown = number(float(value))
    if sd:
        return f"{shown} ± {float(sd):.2g}"
    return f"{shown} [{number(float(low))} to {number(float(high))}]" if low else shown


def _change(row: pd.Series, name: str) -> str:
    if row[f"{name}_verdict"] == "unchanged" or not row[f"{name}_effect"]:
        return row[f"{name}_verdict"]
    sd = f" ± {float(row[f'{name}_effect_sd']):.2g}" if row[f"{name}_effect_sd"] else ""
    return f"{float(row[f'{name}_effect']):+.3g}{sd}, {row[f'{name}_verdict']}"


def _one(column: Iterable[str]) -> str:
    """What all rows say; where they differ, all of it."""
    return ", ".join(dict.fromkeys(cell for cell in column if cell))


def _how(frame: pd.DataFrame) -> list[str]:
    """Numbers of images, references, features and seeds."""
    measured = (f"{_one(frame['rfid_metric'])} over {_one(frame['reconstruction_n'])} reconstructions against "
                f"{_one(frame['reconstruction_reference'])}, {_one(frame['gfid_metric'])} over {_one(frame['generation_n'])} "
                f"samples against {_one(frame['generation_reference'])}. Features: {_one(frame['features'])}.")
    return [measured, _seeds(frame), *_foreign(frame)]


def _seeds(frame: pd.DataFrame) -> str:
    several, one = frame[frame["n_seeds"] != "1"], frame[frame["n_seeds"] == "1"]
    texts = []
    if len(several):
        texts.append(f"Mean ± standard deviation over {_one(several['n_seeds'])} seeds ({_one(several['seeds'])}).")
    if len(one):
        texts.append(f"One seed ({_one(one['seeds'])}); in brackets the 95 % interval, for the chance of these images and for "
                     "this seed; what another seed would give is not known.")
    return " ".join(texts)


def _foreign(frame: pd.DataFrame) -> list[str]:
    """A warning where the paper's values stand beside another metric."""
    found = [metric for name in ("rfid", "gfid") if f"{name}_paper" in frame and set(frame[f"{name}_paper"]) != {""}
             and (metric := _one(frame[f"{name}_metric"])) != PAPERS[name][1]]
    return [f"The paper's values are of Inception's features: {', '.join(found)} does not compare with them."] if found else []


def _unprinted(frame: pd.DataFrame, *names: str) -> list[str]:
    """What the paper prints no values of and, of that, what it orders without our reading, by the orders' cells."""
    blank = [PAPERS[name][0] if name in PAPERS else name for name in names if set(frame[f"{name}_paper"]) == {""}]
    claims = [claim for cell in frame["agrees"] for claim in cell.split("; ") if READING not in claim]
    ordered = [name for name in blank if any(name in claim.partition(":")[0].split() for claim in claims)]
    order = f", only an order of {', '.join(ordered)}" if ordered else ""
    return [f"Of {', '.join(blank)} the text of the paper prints no values here{order}."] if blank else []


def _orders(frame: pd.DataFrame) -> list[str]:
    if set(frame["agrees"]) == {""}:
        return []
    reading = ["Our reading: there the text says which row is best and names no quantity."] if any(
        READING in cell for cell in frame["agrees"]) else []
    return ["The paper's order: what its text says of a row, in its own names of the quantities, and whether it holds here, "
            "by Student's t with the variance pooled over the table's rows (two-sided 95 % for each pair) or, with one seed, "
            "where intervals do not overlap.", *reading]
