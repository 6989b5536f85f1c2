"""A store of MLflow with the runs of a parameter file, as the mirror names and tags them, and with numbers made up: for pages
that are looked at where no results are."""

import json
import math
import random
import time

from restok.config.load import settings_tree
from restok.experiments import Tree
from restok.experiments.artifacts import leaves
from restok.mirror.results import KINDS, MODELS, Place, places
from restok.mirror.views import tags, views
from restok.tracking import Point, Store, Tracked

FOUND = "rFD-digits", "gFD-digits", "IS-digits", "codebook entropy", "codebook usage"
OTHERS = "reconstruction/psnr", "reconstruction/ssim", "generation/precision", "generation/recall", "cost/tokenizer hours"
CURVES = ("loss/total", "loss/reconstruction", "codebook/use", "codebook by level/entropy 1", "codebook by level/entropy 16",
          "optimizer/learning_rate", "speed/images_per_second", "progress")


def invent(tree: Tree, uri: str) -> None:
    store, draw = Store(tree.sheet.run, uri), random.Random(0)
    for place in places(tree):
        store.write(_invented(place, draw))
    store.tag_experiment(tags(views(tree, store.metrics())))


def _invented(place: Place, draw: random.Random) -> Tracked:
    kind, now = KINDS[place.stage], round(1000 * time.time())
    settings = {name: value if isinstance(value, str) else json.dumps(value)
                for name, value in leaves(settings_tree(place.row.params))}
    points = []
    if kind == "evaluation":
        for name in FOUND:
            value = draw.uniform(1, 9)
            points += [Point(f"eval/{name}", value, now, 150), Point(f"interval/{name} low", 0.9 * value, now, 150),
                       Point(f"interval/{name} high", 1.1 * value, now, 150)]
        points += [Point(name, draw.random(), now, 150) for name in OTHERS]
    if place.stage in MODELS:
        speed = draw.uniform(20, 90)
        points += [Point(name, math.exp(-step / speed) + draw.uniform(0, 0.05), now, step)
                   for step in range(0, 150, 5) for name in CURVES]
    said = {"stage": kind, "row": place.row.name, "checkpoint": place.label, **place.feeds, "mlflow.runColor": place.colour,
            "feeds": "; ".join(f"{item} {name}" for item, name in place.feeds.items())}
    path = (place.path.parent if kind == "evaluation" else place.path).as_posix()
    return Tracked(f"{path}@invented", path, place.name, now - 1000, now, tags=said, params=settings, points=points)
