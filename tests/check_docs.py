"""The commands on the pages, typed into a shell, page by page, in a copy of this clone with what `make short` made there; and
what commands say that are marked as needing more. Not one of the tests, since it takes minutes: `make commands` runs it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import given
import left
import pytest
from pages import PAGES, Command, commands, name_of

BIN = Path(sys.executable).parent
RUN = Path(os.environ.get("RESTOK_PARAMS", "params/short.yaml")).stem
# Nothing from elsewhere, and no GPU. The workflow's mirror of what it does would still be at work when the copy is removed.
NOWHERE = "http://127.0.0.1:9"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE_", "SLURM_", "DVC_"))} | {
    "PATH": f"{os.environ.get('FIRST', '')}{BIN}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "-1", "RESTOK_TRACKING": "off",
    "http_proxy": NOWHERE, "https_proxy": NOWHERE, "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE}
LISTED = [command for page in PAGES for command in commands(page)]
FIRST = {command.text: command.page for command in reversed(LISTED)}           # typed once, where it stands on several
TYPED = {page: [command for command in commands(page) if not command.needs and not command.elsewhere
                and ("$" in command.text or FIRST[command.text] == command.page)] for page in PAGES}
MARKED = list({command.text: command for command in LISTED if command.needs}.values())


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Path:
    """A copy of this clone with the run's results and the workflow's records of them. The caches of networks are empty."""
    folder = left.tracked(tmp_path_factory.mktemp("docs") / "clone")
    left.made(folder, f"results/{RUN}", f"reports/{RUN}", f"runs/{RUN}")
    given.replace(folder / "run.yaml", "run: demo", f"run: {RUN}")
    (folder / ".venv").symlink_to(BIN.parent)
    return folder


def typed(lines: list[str], folder: Path) -> subprocess.CompletedProcess:
    """By one shell, which stops at the first that fails. What it says ends with that line."""
    script = "".join(f"cat <<'LINE' >&2\n$ {line}\nLINE\n{line}\n" for line in lines)
    caches = {name: str(folder / "nothing") for name in ("TORCH_HOME", "HF_HOME")}
    return subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, text=True, stdin=subprocess.DEVNULL,
                          env=ENVIRONMENT | caches, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


# The longest first, so that two processes end together.
@pytest.mark.parametrize("page", sorted(filter(TYPED.get, PAGES), key=lambda page: -len(TYPED[page])), ids=name_of)
def test_commands_run(page, clone):
    prepare, words = given.PAGES.get(name_of(page), (given.nothing, {}))
    prepare(clone)
    text = page.read_text()
    lines = [command.text for command in TYPED[page]]
    for theirs, ours in words.items():
        assert theirs in text, f"the page says no more: {theirs}"
        lines = [line.replace(theirs, ours) for line in lines]
    done = typed([re.sub(r"\bdemo\b", RUN, line) for line in lines], clone)
    assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout[-4000:]


# What a command says where that is missing which its mark names.
MISSING = {"internet": r"cannot be downloaded|[Cc]onnect|not logged in|[Nn]etwork|login",
           "ImageNet": r"data/imagenet\b|ILSVRC2012",
           "a cluster": r"no sbatch|SLURM"}


def ways() -> dict[str, Callable[[Command, Path], None]]:
    return {"snakemake": planned, "restok": refused, "python": refused, "hf": refused}


@pytest.mark.parametrize("command", MARKED, ids=lambda command: f"{command.page}: {command.text}")
def test_marks_are_true(command, clone):
    """Of ours, and of what only leads to ours: other programs are not here, or ask for more than is."""
    assert subprocess.run(["bash", "-n", "-c", command.text]).returncode == 0
    first = command.text.split()[0]
    if command.needs != "a GPU" and first in ways():
        ways()[first](command, clone)


def planned(command: Command, clone: Path) -> None:
    given.released(clone)
    given.mine(clone)
    run = "imagenet256" if "mine" not in command.text else "mine"
    done = typed([f"{command.text} --dry-run --config run={run} rows=main"], clone)
    assert done.returncode == 0 and "This was a dry-run" in done.stdout, done.stdout[-2000:]


def refused(command: Command, clone: Path) -> None:
    done = typed([command.text], clone)
    assert done.returncode != 0 and re.search(MISSING[command.needs], done.stdout), done.stdout[-2000:]
    assert command.text.startswith("python") or "Traceback" not in done.stdout, done.stdout[-4000:]
