"""What a verb prints may be read by a program that has soon seen enough: `restok provenance FILE --json | head`."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from restok.cli.base import UNREAD
from restok.files import write_json

VERB = """
import sys
from restok.cli.base import app, output, verb
from restok.files import FileError

@verb
def many() -> None:
    "Many lines at once."
    print("line\\n" * 100_000)

@verb
def few() -> None:
    "One line, which Python keeps until the end."
    print("line")

@verb
def pictured() -> None:
    "By rich."
    for _ in range(1000):
        output().print("line\\n" * 100)

@verb
def another() -> None:
    "A pipe of its own."
    raise BrokenPipeError(32, "Broken pipe", "a pipe")

app([sys.argv[1]])
"""


def left(verb: str) -> subprocess.CompletedProcess[str]:
    """A verb whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run([sys.executable, "-c", VERB, verb], stdout=writer, stderr=subprocess.PIPE, text=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})
    finally:
        os.close(writer)


@pytest.mark.parametrize("verb", ["many", "few", "pictured"])
def test_a_reader_that_has_seen_enough_is_no_error(verb):
    done = left(verb)
    assert (done.returncode, done.stderr) == (UNREAD, "")


def test_another_pipe_is_an_error_as_ever():
    done = subprocess.run([sys.executable, "-c", VERB, "another"], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and "BrokenPipeError" in done.stderr


def test_the_code_is_that_of_programs_which_such_a_pipe_ends():
    done = subprocess.run(["bash", "-c", "set -o pipefail; yes | true"])
    assert done.returncode == UNREAD == 141


def test_provenance_into_head(tmp_path):
    write_json(tmp_path / "a.json", {"kind": "evaluation", "inputs": {}, "n": list(range(50_000))})
    line = f"set -o pipefail; {sys.executable} -c 'from restok.cli import app; app()' provenance a.json --json | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.stdout == "{\n" and "BrokenPipe" not in done.stderr, (done.stderr, json.dumps(done.returncode))
