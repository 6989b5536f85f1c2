"""Rows of the sample sheet as trials, and what each stage of a trial is a function of. No tensors here.

A row is run once for each seed (a trial). Trials whose settings agree in all that a stage depends on share that stage: the
first of them in the sheet makes it, in its own folder, and the others read it. New rows therefore belong at the end.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from restok.config import Params
from restok.config.load import canonical_json

RELEASED = "released"      # the checkpoint of a row that names finished weights

# What each stage reads of the parameters; a stage depends on what comes before it, too.
FEATURES = ("evaluation.features", "evaluation.weights", "evaluation.batch_size")
TOKENIZER = ("seed", "data", "tokenizer", "tokenizer_training", "objective")
CODES = ("codes.scales", "codes.five_crops", "codes.flip")
GENERATOR = ("seed", "generator", "generator_training")
DRAWING = ("seed", "sampling.temperature", "sampling.top_k", "sampling.top_p", "sampling.class_cache", "sampling.rounding")
CANDIDATE = (*DRAWING, *FEATURES, "guidance_search.samples_per_class")
SEARCH = (*CANDIDATE, "guidance_search")
RECONSTRUCTION = (*FEATURES, "evaluation.lpips", "evaluation.lpips_weights")
GENERATION = (*DRAWING, "sampling.guidance", *FEATURES, "evaluation.samples_per_class", "evaluation.neighbours",
              "evaluation.distances")
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
        return canonical_json(self.params, *dict.fromkeys(STAGES[stage])) + json.dumps([self.tokenizer, self.generator])


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
