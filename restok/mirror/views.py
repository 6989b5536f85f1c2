"""Views of MLflow's pages, prepared: for each table that compares rows which runs to show, in which columns, with which charts.

MLflow keeps a view in a tag of the experiment, and lists it in the menu `Views` above the runs. The state has the keys that its
pages write there (3.17); those that are left out have their usual values.
"""

import base64
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from restok.config.load import settings_tree
from restok.experiments import ITEMS, Item, Tree
from restok.experiments.artifacts import leaves
from restok.mirror.values import WITHOUT

TAG = "mlflow.sharedViewState."      # and the key of a view
PLAIN = {"mlflow.experimentKind": "custom_model_development"}      # else the pages are those for chat programs
RUN_NAME, WIDE = "attributes.`Run Name`", 340                      # and the pixels that the longest takes
SECTIONS = ("loss", "codebook", "codebook by level", "eval", "search", "reconstruction", "generation", "unguided",
            "speed", "optimizer", "cost", "interval")      # of the charts, in order; each has the metrics called SECTION/NAME
FOLDED = "speed", "optimizer", "cost", "interval"
CURVES = "loss", "codebook", "codebook by level", "speed", "optimizer"       # by step; of the others a metric has one value
CHIEF = "r", "g", "IS", "codebook entropy", "codebook usage"       # what names in eval/ begin with, in the order of the tables
COLOURS = ("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "8c564b", "e377c2", "7f7f7f", "bcbd22", "17becf",
           "7aa6d8", "ffb46b", "7fce74", "f58f8e", "bfa3d6", "bb9387", "a0336f", "3b3b3b", "6b6e00", "006d77")


def colour(row: int, checkpoint: int) -> str:
    """Of a run, for its tag mlflow.runColor: rows that stand near each other in the sheet differ, and checkpoints of a row."""
    return f"#{COLOURS[(row + 7 * checkpoint) % len(COLOURS)]}"


@dataclass(frozen=True)
class View:
    """What is shown of some runs of an experiment: `key` in addresses, `title` in the menu."""

    key: str
    title: str
    runs: str                        # a filter, as the pages' search takes it
    columns: tuple[str, ...]         # as the pages call them: metrics.`eval/gFID`, params.`seed`, tags.`table2`
    charts: tuple[str, ...]          # metrics

    @property
    def state(self) -> dict[str, Any]:
        sections = dict.fromkeys(map(_section, self.charts))
        return {"searchFilter": self.runs, "orderByKey": "tags.`mlflow.runName`", "orderByAsc": True,
                "selectedColumns": self.columns, "columnOrder": [RUN_NAME, *self.columns],
                "columnWidths": {RUN_NAME: WIDE} | {column: _width(column) for column in self.columns},
                "runsHiddenMode": "FIRST_20_RUNS", "compareRunCharts": [_card(metric) for metric in self.charts],
                "compareRunSections": [{"uuid": name, "name": name, "display": name not in FOLDED, "isReordered": False}
                                       for name in sections],
                "isAccordionReordered": True}

    def tag(self, place: int) -> str:
        """The value of its tag; the menu has the view of the highest `place` first."""
        packed = base64.b64encode(zlib.compress(json.dumps(self.state).encode(), 9)).decode()
        return json.dumps({"name": self.title, "createdAt": place, "updatedAt": place, "state": f"deflate;{packed}"})


def views(tree: Tree, metrics: Mapping[str, Collection[str]]) -> list[View]:
    """One for each table whose rows are compared, and one for each kind of runs; `metrics` are those that the runs of a kind
    have."""
    measured = _ordered(metrics.get("evaluation", ()))
    found = [_of_table(tree, item, [name for name in measured if "unguided" in item.reads or not _unguided(name)])
             for item in ITEMS.values() if tree.compares(item)]
    for kind, title in (("evaluation", "All evaluations"), ("tokenizer", "Training of tokenizers"),
                        ("generator", "Training of generators")):
        known = _ordered(metrics.get(kind, ()))
        shown = sorted((name for name in known if _section(name) in ("eval", "loss", "codebook", "cost")),
                       key=lambda name: _section(name) != "eval")
        found.append(View(f"{kind}s", title, f"tags.stage = '{kind}'", (
            _tag("feeds"), _tag("progress"), *map(_metric, shown)), tuple(known)))
    return found


def _of_table(tree: Tree, item: Item, measured: Sequence[str]) -> View:
    chief, behind = ([name for name in measured if _section(name) in some] for some in (("eval",), ("interval", "cost")))
    return View(item.name, item.title, f"tags.{item.name} LIKE '%' AND tags.stage = 'evaluation'",
                (_tag(item.name), *map(_metric, chief), *map(_param, _differing(tree, item)), *map(_metric, behind)),
                tuple(measured))


def _unguided(metric: str) -> bool:
    """Whether it is of samples without guidance."""
    return _section(metric) == "unguided" or WITHOUT in metric


def tags(found: Sequence[View]) -> dict[str, str]:
    """The tags of an experiment that has these views, in this order."""
    return PLAIN | {f"{TAG}{view.key}": view.tag(place) for place, view in enumerate(reversed(found), 1)}


def _differing(tree: Tree, item: Item) -> Iterator[str]:
    """The settings in which the rows of a table differ."""
    rows = [{name: str(value) for name, value in leaves(settings_tree(entry.trial.params))}
            for entry in tree.sheet.feeding(item.name)]
    for name in dict.fromkeys(name for row in rows for name in row):
        if len({row.get(name) for row in rows}) > 1:
            yield name


def _ordered(metrics: Iterable[str]) -> list[str]:
    """Those that charts show, by section, the tables' quantities first."""
    def place(metric: str) -> tuple[int, int, int, str]:
        name = metric.rpartition("/")[2]
        chief = next((number for number, start in enumerate(CHIEF) if name.startswith(start)), len(CHIEF))
        return SECTIONS.index(_section(metric)), chief, len(name), name      # by length: `entropy 2` before `entropy 16`
    return sorted((metric for metric in metrics if _section(metric) in SECTIONS), key=place)


def _section(metric: str) -> str:
    return metric.rpartition("/")[0]


def _card(metric: str) -> dict[str, Any]:
    """Bars, or for what has a value a step, lines. The pages would make a generated one lines of a single point."""
    card = {"uuid": metric, "metricKey": metric, "metricSectionId": _section(metric), "displayName": metric.rpartition("/")[2],
            "deleted": False, "isGenerated": False, "runsCountToCompare": 100, "type": "BAR"}
    if _section(metric) not in CURVES:
        return card
    return card | {"type": "LINE", "lineSmoothness": 0, "xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear",
                   "range": {}, "yAxisKey": "metric", "yAxisExpressions": [], "selectedXAxisMetricKey": "",
                   "ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}


def _width(column: str) -> int:
    """Pixels, for its name."""
    return 40 + 7 * len(column.partition(".")[2])


def _tag(name: str) -> str:
    return f"tags.`{name}`"


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _param(name: str) -> str:
    return f"params.`{name}`"
