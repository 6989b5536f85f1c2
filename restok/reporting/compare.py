"""Rows of the sheet side by side: the settings in which they differ, what was measured of each, and what each cost."""

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restok.config.load import ConfigError
from restok.experiments import Tree, Trial
from restok.experiments.artifacts import leaves
from restok.experiments.trials import RELEASED
from restok.files.making import Making, cost_of, seconds_of
from restok.reporting.beside import Metric, metrics
from restok.reporting.measured import Row, chosen_guidance, measured_at, require_alike, rows
from restok.reporting.provenance import artifact_of
from restok.reporting.run import ReportError

STAGES = "tokenizer", "codes", "generator", "guidance", "reconstruction", "generation", "unguided"


@dataclass(frozen=True)
class Cost:
    """What one stage of one row took, of all its seeds and, of the tokenizer, all checkpoints up to its own."""

    makings: tuple[Making, ...]
    own: tuple[Making, ...] = ()         # those of them that are of this row's folders
    shared: tuple[str, ...] = ()         # the rows that made the others
    finished: bool = False               # weights from elsewhere, whose cost nobody knows here

    def memory(self, key: str) -> float | None:
        """The most that one process had, in GB: 'memory_gb' or 'gpu_memory_gb'."""
        return max((one[key] for one in self.makings if one.get(key) is not None), default=None)

    def __str__(self) -> str:
        if self.finished or not self.makings:
            return "finished weights" if self.finished else ""
        return cost_of(self.makings) + (f" (of {', '.join(self.shared)})" if self.shared else "")


@dataclass(frozen=True)
class Comparison:
    """Rows, the first of which the others are held against."""

    tree: Tree
    rows: tuple[Row, ...]

    @property
    def metrics(self) -> list[Metric]:
        return metrics(self.rows)

    @property
    def settings(self) -> dict[str, list[str]]:
        """Those that differ, as text, by their keys; blank where a row has no such key. Checkpoint and seeds are among them,
        and what the search for guidance chose."""
        found = [dict(_settings(self.tree, row)) for row in self.rows]
        lines = {key: [each[key] if key in each else "" for each in found] for each in found for key in each}
        return {key: values for key, values in lines.items() if len(set(values)) > 1}

    @property
    def costs(self) -> dict[str, list[Cost]]:
        """By stage, of each row; stages that no row has are left out."""
        found = {stage: [_cost(self.tree, row, stage) for row in self.rows] for stage in STAGES}
        return {stage: costs for stage, costs in found.items() if any(map(str, costs))}

    @property
    def together(self) -> list[Cost]:
        """All stages of each row, but for what others made."""
        by_row = zip(*self.costs.values(), strict=True)
        return [Cost(tuple(call for cost in costs for call in cost.own)) for costs in by_row]

    @property
    def sizes(self) -> dict[str, list[int | None]]:
        """Parameters of the models, and steps that a sample takes; None where there is no generator."""
        firsts = [row.first for row in self.rows]
        return {"tokenizer parameters": [e.tokenizer["parameters"] for e in firsts],
                "generator parameters": [e.generator and e.generator["parameters"] for e in firsts],
                "sampling steps": [e.generator and e.generator["sampling_steps"] for e in firsts]}

    def as_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        about = [{"name": row.key, "row": row.trials[0].id, "checkpoint": row.first.label,
                  "seeds": [trial.seed for trial in row.trials], "features": row.first.features,
                  "results": [record.path.as_posix() for e in row.measured for record in e.records]} for row in self.rows]
        measured = [one.as_json() for one in self.metrics]
        costs = {stage: [{"seconds": seconds_of(one.makings), "devices": sorted({call["device"] for call in one.makings}),
                          "memory_gb": one.memory("memory_gb"), "gpu_memory_gb": one.memory("gpu_memory_gb"),
                          "made_by": list(one.shared), "finished_weights": one.finished} for one in each]
                 for stage, each in self.costs.items()}
        return {"run": self.tree.sheet.run, "rows": about, "settings": self.settings, "metrics": measured, "cost": costs,
                "sizes": self.sizes}


def compare(tree: Tree, names: Sequence[str], item: str | None = None) -> Comparison:
    """The rows of some names, 'ID', 'ID.SEED' or either with '@CHECKPOINT', or (no names) all that feed an item. A row takes
    all of its seeds and, where no checkpoint is named, the last that it measures.

    Raises ConfigError for a name that the sheet does not have, ReportError for what is not measured yet, with the command that
    makes it, ComparisonError for values that do not compare, which it names.
    """
    if item:
        return Comparison(tree, tuple(rows(tree, item)))
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ConfigError(f"{twice[0]}: named twice; name each row once")
    chosen = [_chosen(tree, name) for name in names]
    _require_measured(tree, chosen)
    found = [Row(name, name, trials, tuple(
        measured_at(tree, trial, label, tree.path("unguided", trial, label).exists()) for trial in trials))
             for name, (trials, label) in zip(names, chosen, strict=True)]
    require_alike([e for row in found for e in row.measured])
    return Comparison(tree, tuple(found))


def _chosen(tree: Tree, text: str) -> tuple[tuple[Trial, ...], str]:
    """The trials of a name, one a seed, and the checkpoint."""
    (name, _, label), trials = text.partition("@"), tree.sheet.trials
    found = tuple(trial for trial in trials if name == trial.id)
    found = found or tuple(trial for trial in trials if name in (trial.name, f"{trial.id}.{trial.seed}"))
    if not found:
        id, known = name.partition(".")[0], list(dict.fromkeys(trial.id for trial in trials))
        seeds, near = [str(trial.seed) for trial in trials if trial.id == id], difflib.get_close_matches(id, known, n=1)
        hint = (f"its seeds are {', '.join(seeds)}" if seeds else f"did you mean {near[0]!r}?" if near else
                f"there are {', '.join(known)}")
        raise ConfigError(f"{text}: not a row of params/experiments.tsv for {tree.sheet.run}; {hint}")
    label = label or found[0].labels[-1]
    tree.home("tokenizer", found[0], label)                      # raises for another checkpoint
    return found, label


def _require_measured(tree: Tree, chosen: Sequence[tuple[Sequence[Trial], str]]) -> None:
    """Raises ReportError, with one command for all that is missing."""
    missing = {}
    for trials, label in chosen:
        for trial in trials:
            alone = trial.tokenizer and not trial.generator
            for stage in ("reconstruction",) if alone else ("reconstruction", "generation"):
                if not (path := tree.path(stage, trial, label)).exists():
                    missing[path.as_posix()] = f"{trial.name} at {label}"
    if missing:
        raise ReportError(f"not measured yet: {', '.join(dict.fromkeys(missing.values()))}; make it with `snakemake --cores 2 "
                          f"{' '.join(missing)}`")


def _settings(tree: Tree, row: Row) -> Iterator[tuple[str, str]]:
    """As text, by their keys. Of training settings those up to the checkpoint count."""
    trial, params, label = row.trials[0], row.params, row.first.label
    yield "checkpoint", label
    yield "seeds", ", ".join(str(trial.seed) for trial in row.trials)
    for name, weights in (("tokenizer", trial.tokenizer), ("generator", trial.generator)):
        if weights:
            yield f"{name}, finished weights", weights
    if label != RELEASED:
        params = params.model_copy(update={"tokenizer_training": params.tokenizer_training.until(label)})
    tree_of = params.model_dump(mode="json", exclude={"seed": True, "experiments": True})
    steps, guidance = tree_of["tokenizer_training"].pop("checkpoints"), tree_of["sampling"].pop("guidance")
    yield "tokenizer_training.checkpoints", ", ".join(f"{name}: {step}" for name, step in steps.items())
    for key, value in leaves(tree_of):
        yield key, value if isinstance(value, str) else json.dumps(value)
    if guidance or tree.path("guidance", trial, label).exists():
        chosen = [chosen_guidance(tree, each, label)[0] for each in row.trials]
        yield "sampling.guidance", "; ".join(dict.fromkeys(
            f"{each.schedule}, {each.scale:g}" + f" from {each.start:g}" * (each.schedule == "step")
            + " over tokens" * (each.over == "tokens") for each in chosen)) + " (searched)" * (not guidance)


def _cost(tree: Tree, row: Row, stage: str) -> Cost:
    if stage in ("tokenizer", "generator") and getattr(row.trials[0], stage):
        return Cost((), finished=True)
    paths: dict[Path, str] = {}                          # of each result the row that made it, once
    for trial in row.trials:
        paths |= {path: tree.home(stage, trial, row.first.label).name for path in _made(tree, trial, row.first.label, stage)}
    own, made = {trial.name for trial in row.trials}, {}
    for path in paths:
        if path.exists() and (artifact := artifact_of(path)):
            made[path] = artifact.facts["made"]
    return Cost(tuple(call for calls in made.values() for call in calls),
                tuple(call for path, calls in made.items() if paths[path] in own for call in calls),
                tuple(dict.fromkeys(paths[path] for path in made if paths[path] not in own)))


def _made(tree: Tree, trial: Trial, label: str, stage: str) -> list[Path]:
    """What one trial takes of a stage: of the tokenizer all checkpoints up to its own, of guidance the whole search."""
    if stage == "tokenizer":
        labels = trial.every_label
        return [tree.path(stage, trial, before) for before in labels[:labels.index(label) + 1]]
    search = [*tree.candidates(trial, label), *tree.finalists(trial, label)] if stage == "guidance" else []
    return [*search, tree.path(stage, trial, label)]
