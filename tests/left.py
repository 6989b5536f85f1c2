"""Copies of this clone with what `make short` left in it: what takes minutes to make is made once."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT


def tracked(folder: Path) -> Path:
    """The files that Git knows, as they are here."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def made(folder: Path, *names: str) -> None:
    """What was made under these names or patterns, with the workflow's records of it. Fails where nothing was."""
    for name in (*names, ".snakemake/metadata"):
        if not (found := [path.relative_to(ROOT) for path in ROOT.glob(name)]):
            pytest.fail(f"{name}: is not here; `make short` makes it", pytrace=False)
        subprocess.run(["cp", "-a", "--parents", *found, folder], cwd=ROOT, check=True)
