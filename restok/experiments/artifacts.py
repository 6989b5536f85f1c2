"""What of a run is kept: its results by the phases of the chain, and its reports. The workflow's targets, dvc.yaml and `restok
prune` keep to it. States of unfinished work (runs/) and logs are none of it."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from restok.config import Params
from restok.config.load import canonical_json
from restok.experiments import work
from restok.experiments.items import ITEMS, RECORDS, Item, items
from restok.experiments.places import STAGES, Stage, Tree
from restok.experiments.trials import MAIN, Trial

PHASES = tuple(dict.fromkeys(stage.phase for stage in STAGES.values()))       # in the order of the chain; then the reports
PAGE = "index.html", "tables.md", "metrics.json"                              # of the reports, beside the items' own files
NAMES = {"label": r"\w+", "trial": rf"({MAIN}|\w+\.\d+)", "name": "(validation|published)", "rank": r"\d+"}


def folders(phase: str) -> tuple[str, ...]:
    """Below results/RUN, where a phase's results lie: no other phase's do."""
    return tuple(dict.fromkeys(Path(stage.path).parts[0] for stage in _stages(phase)))


def settings(phase: str) -> tuple[str, ...]:
    """The sections and keys of a parameter file that a phase's results depend on."""
    read = {key for stage in _stages(phase) for key in stage.settings}
    if phase == "data":                                   # the size of the digits (`depends_on`), and the published statistics
        read |= {"tokenizer.image_size", "evaluation.reference"}
    return tuple(sorted(key for key in read if key.partition(".")[0] == key or key.partition(".")[0] not in read))


def shown(tree: Tree, params: Params, rows: str) -> list[Item]:
    """The tables and figures of a run: of 'main' rows those that show its own models alone, or 'all'."""
    return [item for item in items(params, tree.sheet) if rows == "all" or not tree.beyond_main(item)]


def trials(tree: Tree, params: Params, rows: str) -> list[Trial]:
    """The rows of the sheet behind these tables and figures, in their order."""
    return _feeding(tree, shown(tree, params, rows))


def results(tree: Tree, params: Params, rows: str) -> dict[Path, str]:
    """The stage of each result that these tables and figures are made from, directly or not, by its path."""
    return behind(tree, params, shown(tree, params, rows))


def behind(tree: Tree, params: Params, items: Sequence[Item]) -> dict[Path, str]:
    """`results`, of any tables and figures."""
    found = {path: result.stage for path, result in work.results(tree, params, _feeding(tree, items)).items()}
    if params.classifier:
        found[tree.path("classifier")] = "classifier"
    for path in (path for item in items for path in tree.inputs(item)):
        if path not in found and path.is_relative_to(tree.root):              # finished weights are brought
            found[path] = next(name for name, stage in STAGES.items() if _pattern(stage).fullmatch(_below(path, tree)))
    return found


def _feeding(tree: Tree, items: Sequence[Item]) -> list[Trial]:
    names = {trial.name for item in items for _, trial, _ in tree.sheet.feeding(item.name)}
    return [trial for trial in tree.sheet.by_name.values() if trial.name in names]


def reports(tree: Tree, params: Params, home: Path) -> list[Path]:
    """The tables, figures and pages of a run below `home`, each with its record, that there can be."""
    files = [file for item in items(params, tree.sheet) for file in (*item.files, *item.records)]
    return [home / file for file in (*files, *PAGE, *(f"{RECORDS}/{Path(file).stem}.json" for file in PAGE))]


def of_phase(phase: str, tree: Tree, params: Params, rows: str) -> list[str]:
    """The paths of a phase's results."""
    return [str(path) for path, stage in results(tree, params, rows).items() if STAGES[stage].phase == phase]


def measured(tree: Tree, params: Params, rows: str) -> list[Path]:
    """What a summary of all measurements reads: the evaluations, and what the trainings say of themselves."""
    stages = "tokenizer", "generator", "reconstruction", "generation", "unguided"
    return [path for path, stage in results(tree, params, rows).items() if stage in stages]


def changes(tree: Tree, params: Params, rows: str) -> dict[str, Any]:
    """What the rows of the sheet add to a parameter file: by phase and row, the checkpoints that it takes, and the settings
    that it changes; and `besides`, what tables and figures show that is measured for no row."""
    main, found, measured = _flat(params), {}, work.results(tree, params, trials(tree, params, rows))
    besides = {_below(path, tree): stage for path, stage in results(tree, params, rows).items() if path not in measured}
    for phase in PHASES:
        found[phase] = {"besides": sorted(path for path, stage in besides.items() if STAGES[stage].phase == phase)}
        for trial in trials(tree, params, rows):
            own = {key: value for key, value in _flat(trial.params).items() if main.get(key) != value
                   and any(f"{key}.".startswith(f"{read}.") for read in settings(phase))}
            weights = {name: folder for name in ("tokenizer", "generator") if (folder := getattr(trial, name))}
            found[phase][trial.name] = {"checkpoints": trial.labels, **own, **weights}
    return found | {"reports": {trial.name: [" ".join(filter(None, feed)) for feed in trial.feeds]
                                for trial in trials(tree, params, rows)}}


def prune(tree: Tree, params: Params, reports: Path, runs: Path) -> list[tuple[Path, Path]]:
    """Move what no row of the sheet makes any more, with its settings as they are now, out of the results and reports, to
    runs/RUN/removed/TIME. Returns from where to where."""
    kept, home = results(tree, params, "all"), runs / "removed" / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    made, known = ({file for item in shown for file in (*item.files, *item.records)}
                   for shown in (items(params, tree.sheet), ITEMS.values()))
    stay = {reports, tree.root, *(tree.root / folder for phase in PHASES for folder in folders(phase))}      # as DVC wants it
    moved = [(path, home / "results" / path.relative_to(tree.root)) for path in _here(tree) if path not in kept]
    moved += [(reports / file, home / "reports" / file) for file in sorted(known - made) if (reports / file).exists()]
    for source, target in moved:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
        source.with_name(f".{source.name}.lock").unlink(missing_ok=True)       # a folder's, from when it was made
        for above in source.parents:
            if above in stay or any(above.iterdir()):
                break
            above.rmdir()
    return moved


def _stages(phase: str) -> list[Stage]:
    return [stage for stage in STAGES.values() if stage.phase == phase]


def _here(tree: Tree) -> Iterator[Path]:
    """Every result that lies in the tree, of whatever row and checkpoint."""
    for stage in STAGES.values():
        for path in sorted(tree.root.glob(re.sub(r"{\w+}", "*", stage.path))):
            if _pattern(stage).fullmatch(_below(path, tree)):
                yield path


def _pattern(stage: Stage) -> re.Pattern[str]:
    """Of the paths of a stage's results, below the folder of the run."""
    pieces = re.split(r"{(\w+)}", stage.path)
    return re.compile("".join(NAMES.get(piece, "[^/]+") if odd else re.escape(piece)
                              for piece, odd in zip(pieces, [False, True] * len(pieces), strict=False)))


def _below(path: Path, tree: Tree) -> str:
    return path.relative_to(tree.root).as_posix()


def _flat(params: Params) -> dict[str, Any]:
    """Every setting that a result may depend on, by its path: 'tokenizer.width'."""
    tree = json.loads(canonical_json(params, *type(params).model_fields))
    return dict(leaves(tree))


def leaves(tree: dict, *above: str) -> Iterable[tuple[str, Any]]:
    """Each value of nested settings by its path: 'tokenizer.width'."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, *above, key)
        else:
            yield ".".join((*above, key)), value
