"""DVC, asked by its own command."""

import json
import os
import subprocess
import sys
from typing import Any

from restok.errors import RestokError

LINKS = {"hardlink", "symlink"}


class DvcError(RestokError):
    """What DVC refuses, or what it cannot do as it is set up."""


def ask(*words: str) -> dict[str, Any]:
    """What `dvc WORDS --json` says of the clone in this folder. Raises DvcError with DVC's own message."""
    return json.loads(_dvc(*words, "--json") or "{}")


def require_times_kept() -> None:
    """Within a stage that `dvc repro` runs: raises DvcError where its outputs have new times. Of outputs that are links into
    its cache, DVC makes copies before a stage runs, and Snakemake would take what is old for new."""
    if os.environ.get("DVC_STAGE") and (links := LINKS & {kind.strip() for kind in _cache_types().split(",")}):
        raise DvcError(f"cache.type: with {' and '.join(sorted(links))}, `dvc repro` gives all outputs of a stage new times, "
                       "by which Snakemake tells what is old; call `snakemake` with the same target and then `dvc commit` and "
                       "`restok sync`, or `dvc config --local cache.type reflink,copy` and `dvc checkout --relink`")


def _cache_types() -> str:
    try:
        return _dvc("config", "cache.type")
    except DvcError:                     # it is not set
        return ""


def _dvc(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DvcError(f"dvc {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
