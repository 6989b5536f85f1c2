"""params/experiments.tsv: one row a run, with what it changes and the tables and figures that it feeds. No tensors here.

A row is run once for each seed (a trial). Trials whose settings agree in all that a stage depends on share that stage: the
first of them in the sheet makes it, the others read it.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from restok.config import Params
from restok.params import ConfigError, apply_override, facts, parse, read_tree

COLUMNS = ("id", "base", "overrides", "feeds", "params", "tokenizer", "generator")
RELEASED = "released"      # the checkpoint of a row that names finished weights

# What every row of a file shares, so that their numbers compare: other values belong in a parameter file of their own.
SHARED = ("data.source", "data.path", "data.train", "data.validation", "classifier", "tokenizer.image_size",
          "evaluation.features", "evaluation.weights", "evaluation.reference", "evaluation.batch_size")

# What each stage reads of the parameters; a stage depends on what comes before it, too.
FEATURES = ("evaluation.features", "evaluation.weights", "evaluation.batch_size")
TOKENIZER = ("seed", "data", "tokenizer", "tokenizer_training", "objective")
CODES = ("codes.scales", "codes.five_crops", "codes.flip")
GENERATOR = ("seed", "generator", "generator_training")
DRAWING = ("seed", "sampling.temperature", "sampling.top_k", "sampling.top_p", "sampling.class_cache")
CANDIDATE = (*DRAWING, *FEATURES, "guidance_search.samples_per_class", "evaluation.rounding")
SEARCH = (*CANDIDATE, "guidance_search")
RECONSTRUCTION = (*FEATURES, "evaluation.lpips", "evaluation.lpips_weights", "evaluation.rounding")
GENERATION = (*DRAWING, "sampling.guidance", *FEATURES, "evaluation.samples_per_class", "evaluation.neighbours",
              "evaluation.distances", "evaluation.rounding")
MODELS = ("tokenizer", "tokenizer_training", "objective", "codes", "generator", "generator_training", "sampling")
STAGES = {
    "tokenizer": TOKENIZER,
    "codes": (*TOKENIZER, *CODES),
    "generator": (*TOKENIZER, *CODES, *GENERATOR),
    "guidance": (*TOKENIZER, *CODES, *GENERATOR, *SEARCH),
    "reconstruction": (*TOKENIZER, *RECONSTRUCTION),
    "generation": (*TOKENIZER, *CODES, *GENERATOR, *SEARCH, *GENERATION),
}


class Feed(NamedTuple):
    """'table10 HAR@750k': the table or figure, the row's name there, and the checkpoint; None: every one."""

    item: str
    name: str
    label: str | None


@dataclass(frozen=True)
class Trial:
    """One row with one seed. `name` is its folder below results/ and runs/: RUN where its settings are the parameter file's
    own, else RUN/experiments/ID.SEED."""

    run: str
    id: str
    name: str
    own: tuple[str, ...]            # what the row itself changes
    overrides: tuple[str, ...]      # what it changes of the parameter file, with its base and seed
    params: Params
    feeds: tuple[Feed, ...]
    tokenizer: str | None           # finished weights, where the row names them
    generator: str | None

    @property
    def seed(self) -> int:
        return self.params.seed

    @property
    def labels(self) -> list[str]:
        """The checkpoints of the tokenizer that the row measures."""
        if self.tokenizer:
            return [RELEASED]
        every = list(self.params.tokenizer_training.checkpoints)
        wanted = {feed.label for feed in self.feeds}
        return every if None in wanted else [label for label in every if label in wanted]

    def depends_on(self, stage: str) -> str:
        """What the stage's result is a function of, as canonical JSON."""
        return facts(self.params, *dict.fromkeys(STAGES[stage])) + json.dumps([self.tokenizer, self.generator])


class Entry(NamedTuple):
    """One measurement that feeds a table or figure."""

    name: str
    trial: Trial
    label: str


class Sheet:
    """The trials of one parameter file, in the order of the rows."""

    def __init__(self, run: str, trials: Sequence[Trial]):
        self.run, self.trials = run, list(trials)

    @cached_property
    def by_name(self) -> dict[str, Trial]:
        return {trial.name: trial for trial in self.trials}

    @cached_property
    def _first(self) -> dict[tuple[str, str], Trial]:
        found = {}
        for trial in self.trials:
            for stage in STAGES:
                found.setdefault((stage, trial.depends_on(stage)), trial)
        return found

    def home(self, stage: str, trial: Trial) -> Trial:
        """The trial whose folder holds this trial's result of a stage."""
        return self._first[stage, trial.depends_on(stage)]

    def feeding(self, item: str) -> Iterator[Entry]:
        """What feeds a table or figure: rows in their order, each with its seeds and checkpoints."""
        for trial in self.trials:
            for feed in trial.feeds:
                if feed.item == item:
                    for label in [feed.label] if feed.label else trial.labels:
                        yield Entry(feed.name, trial, label)


def load_sheet(params: str | Path, overrides: Sequence[str] = (), sheet: str | Path | None = None) -> Sheet:
    """The rows of `sheet` (None: experiments.tsv beside the parameter file) that apply to a parameter file, each checked
    against the schema of settings.

    `overrides` change the file for every row. Raises ConfigError, which names the row and the column.
    """
    params = Path(params)
    sheet = params.with_name("experiments.tsv") if sheet is None else Path(sheet)
    tree = read_tree(params)
    for override in overrides:
        apply_override(tree, override)
    whole = parse(Params, tree, str(params))
    trials, names = [], set()
    for line, row in _rows(sheet):
        where = f"{sheet}, line {line}, row {row['id'] or '?'!r}, column"
        if not re.fullmatch(r"\w+", row["id"]):
            raise ConfigError(f"{where} id: {row['id']!r}; take letters, digits and underscores")
        if row["id"] in names:
            raise ConfigError(f"{where} id: a row above has it; every row has its own")
        names.add(row["id"])
        if row["params"] and params.stem not in _parts(row["params"]):
            continue
        trials += _trials(params, whole, row, where)
    return Sheet(params.stem, trials)


def load_trial(params: str | Path, experiment: str, overrides: Sequence[str] = ()) -> Params:
    """The settings of one row with one seed, 'ID.SEED'. Raises ConfigError."""
    sheet = load_sheet(params, overrides)
    trials = {f"{trial.id}.{trial.seed}": trial for trial in sheet.trials}
    if experiment not in trials:
        raise ConfigError(f"experiment {experiment!r}: not a row of {Path(params).with_name('experiments.tsv')} with one of "
                          f"its seeds; there are {', '.join(trials)}")
    return trials[experiment].params


def _rows(sheet: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column), without blank lines and those that open with #."""
    try:
        lines = sheet.read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{sheet}: cannot be read ({error.strerror})") from None
    numbered = [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    columns = numbered[0][1].split("\t") if numbered else []
    if sorted(columns) != sorted(COLUMNS):
        raise ConfigError(f"{sheet}: columns {columns}; expected {', '.join(COLUMNS)}, separated by tabs")
    for number, line in numbered[1:]:
        cells = next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE))
        if len(cells) > len(columns):
            raise ConfigError(f"{sheet}, line {number}: {len(cells)} cells for {len(columns)} columns, which tabs separate")
        yield number, dict(zip(columns, [cell.strip() for cell in cells] + [""] * (len(columns) - len(cells)), strict=True))


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(";") if part.strip()]


def _trials(params: Path, whole: Params, row: dict[str, str], where: str) -> Iterator[Trial]:
    experiments = whole.experiments
    bases = {"main": ({}, experiments.main_seeds), "ablation": (experiments.ablation, experiments.ablation_seeds)}
    if row["base"] not in bases:
        raise ConfigError(f"{where} base: {row['base']!r}; choose main or ablation")
    if row["generator"] and not row["tokenizer"]:
        raise ConfigError(f"{where} tokenizer: blank, but a generator is named; name the tokenizer that its codes came from")
    shared, seeds = bases[row["base"]]
    own = tuple(_parts(row["overrides"]))
    for seed in range(whole.seed, whole.seed + seeds):
        overrides = (f"seed={seed}", *(f"{key}={json.dumps(value)}" for key, value in shared.items()), *own)
        settings = _settings(params, whole, overrides, where)
        feeds = tuple(_feed(text, settings, where) for text in _parts(row["feeds"]))
        if not feeds:
            raise ConfigError(f"{where} feeds: blank; name the tables and figures, such as 'table2 #9'")
        plain = settings == whole and not row["tokenizer"]
        name = params.stem if plain else f"{params.stem}/experiments/{row['id']}.{seed}"
        yield Trial(params.stem, row["id"], name, own, () if plain else overrides, settings, feeds, row["tokenizer"] or None,
                    row["generator"] or None)


def _settings(params: Path, whole: Params, overrides: Sequence[str], where: str) -> Params:
    """The parameter file with a row's overrides, checked whole."""
    tree = whole.model_dump(mode="json")
    try:
        for override in overrides:
            apply_override(tree, override)
        settings = parse(Params, tree, str(params))
    except ConfigError as error:
        raise ConfigError("\n".join(f"{where} overrides: {line}" for line in str(error).splitlines())) from None
    for key in SHARED:
        if facts(settings, key) != facts(whole, key):
            raise ConfigError(f"{where} overrides: {key} is shared by every row, so that their numbers compare; write another "
                              "parameter file for another value")
    return settings


def _feed(text: str, settings: Params, where: str) -> Feed:
    item, _, rest = text.partition(" ")
    name, _, label = rest.strip().partition("@")
    if label and label not in settings.tokenizer_training.checkpoints:
        raise ConfigError(f"{where} feeds: {text!r}: no checkpoint {label!r}; choose one of "
                          f"{', '.join(settings.tokenizer_training.checkpoints)}")
    return Feed(item, name, label or None)
