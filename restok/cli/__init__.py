"""The `restok` command: one verb a step of the chain. Heavy imports wait until a verb runs."""

import gc
import sys
from pathlib import Path

from restok import signals

# The command itself, and no program that imports it, nor a process that the command starts.
if Path(sys.argv[0]).name == "restok" and "--multiprocessing-fork" not in sys.orig_argv:
    signals.install()
    gc.set_threshold(100_000)      # torch's import makes a million objects; to look for garbage among them takes time

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
