"""`restok sync`: results that DVC brought are made known to Snakemake, which tells by the times of files what to make again.

DVC keeps no times. Where each file is the one that dvc.lock records, and the settings are those that it was made with, all
times are set in the order of the chain, and the settings are written down as those of the results.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from restok.config.load import load_choice, load_params
from restok.config.text import read_yaml
from restok.dvc import ask
from restok.errors import RestokError
from restok.experiments import Tree, artifacts, load_sheet
from restok.experiments.places import STAGES
from restok.files import atomic_file

LOCK = Path("dvc.lock")
TARGETS = *artifacts.PHASES, "reports"
SHOWN = 10                  # faults of a kind that are named, each


class SyncError(RestokError):
    """Why what lies here cannot be taken for what dvc.lock records."""


def sync(say: Callable[[str], None]) -> None:
    """In the root of a clone, of the run that run.yaml chooses. Raises SyncError."""
    choice = load_choice()
    if not LOCK.exists():
        raise SyncError(f"{LOCK}: not here, so nothing was recorded; `dvc repro` writes it")
    recorded = _recorded(choice.run)
    away = require_clean(choice.run, recorded)
    file = f"params/{choice.run}.yaml"
    tree, params = Tree(Path("results", choice.run), load_sheet(file)), load_params(file)
    results = artifacts.results(tree, params, choice.rows)
    reports = artifacts.reports(tree, params, Path("reports", choice.run))
    here = [path for path in (*artifacts.results(tree, params, "all"), *reports) if path.exists()]
    if not here:
        raise SyncError(f"results/{choice.run}: nothing of it is here; `dvc pull` brings it")
    if partly := [path for path in here if any(file.startswith(f"{path}/") for file in away)]:
        raise SyncError("\n".join(f"{path}: some of its files are not here; `dvc pull {path}` brings them" for path in partly))
    freed = [path for path in here if _unlink(path)]
    _snakemake(here, "--touch", "--forceall")
    if "Nothing to be done" not in (plan := _snakemake(here, "--dry-run")):
        raise SyncError(f"Snakemake would still make some of it again:\n{plan.strip()}")
    _report(choice.run, recorded, results, reports, freed, say)


def require_clean(run: str, recorded: dict[str, Any]) -> list[str]:
    """Raises SyncError where a file, a setting or a command of a run is another than dvc.lock records. Returns the files that
    are not here: after a partial pull most are not."""
    if missing := [phase for phase in TARGETS if f"{phase}@{run}" not in recorded]:
        raise SyncError(f"{LOCK}: has no record of {', '.join(missing)} of {run}; `dvc repro` makes them, and "
                        "`git pull` brings the lock of somebody who did")
    files = ask("data", "status", "--granular").get("uncommitted", {})
    renamed = [pair.get("new", "?") for pair in files.get("renamed", ()) if isinstance(pair, dict)]
    faults = _lines("is not the file that dvc.lock records; `dvc checkout --force` puts that back, `dvc commit` records this "
                    "one", _files([*files.get("modified", ()), *files.get("unknown", ())], run))
    faults += _lines("is not in dvc.lock; move it elsewhere, or `dvc commit` records it, too",
                     _files([*files.get("added", ()), *renamed], run))
    kept = tuple(out["path"] for stage in recorded.values() for out in stage.get("outs", ()))
    for stage, changes in ask("status").items():
        if stage.endswith(f"@{run}"):
            faults += _stage(stage, changes, kept)
    if faults:
        raise SyncError("\n".join(faults))
    return _files(files.get("deleted", ()), run)


def _stage(stage: str, changes: Iterable[Any], kept: tuple[str, ...]) -> Iterator[str]:
    """What else than its files sets a stage apart from its record."""
    for change in changes:
        if change == "changed command":
            yield f"dvc.yaml: the command of {stage} is not that of {LOCK}; `dvc repro {stage}` runs it"
        for path, what in change.get("changed deps", {}).items() if isinstance(change, dict) else ():
            if isinstance(what, dict):
                keys = ", ".join(f"{key} {how}" for key, how in what.items() if how != "deleted" or Path(path).exists())
                if keys:
                    yield (f"{path}: {keys} since {stage} was made; `dvc repro {stage}` makes it anew, `git diff` shows what "
                           "changed")
            elif path not in kept:
                yield f"{path}: {what} since {stage} was made; `dvc repro {stage}` makes it anew"


def _recorded(run: str) -> dict[str, Any]:
    try:
        stages = read_yaml(LOCK.read_text(encoding="utf-8"))["stages"]
        return {name: dict(stage) for name, stage in stages.items() if name.endswith(f"@{run}")}
    except (RestokError, TypeError, KeyError, AttributeError, UnicodeDecodeError):
        raise SyncError(f"{LOCK}: cannot be read; `git checkout HEAD {LOCK}` brings back the last one") from None


def _files(paths: Iterable[str], run: str) -> list[str]:
    """Those of a run."""
    return sorted(path for path in paths if Path(path).parts[:2] in (("results", run), ("reports", run)) and path[-1] != "/")


def _lines(what: str, paths: list[str]) -> list[str]:
    more = [f"and {len(paths) - SHOWN} more files"] if len(paths) > SHOWN else []
    return [f"{path}: {what}" for path in paths[:SHOWN]] + more


def _snakemake(targets: Iterable[Path], *words: str) -> str:
    """What Snakemake says of targets. Without a profile: its parts would be taken for what results were made from."""
    plain = {name: value for name, value in os.environ.items() if name != "SNAKEMAKE_PROFILE"}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *words, "--", *map(str, targets)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    if done.returncode:
        raise SyncError(f"snakemake {' '.join(words)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout + done.stderr


def _unlink(path: Path) -> bool:
    """A result that is one file becomes a file of its own, where it is a link into DVC's cache: Snakemake makes no output again
    that may not be written."""
    if not path.is_file() or not (path.is_symlink() or path.stat().st_nlink > 1 or not os.access(path, os.W_OK)):
        return False
    with atomic_file(path) as partial:
        shutil.copyfile(path, partial)
    return True


def _report(run: str, recorded: dict[str, Any], results: dict[Path, str], reports: list[Path], freed: list[Path],
            say: Callable[[str], None]) -> None:
    """What was trusted, and why."""
    say(f"{LOCK} records what lies here, and the settings of params/{run}.yaml and its rows are those that it was made with. "
        "Taken over without being made again:")
    for phase in artifacts.PHASES:
        paths = [path for path, stage in results.items() if STAGES[stage].phase == phase]
        here = sum(path.exists() for path in paths)
        digests = ", ".join(f"{Path(out['path']).name} {out['md5'][:12]}" for out in recorded[f"{phase}@{run}"].get("outs", ()))
        say(f"  {phase}: {here} of {len(paths)} results{'' if here == len(paths) else ', the others are not here'} ({digests})")
    say(f"  reports: {sum(path.exists() for path in reports)} files")
    if freed:
        say(f"{len(freed)} files were links into DVC's cache and are copies now, so that they can be made again")
