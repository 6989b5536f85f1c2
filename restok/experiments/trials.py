"""Rows of the sample sheet as trials: a row is run once for each seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from restok.config import Params
from restok.config.text import ConfigError

RELEASED = "released"      # the checkpoint of a row that names finished weights
MAIN = "main"              # the trial that has the settings of the parameter file as they are


class Feed(NamedTuple):
    """'table10 HAR@750k': the table or figure, the row's name there, and the checkpoint; None: every one."""

    item: str
    name: str
    label: str | None


@dataclass(frozen=True)
class Trial:
    """One row with one seed. `name` is that of its folders: MAIN where its settings are the parameter file's own, else
    ID.SEED."""

    id: str
    name: str
    own: tuple[str, ...]            # what the row itself changes
    params: Params
    feeds: tuple[Feed, ...]
    tokenizer: str | None           # finished weights, where the row names them
    generator: str | None

    @property
    def seed(self) -> int:
        return self.params.seed

    @property
    def every_label(self) -> list[str]:
        """The checkpoints of the tokenizer."""
        return [RELEASED] if self.tokenizer else list(self.params.tokenizer_training.checkpoints)

    @property
    def labels(self) -> list[str]:
        """The checkpoints that the row measures."""
        wanted = {feed.label for feed in self.feeds}
        return [label for label in self.every_label if self.tokenizer or None in wanted or label in wanted]


class Entry(NamedTuple):
    """One measurement that feeds a table or figure."""

    name: str
    trial: Trial
    label: str


@dataclass(frozen=True)
class Sheet:
    """The trials of one parameter file, in the order of the rows."""

    run: str
    trials: Sequence[Trial]

    @cached_property
    def by_name(self) -> dict[str, Trial]:
        return {trial.name: trial for trial in self.trials}

    def trial(self, name: str) -> Trial:
        """The trial of a folder. Raises ConfigError for another name."""
        if name not in self.by_name:
            raise ConfigError(f"{name}: not a row of params/experiments.tsv with one of its seeds; there are "
                              f"{', '.join(self.by_name)}")
        return self.by_name[name]

    def feeding(self, item: str) -> Iterator[Entry]:
        """What feeds a table or figure: rows in their order, each with its seeds and checkpoints."""
        for trial in self.trials:
            for feed in trial.feeds:
                if feed.item == item:
                    for label in [feed.label] if feed.label and not trial.tokenizer else trial.labels:
                        yield Entry(feed.name, trial, label)
