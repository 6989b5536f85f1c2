"""Sheets of a few rows beside the demo's parameters."""

import shutil
from pathlib import Path

from conftest import ROOT

from restok.experiments import load_sheet
from restok.experiments.trials import Sheet

TWO = ("main\tmain\t\ttable1; table6", "same\tmain\t\ttable10 HAR@750k",
       "short\tablation\tgenerator.ntp=all\ttable2 #1\t\t\t")


def rows(folder: Path, *lines: str) -> Sheet:
    """A sheet of these rows, read; its parameters are there, too."""
    shutil.copy(ROOT / "params/demo.yaml", folder)
    columns = "id\tbase\toverrides\tfeeds\tparams\ttokenizer\tgenerator\n"
    (folder / "experiments.tsv").write_text(columns + "".join(f"{line}\n" for line in lines))
    return load_sheet(folder / "demo.yaml")
