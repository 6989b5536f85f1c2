"""What the page's numbers were measured from: an entry for each row and checkpoint, to which numbers lead."""

import os
from collections.abc import Iterator
from pathlib import Path

from restok.experiments import Item, Tree, Trial
from restok.experiments.items import MEASURED
from restok.experiments.places import STAGES, stage_of
from restok.reporting.provenance import Input, Node, Walk, line

UI = "http://127.0.0.1:5000/restok"      # where `restok ui` leads from a result's path to its run in MLflow
GENERATION = Path(STAGES["generation"].path).name
MIRRORED = "train-tokenizer", "encode", "train-generator", "search-guidance", "evaluate"      # what these make has one


class Sources:
    """Entries are there once a number of theirs is: `anchor` is where that leads to."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._anchors: dict[str, str] = {}
        self._shown: dict[str, dict[str, Item]] = {}
        self._nodes: dict[Path, Node] = {}
        self.network = (tree.path("classifier") / "metrics.json").as_posix()
        self._rows = [(trial, label, {_place(tree, stage, trial, label) for stage in MEASURED} - {None})
                      for trial in tree.sheet.trials for label in trial.labels]

    def anchor(self, source: str, item: Item | None = None) -> str | None:
        """Of a row's files, as its column `source` names them; None of rows that were not measured here. The entry says that
        `item` shows it."""
        if not all(Path(name).suffix == ".json" and Path(name).is_file() for name in source.split("; ")):
            return None
        shown = self._shown.setdefault(source, {})
        if item:
            shown[item.name] = item
        return self._anchors.setdefault(source, f"from-{len(self._anchors) + 1}")

    def entries(self) -> list[dict]:
        """Each with its `id`, what it is of, the tables and figures that show it, what the results were made of, as lines with
        their depth, and the runs of all that in MLflow."""
        found = []
        for source, anchor in self._anchors.items():
            told, lines, files = set(), [], source.split("; ")
            for name in files:
                top = Walk(Path(name), check=False, nodes=self._nodes).top
                lines += self._lines(Input({}, top), told, 0)
            runs = {run.removeprefix(f"{UI}/results/{self.tree.root.name}/"): run
                    for each in lines if (run := self.run(Path(each["path"])))}
            found.append({"id": anchor, "title": self._title(files), "shown": list(self._shown[source].values()),
                          "runs": runs, "lines": lines})
        return found

    def _lines(self, named: Input, told: set[int], depth: int) -> Iterator[dict]:
        """What is told already is left out: an entry is short."""
        node = named.node
        if node.path is None or id(node) in told:
            return
        told.add(id(node))
        yield line(node, named.digests) | {"depth": depth}
        for each in node.inputs:
            yield from self._lines(each, told, depth + 1)

    def run(self, path: Path) -> str | None:
        """The address of a result's run in MLflow; None of results that have none."""
        found = stage_of(path)
        if not found or found[0].verb not in MIRRORED:
            return None
        stage, place = found
        if stage.verb == "evaluate":                                # the results of a checkpoint are one run, if it generates
            if not place.with_name(GENERATION).is_file():
                return None
            place = place.parent
        below = os.path.relpath(place, self.tree.root)
        return None if below.startswith("..") else f"{UI}/results/{self.tree.root.name}/{Path(below).as_posix()}"

    def view(self, item: Item) -> str | None:
        """The address of the view in MLflow that compares the rows of a table; None of what compares none."""
        return f"{UI}/{self.tree.sheet.run}/{item.name}" if self.tree.compares(item) else None

    def _title(self, files: list[str]) -> str:
        """'Row restok, seeds 10086 and 10087, checkpoint 1M'; of a part of what a row has, 'Reconstruction: row main, ...'."""
        whole = [(trial, label) for trial, label, places in self._rows if places <= set(files)]
        if whole:
            text = _named(whole)
            return text[0].upper() + text[1:]
        stages = {"reconstruction": "Reconstruction", "generation": "Samples", "unguided": "Samples without guidance",
                  "guidance": "Search for guidance"}
        for stage, what in stages.items():
            found = [(trial, label) for trial, label, _ in self._rows if _place(self.tree, stage, trial, label) in files]
            if found:
                return f"{what}: {_named(found[:1])}"             # the first has what several share
        return "Feature network" if files[0] == self.network else "; ".join(files)


def _place(tree: Tree, stage: str, trial: Trial, label: str) -> str | None:
    """Where a row has a result; of finished weights nothing is searched, and a tokenizer alone generates nothing."""
    lacks = {"guidance": trial.tokenizer, "generation": trial.tokenizer and not trial.generator}
    return None if lacks.get(stage) else tree.path(stage, trial, label).as_posix()


def _named(found: list[tuple[Trial, str]]) -> str:
    seeds: dict[str, list[str]] = {}
    for trial, _ in found:
        seeds.setdefault(trial.id, []).append(str(trial.seed))
    rows: dict[str, list[str]] = {}
    for row, own in seeds.items():
        rows.setdefault(_several("seed", own), []).append(row)
    named = "; ".join(f"{_several('row', names)}, {text}" for text, names in rows.items())
    return f"{named}, {_several('checkpoint', [label for _, label in found])}"


def _several(what: str, names: list[str]) -> str:
    """'seeds 1, 2 and 3'."""
    *most, last = dict.fromkeys(names)
    return f"{what}s {', '.join(most)} and {last}" if most else f"{what} {last}"
