"""Reading params/experiments.tsv: one row a run, with what it changes and the tables and figures that it feeds.

Every fault names the file, the line, the row and the column.
"""

import csv
import difflib
import io
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError

from restok.config import Params
from restok.config.base import Config, Label, composed
from restok.config.load import apply_overrides, canonical_json, load_params, override_path, parse
from restok.config.text import ConfigError, read_text
from restok.experiments.items import ITEMS
from restok.experiments.trials import MAIN, Feed, Sheet, Trial

# What every row of a file shares, so that their numbers compare: other values belong in a parameter file of their own.
SHARED = ("threads", "data.source", "data.path", "data.train", "data.validation", "classifier", "tokenizer.image_size",
          "evaluation.features", "evaluation.also", "evaluation.weights", "evaluation.dinov2_weights",
          "evaluation.fdr6_weights", "evaluation.reference", "evaluation.batch_size")

Bases = dict[str, tuple[tuple[str, ...], int]]          # main, ablation: what all of their rows change, and their seeds


def _parts(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(";") if part.strip())


Parts = Annotated[tuple[str, ...], BeforeValidator(_parts)]
Folder = Annotated[str, Field(pattern=r"^[^\s{}]*$")]


class Row(Config):
    """A row of the sheet, by its columns."""

    id: Label
    base: Literal["main", "ablation"]
    overrides: Parts
    feeds: Annotated[Parts, Field(min_length=1)]
    params: Parts
    tokenizer: Folder
    generator: Folder


COLUMNS = tuple(Row.model_fields)
REMEDIES = {"id": "; take letters, digits and underscores", "base": "; choose main or ablation",
            "feeds": "; name the tables and figures, such as 'table2 #9'",
            "tokenizer": " has white space or braces; name a folder without",
            "generator": " has white space or braces; name a folder without"}


def load_sheet(params: str | Path, overrides: Sequence[str] = (), sheet: str | Path | None = None) -> Sheet:
    """The rows of `sheet` (None: experiments.tsv beside the parameter file) that apply to a parameter file, each checked
    against the schema of settings; `overrides` change the file for every row. Raises ConfigError."""
    params = Path(params)
    sheet = params.with_name("experiments.tsv") if sheet is None else Path(sheet)
    whole = load_params(params, overrides)
    shared = tuple(f"{key}={json.dumps(value)}" for key, value in whole.experiments.ablation.items())
    _settings(params, whole, whole.seed, [shared], f"{params}: experiments.ablation")
    bases = {"main": ((), whole.experiments.main_seeds), "ablation": (shared, whole.experiments.ablation_seeds)}
    trials, names = [], set()
    for where, row in _rows(sheet):
        if row.id in names:
            raise ConfigError(f"{where} id: a row above has it; every row has its own")
        names.add(row.id)
        if _belongs(params, row.params, where):
            trials += _trials(params, whole, bases, row, where)
    return Sheet(params.stem, trials)


def load_trial(params: str | Path, experiment: str, overrides: Sequence[str] = ()) -> Params:
    """The settings of one row with one seed, 'ID.SEED'. Raises ConfigError."""
    sheet = load_sheet(params, overrides)
    trials = {f"{trial.id}.{trial.seed}": trial for trial in sheet.trials}
    if composed(experiment) not in trials:
        raise ConfigError(f"experiment {experiment!r}: not a row of {Path(params).with_name('experiments.tsv')} with one of "
                          f"its seeds; there are {', '.join(trials)}")
    return trials[composed(experiment)].params


def _rows(sheet: Path) -> Iterator[tuple[str, Row]]:
    """Each row with its place, as messages open, without blank lines and those that open with #."""
    rows = [(line, cells) for line, cells in _lines(sheet) if any(cells) and not cells[0].startswith("#")]
    columns = rows[0][1] if rows else []
    while columns and not columns[-1]:
        columns.pop()                                             # a spreadsheet pads every line to the width of the widest
    if sorted(columns) != sorted(COLUMNS):
        raise ConfigError(f"{sheet}: columns {columns}; expected {', '.join(COLUMNS)}, separated by tabs")
    for line, cells in rows[1:]:
        if any(cells[len(columns):]):
            raise ConfigError(f"{sheet}, line {line}: {len(cells)} cells for {len(columns)} columns, which tabs separate")
        row = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
        where = f"{sheet}, line {line}, row {row['id'] or '?'!r}, column"
        if len(cells) == 1:
            raise ConfigError(f"{sheet}, line {line}: {cells[0]!r} has no tab; tabs separate the columns, not spaces")
        try:
            yield where, Row.model_validate(row)
        except ValidationError as failure:
            column = failure.errors()[0]["loc"][0]
            given = repr(row[column]) if row[column] else "blank"
            raise ConfigError(f"{where} {column}: {given}{REMEDIES[column]}") from None


def _lines(sheet: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of each line; a cell that opens with a quote ends with one, as spreadsheets write it."""
    lines = ("\n" if line.startswith("#") else line for line in io.StringIO(read_text(sheet), newline=""))
    reader = csv.reader(lines, delimiter="\t", strict=True)
    try:
        for cells in reader:
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ConfigError(f"{sheet}, line {reader.line_num}: {error}; a cell that opens with a quote ends with one, and holds "
                          "others twice") from None


def _belongs(params: Path, names: Sequence[str], where: str) -> bool:
    """Whether a row is one of this parameter file's: blank, it is of every one; '!demo', of every one but the demo's."""
    own, names = composed(params.stem), [composed(name) for name in names]
    files = {composed(path.stem) for path in params.parent.glob("*.yaml")}
    for name in names:
        if name.removeprefix("!") not in files:
            raise ConfigError(f"{where} params: {name!r} is no parameter file beside {params}; there are "
                              f"{', '.join(sorted(files))}")
    without = [name[1:] for name in names if name.startswith("!")]
    return own in names if len(without) < len(names) else own not in without


def _trials(params: Path, whole: Params, bases: Bases, row: Row, where: str) -> Iterator[Trial]:
    if row.generator and not row.tokenizer:
        raise ConfigError(f"{where} tokenizer: blank, but a generator is named; name the tokenizer that its codes came from")
    shared, seeds = bases[row.base]
    for seed in range(whole.seed, whole.seed + seeds):
        settings = _settings(params, whole, seed, [shared, row.overrides], f"{where} overrides")
        feeds = tuple(_feed(text, settings, where) for text in row.feeds)
        changed = shared or row.overrides or row.tokenizer
        if wrong := [feed.item for feed in feeds if ITEMS[feed.item].rows == "main" and changed]:
            raise ConfigError(f"{where} feeds: {wrong[0]} shows the parameter file's own run, which this row changes; leave it "
                              "out")
        plain = settings == whole and not row.tokenizer
        name = MAIN if plain else f"{row.id}.{seed}"
        yield Trial(row.id, name, row.overrides, settings, feeds, row.tokenizer or None, row.generator or None)


def _settings(params: Path, whole: Params, seed: int, layers: Sequence[Sequence[str]], where: str) -> Params:
    """The parameter file with another seed and layers of overrides, each on top of the one before, checked whole."""
    tree = whole.model_dump(mode="json") | {"seed": seed}
    for override in chain.from_iterable(layers):
        if override_path(override).partition(".")[0] in ("seed", "experiments"):
            raise ConfigError(f"{where}: {override!r}; seeds come from experiments.main_seeds and ablation_seeds")
    try:
        for overrides in layers:
            apply_overrides(tree, overrides)
        settings = parse(Params, tree, str(params))
    except ConfigError as error:
        raise ConfigError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from None
    for key in SHARED:
        if canonical_json(settings, key) != canonical_json(whole, key):
            raise ConfigError(f"{where}: {key} is shared by every row, so that their numbers compare; write another "
                              "parameter file for another value")
    return settings


def _feed(text: str, settings: Params, where: str) -> Feed:
    item, _, rest = text.partition(" ")
    name, _, label = (composed(part.strip()) for part in rest.partition("@"))
    taking = [other.name for other in ITEMS.values() if other.rows]
    if item not in taking:
        near = difflib.get_close_matches(item, taking, n=1)
        raise ConfigError(f"{where} feeds: {item!r} takes no rows" + (f"; did you mean {near[0]!r}?" if near else
                                                                      f"; choose one of {', '.join(taking)}"))
    if ITEMS[item].rows == "named" and not name:
        raise ConfigError(f"{where} feeds: {text!r}: a row has a name in {item}, such as '{item} mine'")
    if label and label not in settings.tokenizer_training.checkpoints:
        raise ConfigError(f"{where} feeds: {text!r}: no checkpoint {label!r}; choose one of "
                          f"{', '.join(settings.tokenizer_training.checkpoints)}")
    return Feed(item, name, label or None)
