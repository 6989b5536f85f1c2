"""Snakemake in a process of its own, forked from one that has imported it: a dry run takes one second instead of four."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from warm_commands import PRELOADED

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED["snakemake"])


def snakemake(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What `snakemake WORDS` says and leaves, called in a folder; its jobs find this environment's commands."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE_")}
    env["PATH"] = f"{env.get('FIRST', '')}{Path(sys.executable).parent}:{env['PATH']}"
    with tempfile.TemporaryDirectory() as said:
        streams = [Path(said, name) for name in ("stdout", "stderr")]
        process = CONTEXT.Process(target=_main, args=(words, cwd, env, streams))
        process.start()
        process.join()
        return subprocess.CompletedProcess(["snakemake", *words], process.exitcode, *(path.read_text() for path in streams))


def _main(words: tuple[str, ...], cwd: Path, env: dict[str, str], streams: list[Path]) -> None:
    assert set(PRELOADED["snakemake"]) <= sys.modules.keys()                  # what it cannot import the server passes over
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in ((1, streams[0]), (2, streams[1])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    from snakemake.cli import main
    sys.argv = ["snakemake", *words]
    main(sys.argv[1:])
