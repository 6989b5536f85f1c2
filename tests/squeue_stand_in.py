"""A stand-in for SLURM's squeue: it tells of the jobs that a test writes down, by the options and formats that restok uses."""

import json
import os
import sys
from pathlib import Path

SCRIPT = f"""\
#!{sys.executable} -S
import json, os, re, sys
jobs = json.load(open(__file__ + ".json"))
options = dict(word.partition("=")[::2] for word in sys.argv[1:])
assert "--noheader" in options and not [key for key in os.environ if key.startswith("SQUEUE_")], "presets change answers"
assert os.environ["SLURM_TIME_FORMAT"] == "%s"
if "--jobs" in options:
    jobs = [job for job in jobs if options["--jobs"] in (job["A"], job["i"].partition("_")[0])]
    if not jobs:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
if "--states" not in options:
    jobs = [job for job in jobs if job["T"] in ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING")]
for job in jobs:
    print(re.sub("%(.)", lambda field: job[field[1]], options["--format"]))
"""


def install(folder: Path, monkeypatch, script: str = SCRIPT, name: str = "squeue") -> Path:
    """Puts a script first in PATH."""
    file = folder / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(script)
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")
    return file


def job(number="71", state="RUNNING", started="N/A", name="", folder="", comment="(null)", index=None) -> dict[str, str]:
    """One job, by the letters of squeue's formats; `index` is what it shows for a job of an array."""
    return {"A": number, "T": state, "S": str(started), "i": index or number, "j": name, "Z": str(folder), "k": comment}


def tell(file: Path, *jobs: dict[str, str]) -> None:
    """What the stand-in tells from now on."""
    Path(f"{file}.json").write_text(json.dumps(jobs))
