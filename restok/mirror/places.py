"""Whose result each run of MLflow is, and how it is called."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from restok.experiments import Tree, Trial
from restok.mirror import views

KINDS = {"tokenizer": "tokenizer", "codes": "codes", "generator": "generator", "guidance": "guidance",
         "generation": "evaluation"}     # the stages that have runs in MLflow, and what they are called there, in this order


@dataclass(frozen=True)
class Place:
    """Whose result something is: the first of the rows that share it, all of these with their checkpoints, and where a list of
    all runs has it."""

    stage: str
    path: Path
    row: Trial
    label: str
    users: tuple[tuple[Trial, str], ...]
    number: str

    @property
    def name(self) -> str:
        return f"{self.number} {self.row.name} {self.label} {KINDS[self.stage]}"

    @property
    def colour(self) -> str:
        row, checkpoint, _ = map(int, self.number.split("."))
        return views.colour(row, checkpoint)

    @property
    def shown(self) -> str:
        """The path that the run of MLflow names: of an evaluation, which has several results, their folder."""
        return (self.path.parent if self.stage == "generation" else self.path).as_posix()

    @property
    def tags(self) -> dict[str, str]:
        return {"stage": KINDS[self.stage], "row": self.row.name, "checkpoint": self.label,
                "feeds": "; ".join(f"{item} {name}" for item, name in self.feeds.items()), **self.feeds,
                "mlflow.runColor": self.colour}

    @property
    def feeds(self) -> dict[str, str]:
        """By table and figure, which of its rows this is."""
        found: dict[str, list[str]] = {}
        for trial, label in self.users:
            for feed in trial.feeds:
                if feed.label in (None, label):
                    found.setdefault(feed.item, []).append(feed.name or trial.id)
        return {item: ", ".join(dict.fromkeys(names)) for item, names in found.items()}

    @property
    def steps(self) -> range:
        """Of a training, its first step and the one after its last."""
        if self.stage == "generator":
            return range(self.row.params.generator_training.steps)
        checkpoints = self.row.params.tokenizer_training.checkpoints
        ends = [0, *checkpoints.values()]
        at = list(checkpoints).index(self.label) if self.label in checkpoints else 0
        return range(ends[at], ends[at + 1])


def places(tree: Tree) -> Iterator[Place]:
    """Every result of the rows that a run of MLflow shows, each once."""
    for number, stage in enumerate(KINDS, 1):
        users: dict[Path, list[tuple[Trial, str]]] = {}
        for trial in tree.sheet.trials:
            for label in trial.labels:
                if stage != "generation" or not trial.tokenizer or trial.generator:
                    users.setdefault(tree.path(stage, trial, label), []).append((trial, label))
        for path, found in users.items():
            if path.is_relative_to(tree.root) and not (stage == "guidance" and found[0][0].params.sampling.guidance):
                row, label = tree.home(stage, *found[0]), found[0][1]
                at = f"{tree.sheet.trials.index(row):02}.{row.every_label.index(label) + 1}.{number}"
                yield Place(stage, path, row, label, tuple(found), at)
