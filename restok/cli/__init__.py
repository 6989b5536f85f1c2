"""The `restok` command: one verb a step of the chain. Heavy imports wait until a verb runs."""

from restok.cli import chain, evaluate, images, released, reports  # each registers its verbs
from restok.cli.base import app

__all__ = ["app", "chain", "evaluate", "images", "released", "reports"]
