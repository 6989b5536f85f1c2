"""The release's choices as switches: what each does to the numbers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from restok.config.load import ConfigError
from restok.experiments import Sheet
from restok.reporting.measured import Row, rows, value_of
from restok.reporting.run import ReportError
from restok.reporting.tables.cells import read_settings

COLUMNS = ("switch", "setting", "paper", "release", "default_run", "switched_run", "note")
QUANTITIES = ("rfid", "entropy", "gfid", "class_accuracy")     # the last shows whether samples still know their class


def release_switches(results: Path, sheet: Sheet, switches_csv: str | Path) -> pd.DataFrame:
    """One row a switch: what the paper says, what the release does, both sides measured, and their difference.

    Columns: `default` and `switched_setting`, the two values; for rfid, entropy (bits) and gfid `default_*` and `switched_*`,
    the mean over seeds with `_sd` or, of one seed, `_low` and `_high`; `_effect`, switched less default at the seeds that both
    share, its `_sd` and 95 % interval over them (Student's t, paired), and whether the switched side is 'higher', 'lower',
    'unchanged' or 'undecided'. Of one seed the effect counts as known where the two intervals do not overlap. The switched
    side is the release's choice or, where `note` says so, the other reading of the paper.

    Raises ConfigError where a run is no row of the sheet that feeds release_switches.
    """
    listed = read_settings(switches_csv, COLUMNS)
    known = {row.trials[0].id: row for row in rows(results, sheet, "release_switches", unnamed=True)}
    return pd.DataFrame([_row(switch, _run(known, switch.default_run, switch.switch, sheet, switches_csv),
                              _run(known, switch.switched_run, switch.switch, sheet, switches_csv))
                         for switch in listed.itertuples(index=False)])


def _run(known: Mapping[str, Row], id: str, switch: str, sheet: Sheet, path: str | Path) -> Row:
    if id not in known:
        raise ConfigError(f"{path}, row {switch!r}: no experiment {id!r} of {sheet.run} feeds release_switches; name one of "
                          f"{', '.join(known)}, or remove the row")
    return known[id]


def _row(switch, default: Row, switched: Row) -> dict:
    found = {"switch": switch.switch, "setting": switch.setting, "paper": switch.paper, "release": switch.release,
             "default": _value(default, switch.setting), "switched_setting": _value(switched, switch.setting)}
    for quantity in QUANTITIES:
        found |= {f"default_{name}": value for name, value in default.summary(quantity).items()}
        found |= {f"switched_{name}": value for name, value in switched.summary(quantity).items()}
        found |= _effect(quantity, default, switched)
    about = default.about
    return found | {"note": switch.note, "default_run": switch.default_run, "switched_run": switch.switched_run} | {
        key: value for key, value in about.items() if key not in ("changes", "source")} | {
        "source": "; ".join(dict.fromkeys(f"{about['source']}; {switched.about['source']}".split("; ")))}


def _value(row: Row, setting: str) -> str:
    """The row's own value of 'SECTION.KEY', or of several, separated by '; '."""
    values = []
    for path in setting.split("; "):
        node = row.params
        for key in path.split("."):
            if not hasattr(node, key):
                raise ReportError(f"release switches: experiment {row.trials[0].id!r} has no setting {path!r}; mend `setting`")
            node = getattr(node, key)
        values.append(str(node))
    return "; ".join(values)


def _effect(quantity: str, default: Row, switched: Row) -> dict[str, float | str | None]:
    effect, sd, interval = None, None, (None, None)
    ours, theirs = (dict(zip((trial.seed for trial in row.trials), row.values(quantity) or (), strict=False))
                    for row in (default, switched))
    differences = [theirs[seed] - ours[seed] for seed in ours if seed in theirs]
    if not differences:
        verdict = "not measured"
    elif any(differences) and len(differences) == 1:
        effect, verdict = differences[0], _apart(value_of(default.first, quantity)[1], value_of(switched.first, quantity)[1])
    else:
        effect = mean(differences)
        if len(differences) > 1:
            sd = stdev(differences)
            interval = _interval(differences)
        verdict = _direction(*interval) if any(differences) else "unchanged"
    return {f"{quantity}_effect": effect, f"{quantity}_effect_sd": sd, f"{quantity}_effect_low": interval[0],
            f"{quantity}_effect_high": interval[1], f"{quantity}_verdict": verdict}


def _interval(differences: Sequence[float]) -> tuple[float, float]:
    from scipy.stats import t
    half = t.ppf(0.975, len(differences) - 1).item() * stdev(differences) / math.sqrt(len(differences))
    return mean(differences) - half, mean(differences) + half


def _direction(low: float, high: float) -> str:
    if low > 0:
        return "higher"
    return "lower" if high < 0 else "undecided"


def _apart(default: Sequence[float] | None, switched: Sequence[float] | None) -> str:
    """Of one seed: where the switched side's interval lies."""
    if default is None or switched is None:
        return "undecided (one seed)"
    return f"{_direction(switched[0] - default[1], switched[1] - default[0])} (one seed)"
