"""The one tree of results: where a stage's result lies, what it is made from, and the settings that it reads.

results/RUN/STAGE holds what all rows of a parameter file share, results/RUN/STAGE/main what its own run makes, and
results/RUN/STAGE/ID.SEED what a row of the sheet makes with one seed. Rows whose settings agree in all that a stage depends on
share its result: the first of them makes it, in its own folder.
"""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from restok.config import Params
from restok.config.load import canonical_json, settings_tree
from restok.config.text import ConfigError
from restok.experiments.items import ITEMS, Item
from restok.experiments.trials import MAIN, RELEASED, Sheet, Trial
from restok.files.artifact import Origin

FEATURES = ("threads", "evaluation.features", "evaluation.weights", "evaluation.dinov2_weights", "evaluation.batch_size")
ALL_FEATURES = (*FEATURES, "evaluation.also", "evaluation.fdr6_weights")          # a search goes by the first network alone
DRAWING = ("threads", "seed", "sampling.temperature", "sampling.top_k", "sampling.top_p", "sampling.class_cache",
           "sampling.rounding", "sampling.precision")
SCORING = (*DRAWING, *FEATURES, "guidance_search.samples_per_class")
JUDGING = (*DRAWING, *ALL_FEATURES, "evaluation.samples_per_class", "evaluation.neighbours", "evaluation.distances")


class Stage(NamedTuple):
    path: str                       # below the folder of the run; a folder where it has no suffix
    verb: str                       # of `restok`, which makes it
    phase: str                      # of the chain: data, tokenizers, codes, generators, evaluation
    settings: tuple[str, ...]       # that it reads itself
    after: tuple[str, ...] = ()     # the stages of a row that it is made from, and whose settings it depends on through them

    @property
    def shared(self) -> bool:
        """By all rows of a parameter file."""
        return "{trial}" not in self.path


STAGES = {
    "data": Stage("data", "prepare", "data", (
        "data.source", "data.path", "data.train", "data.validation", "data.classes", "data.decoder")),
    "classifier": Stage("classifier", "train-classifier", "data", (
        "threads", "seed", "classifier", "data.crop_scale", "data.flip", "data.decoder", "tokenizer.image_size")),
    "reference": Stage("reference/{name}.safetensors", "statistics", "data", (*ALL_FEATURES, "tokenizer.image_size")),
    "tokenizer": Stage("tokenizer/{trial}/{label}", "train-tokenizer", "tokenizers", (
        "threads", "seed", "data", "tokenizer", "tokenizer_training", "objective")),
    "codes": Stage("codes/{trial}/{label}", "encode", "codes", (
        "threads", "data.decoder", "codes.scales", "codes.five_crops", "codes.flip"), ("tokenizer",)),
    "generator": Stage("generator/{trial}/{label}", "train-generator", "generators", (
        "threads", "seed", "generator", "generator_training"), ("codes",)),
    "candidate": Stage("guidance/{trial}/{label}/{schedule}_{scale}_{start}.json", "score-guidance", "evaluation", (
        *SCORING, "guidance_search.coarse"), ("generator",)),
    "finalist": Stage("guidance/{trial}/{label}/finalists/{rank}.json", "score-finalist", "evaluation",
                      SCORING, ("candidate",)),
    "guidance": Stage("guidance/{trial}/{label}.json", "search-guidance", "evaluation", ("guidance_search",), ("finalist",)),
    "reconstruction": Stage("evaluation/{trial}/{label}/reconstruction.json", "evaluate", "evaluation", (
        *ALL_FEATURES, "evaluation.lpips", "evaluation.lpips_weights"), ("tokenizer",)),
    "generation": Stage("evaluation/{trial}/{label}/generation.json", "evaluate", "evaluation", (
        *JUDGING, "sampling.guidance"), ("guidance",)),
    "unguided": Stage("evaluation/{trial}/{label}/unguided.json", "evaluate", "evaluation", JUDGING, ("generator",)),
    "panel": Stage("panel/{trial}/{label}.npz", "panel", "evaluation", ("threads",), ("tokenizer",)),
    "samples": Stage("samples/{trial}/{label}.npz", "sample", "evaluation", (*DRAWING, "sampling.guidance"), ("guidance",)),
    "layout": Stage("layout.npz", "layout", "evaluation", ("tokenizer", "generator")),
}


def pattern(stage: str) -> str:
    """A stage's place with wildcards, as the workflow's rules write it: 'results/{run}/codes/{trial}/{label}'."""
    return f"results/{{run}}/{STAGES[stage].path}"


def part_pattern(stage: str, suffix: str = "") -> str:
    """The place of a part of a stage's result, until they are gathered: 'runs/{run}/parts/codes/{trial}/{label}/{part}'."""
    return f"runs/{{run}}/parts/{Path(STAGES[stage].path).with_suffix('')}/{{part}}{suffix}"


def depends_on(stage: str, params: Params, label: str | None = None) -> str:
    """The settings that a stage reads itself, as canonical JSON. Checkpoints after `label` are none of them, but for the end of
    the learning rate's schedule."""
    settings = STAGES[stage].settings
    if stage == "data" and params.data.source == "digits":       # drawn at the tokenizer's size; files are packed as they are
        settings += ("tokenizer.image_size",)
    if stage == "candidate":                                     # how many samples, and not what becomes of the best
        settings = (*DRAWING, *FEATURES, f"guidance_search.{'coarse.' * bool(params.guidance_search.coarse)}samples_per_class")
    return canonical_json(_until(params, label), *settings)


def origin(stage: str, params: Params, label: str | None = None, paths: Mapping[str, Path | None] | None = None,
           **inputs: str | None) -> Origin:
    """What a stage's result is made of: the settings that it depends on, and the sha256 of each input, which lie at `paths`."""
    return Origin(stage, json.loads(depends_on(stage, params, label)) | {"checkpoint": label}, inputs, paths or {})


def stage_of(path: Path) -> tuple[Stage, Path] | None:
    """The stage that makes a file and, of a file in a stage's folder, the folder; None for a file of no stage."""
    for stage in STAGES.values():
        place = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(stage.path))
        if match := re.fullmatch(rf"(.*/)?{place}(?P<within>/[^/]+)?", path.as_posix()):
            if not (match["within"] and "." in stage.path):
                return stage, path.parent if match["within"] else path
    return None


class Tree:
    """The results of one parameter file's rows, below `root`, which is results/RUN."""

    def __init__(self, root: str | Path, sheet: Sheet):
        self.root, self.sheet = Path(root), sheet

    def path(self, stage: str, trial: Trial | None = None, label: str | None = None, **wildcards: str | float) -> Path:
        """Of the run, or of one row at a checkpoint; finished weights lie where the sheet says."""
        if trial is None:
            return self.root / STAGES[stage].path.format(label=label, **wildcards)
        if weights := {"tokenizer": trial.tokenizer, "generator": trial.generator}.get(stage):
            return Path(weights)
        home = self.home(stage, trial, label).name
        return self.root / STAGES[stage].path.format(trial=home, label=label, **wildcards)

    def home(self, stage: str, trial: Trial, label: str | None) -> Trial:
        """The first trial whose result of a stage is this trial's, too. Raises ConfigError for an unknown `label`."""
        if label not in trial.every_label:
            raise ConfigError(f"{trial.name}: no checkpoint {label!r}; there are {', '.join(trial.every_label)}")
        return self._homes[stage, trial.name, label]

    @cached_property
    def _homes(self) -> dict[tuple[str, str, str | None], Trial]:
        homes, first = {}, {}
        for trial in self.sheet.trials:
            for label in trial.every_label:
                settings = settings_tree(_until(trial.params, label))
                for stage in STAGES:
                    identity = stage, label, trial.tokenizer, trial.generator, canonical_json(settings, *_all_settings(stage))
                    homes[stage, trial.name, label] = first.setdefault(identity, trial)
        return homes

    def previous(self, trial: Trial, label: str) -> list[Path]:
        """The checkpoint from which training goes on, if there is one. Raises ConfigError for an unknown `label`."""
        self.home("tokenizer", trial, label)
        labels = trial.every_label
        return [self.path("tokenizer", trial, before) for before in labels[:labels.index(label)][-1:]]

    def candidates(self, trial: Trial, label: str) -> list[Path]:
        """What the search for guidance chooses among."""
        return [self.path("candidate", trial, label, schedule=g.schedule, scale=g.scale, start=g.start)
                for g in trial.params.guidance_search.candidates()]

    def finalists(self, trial: Trial, label: str) -> list[Path]:
        """The best candidates, measured again; none where the search has one round."""
        return [self.path("finalist", trial, label, rank=rank + 1) for rank in range(trial.params.guidance_search.finalists)]

    def inputs(self, item: Item) -> list[Path]:
        """What a table or figure is made from, each once."""
        paths = []
        for stage in item.reads:
            paths += [self.path(stage)] if STAGES[stage].shared else [
                self.path(stage, trial, label) for _, trial, label in self.sheet.feeding(item.name) if self._has(stage, trial)]
        return list(dict.fromkeys(paths))

    def _has(self, stage: str, trial: Trial) -> bool:
        """Whether a row has a result of a stage: of finished weights nothing is searched, and pictures show the run's own."""
        own, generates = trial.name == MAIN, bool(trial.generator or not trial.tokenizer)
        return {"generation": generates, "unguided": generates, "panel": own, "samples": own,
                "guidance": not (trial.params.sampling.guidance or trial.tokenizer)}.get(stage, True)

    def unguided(self, trial: Trial, label: str) -> bool:
        """Whether a table or figure that a row feeds at a checkpoint shows its samples without guidance, too."""
        return self._has("unguided", trial) and any(
            "unguided" in ITEMS[feed.item].reads for feed in trial.feeds if trial.tokenizer or feed.label in (None, label))

    def compares(self, item: Item) -> bool:
        """Whether an item, as a table, sets what was generated for several rows beside each other."""
        rows = {entry.trial.id for entry in self.sheet.feeding(item.name)}
        return item.kind != "figure" and "generation" in item.reads and len(rows) > 1

    def beyond_main(self, item: Item) -> bool:
        """Whether an item shows other trained models than the parameter file's own run."""
        own = {trial.id for trial in self.sheet.trials if trial.name == MAIN}
        return any(trial.id not in own and not trial.tokenizer for _, trial, _ in self.sheet.feeding(item.name))


def _all_settings(stage: str) -> tuple[str, ...]:
    """What a stage reads itself, and through the stages before it."""
    before = (name for other in STAGES[stage].after for name in _all_settings(other))
    return tuple(dict.fromkeys((*STAGES[stage].settings, *before)))


def _until(params: Params, label: str | None) -> Params:
    if label is None or label == RELEASED:
        return params
    return params.model_copy(update={"tokenizer_training": params.tokenizer_training.until(label)})
