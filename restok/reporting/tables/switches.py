"""The release's choices as switches: what each does to the numbers."""

from collections.abc import Mapping
from operator import attrgetter
from statistics import mean, stdev

from restok.config.load import ConfigError
from restok.metrics.intervals import seeds_interval, side
from restok.reporting.cells import Measure, frame, read_settings
from restok.reporting.inputs import Inputs
from restok.reporting.measured import Row, files_behind, rows
from restok.reporting.run import ReportError
from restok.reporting.tables.table import Rows, Table, column, how, one

COLUMNS = ("switch", "setting", "paper", "release", "default_run", "switched_run", "note")
VERDICTS = {-1: "lower", 0: "undecided", 1: "higher"}          # by where the switched side lies
QUANTITIES = ("rfid", "entropy", "gfid", "class_accuracy")     # the last shows whether samples still know their class


def release_switches(inputs: Inputs, item: str) -> Table:
    """One row a switch: what the paper says, what the release does, both sides measured, and their difference.

    Columns: `default` and `switched_setting`, the two values; for rfid, entropy (bits) and gfid `default_*` and `switched_*`,
    as in the ablations; `_effect`, switched less default at the seeds that both share, its `_sd` and 95 % interval over them
    (Student's t, paired), and the verdict. Of one seed the effect counts as known where the two intervals do not overlap. The
    switched side is the release's choice or, where `note` says so, the other reading of the paper. Raises ConfigError where a
    run is no row of the sheet that feeds the item.
    """
    by_id = {row.trials[0].id: row for row in rows(inputs.tree, item)}

    def row_of(switch, run: str) -> Row:
        if run not in by_id:
            raise ConfigError(f"{inputs.switches}, row {switch.switch!r}: no experiment {run!r} of {inputs.tree.sheet.run} "
                              f"feeds {item}; name one of {', '.join(by_id)}, or remove the row")
        return by_id[run]

    listed = list(read_settings(inputs.switches, COLUMNS, COLUMNS[:1]).itertuples(index=False))
    cells = [_row(switch, row_of(switch, switch.default_run), row_of(switch, switch.switched_run)) for switch in listed]
    return Table(frame(cells), *_view(cells))


def _row(switch, default: Row, switched: Row) -> dict:
    cells = {"switch": switch.switch, "setting": switch.setting, "paper": switch.paper, "release": switch.release,
             "default": _value(default, switch.setting), "switched_setting": _value(switched, switch.setting)}
    for quantity in QUANTITIES:
        cells |= {f"default_{quantity}": default.measure(quantity), f"switched_{quantity}": switched.measure(quantity)}
        cells |= _effect(quantity, default, switched)
    about = {key: value for key, value in default.about.items() if key != "changes"}
    return cells | {"note": switch.note, "default_run": switch.default_run, "switched_run": switch.switched_run} | about | {
        "source": files_behind(default, switched)}


def _view(cells: Rows) -> tuple[list, list[str]]:
    columns = [("switch", column(cells, "switch")),
               ("ours → switched", [f"{row['default']} → {row['switched_setting']}" for row in cells])]
    titles = {"rfid": one(column(cells, "rfid_metric")), "entropy": "entropy (bits)", "gfid": one(column(cells, "gfid_metric"))}
    if any(row["default_class_accuracy"].value is not None for row in cells):
        titles["class_accuracy"] = "read as the class asked for"
    for name, title in titles.items():
        columns += [(title, column(cells, f"default_{name}")), (f"change of {title}", [_change(row, name) for row in cells])]
    notes = ["{switch}. The paper: {paper}. The release: {release}.".format(**row) + (row["note"] and f" Here: {row['note']}.")
             for row in cells]
    return columns, [
        *how(cells), "A change is the switched side less ours, seed by seed. It is 'higher' or 'lower' where its 95 % "
        "interval over the seeds leaves out 0 or, with one seed, where the intervals of both sides do not overlap.", *notes]


def _change(row: Mapping, name: str) -> str:
    effect, verdict = row[f"{name}_effect"], row[f"{name}_verdict"]
    if verdict == "unchanged" or effect.value is None:
        return verdict
    sd = "" if effect.sd is None else f" ± {effect.sd:.2g}"
    return f"{effect.value:+.3g}{sd}, {verdict}"


def _value(row: Row, setting: str) -> str:
    """The row's own value of 'SECTION.KEY', or of several, separated by '; '."""
    values = []
    for path in setting.split("; "):
        try:
            values.append(str(attrgetter(path)(row.params)))
        except AttributeError:
            raise ReportError(f"release switches: experiment {row.trials[0].id!r} has no setting {path!r}; mend "
                              "`setting`") from None
    return "; ".join(values)


def _effect(quantity: str, default: Row, switched: Row) -> dict[str, Measure | str]:
    effect, sd, interval = None, None, (None, None)
    ours, theirs = (dict(zip((trial.seed for trial in row.trials), row.values(quantity) or (), strict=False))
                    for row in (default, switched))
    differences = [theirs[seed] - ours[seed] for seed in ours if seed in theirs]
    if not differences:
        verdict = "not measured"
    elif any(differences) and len(differences) == 1:
        lies = side(switched.first.value(quantity)[1], default.first.value(quantity)[1])
        effect, verdict = differences[0], f"{VERDICTS[lies]} (one seed)"
    else:
        effect = mean(differences)
        if len(differences) > 1:
            sd, interval = stdev(differences), seeds_interval(differences)
        verdict = VERDICTS[side(interval, (0, 0))] if any(differences) else "unchanged"
    return {f"{quantity}_effect": Measure(effect, sd, *interval), f"{quantity}_verdict": verdict}
