"""The `restok` command: one verb a step of the chain. Heavy imports wait until a verb runs."""

import sys
from pathlib import Path

from restok import signals

# The command itself, and no program that imports it, nor a process that the command starts.
if Path(sys.argv[0]).name == "restok" and "--multiprocessing-fork" not in sys.orig_argv:
    signals.install()

from restok.cli import (  # each registers its verbs
    artifacts,
    before,
    chain,
    comparing,
    evaluate,
    images,
    progress,
    provenance,
    released,
    reports,
    tracking,
)
from restok.cli.base import app

__all__ = ["app", "artifacts", "before", "chain", "comparing", "evaluate", "images", "progress", "provenance", "released",
           "reports", "tracking"]
