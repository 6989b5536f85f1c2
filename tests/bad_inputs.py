"""Bad inputs, each tried on a command of a finished chain: none may end in a traceback, hang, or be taken without a word.

Not one of the tests, which are shorter: `python tests/bad_inputs.py [FOLDER] [WORD ...]` makes a small chain in FOLDER (none: a
temporary one), or takes the one that it made there before. It tries every case whose name has one of the WORDs (none: all) on a
fresh copy of the chain, in a process of its own, and prints how many ended how, by group. It ends with 1 unless all are clear.
"""

import json
import logging
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "10000", "TERMINAL_WIDTH": "10000", "MPLBACKEND": "agg", "TERM": "dumb"}
sys.path.insert(0, str(Path(__file__).parent.parent))              # the package beside these tests

from spoilt import cases, chain
from spoilt.case import Case
from typer.testing import CliRunner

SECONDS, MEMORY = 60, 8 * 2**30          # of a call, at most
OUTCOMES = ("clear", "unclear", "silent", "traceback", "hang", "died", "lost")
MEANING = """\
clear: refused with one message that names the file, the option or the key; or read rightly, where it can be
unclear: one message, without that name, or a refusal of what can be read
silent: accepted; lost: a file that was there is not, or was changed"""


class Ended(NamedTuple):
    """How a call ended: its exit code, what it said, and its traceback, if any."""

    code: int
    said: str
    traceback: str = ""


def apart(work: Callable[[], object]) -> int:
    """Do it in a process of its own, with so much MEMORY; the number of the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    try:
        os.killpg(child, signal.SIGKILL)                           # what it started and left
    except ProcessLookupError:
        pass
    if os.WEXITSTATUS(status):
        sys.exit("this script itself is wrong")
    return os.WTERMSIG(status)


def run(words: str, home: Path) -> Ended:
    """`restok WORDS`, or another command, in the folder `home`; a hang ends the process."""
    os.chdir(home)
    signal.alarm(SECONDS)
    ended = planned(words) if words.startswith("snakemake") else called(words)
    signal.alarm(0)
    return ended


def called(words: str) -> Ended:
    from restok.cli import app
    result = CliRunner().invoke(app, shlex.split(words))
    logging.getLogger().handlers.clear()                           # which write into what the runner has closed
    crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
    return Ended(result.exit_code, result.output, repr(result.exception) if crashed else "")


def planned(words: str) -> Ended:
    """By Snakemake, whose whole output is its message."""
    done = subprocess.run([sys.executable, "-m", *shlex.split(words)], capture_output=True, text=True)
    return Ended(done.returncode, f"error: Snakemake: {done.stdout}{done.stderr}")


def judged(case: Case, ended: Ended, made: list[str], lost: list[str]) -> str:
    """One of OUTCOMES, but for those that end the process."""
    if ended.traceback or "Traceback (most recent" in ended.said:
        return "traceback"
    if lost:
        return "lost"
    said = " ".join(ended.said.replace("│", " ").split())
    if case.read:
        return "clear" if ended.code == 0 and re.search(case.named, f"{said} made: {' '.join(made)}") else "unclear"
    if ended.code == 0:
        return "silent"
    messages = re.findall(r"error: \w+:|─ Error ─", said)
    _, _, message = said.partition(messages[0]) if messages else ("", "", "")
    return "clear" if len(messages) == 1 and re.search(case.named, message) else "unclear"


def files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """By their places below a folder, what tells whether files were touched. What a call notes for itself is none of them."""
    found = {path.relative_to(folder).as_posix(): path.lstat() for path in folder.rglob("*")
             if not path.name.endswith(".lock") and path.name != "calls.json"}
    return {name: (about.st_ino, about.st_size, about.st_mtime_ns) for name, about in found.items() if not Path(
        folder, name).is_dir()}


def tried(case: Case, scratch: Path) -> tuple[str, Ended]:
    """A case on a copy of the chain, whose files are the chain's own until the case replaces them."""
    home = scratch / "home"
    os.chdir(scratch)
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(scratch / "chain", home, copy_function=os.link, symlinks=True)
    case.spoil(home)
    before = files(home)
    ended = run(case.words, home)
    after = files(home)
    lost = [] if case.read else [name for name, about in before.items() if after.get(name) != about]
    return judged(case, ended, sorted(after.keys() - before.keys()), lost), ended


def outcomes(listed: list[Case], scratch: Path) -> Iterator[tuple[Case, str, Ended | None]]:
    """Try one case after the other in one process. Where a case hangs or kills it, another process goes on after that case."""
    answers, done = scratch / "answers", 0
    while done < len(listed):
        answers.write_text("")

        def try_all(rest: list[Case] = listed[done:]) -> None:
            with answers.open("a") as file:
                for case in rest:
                    print(json.dumps(tried(case, scratch)), file=file, flush=True)

        killed_by = apart(try_all)
        for outcome, ended in map(json.loads, answers.read_text().splitlines()):
            yield listed[done], outcome, Ended(*ended)
            done += 1
        if killed_by:
            yield listed[done], "hang" if killed_by == signal.SIGALRM else "died", None
            done += 1


def imported() -> None:
    """Load all that a command may need, once for all processes."""
    import pkgutil
    from importlib import import_module

    import matplotlib.pyplot  # noqa: F401
    import sklearn.datasets
    import sklearn.model_selection  # noqa: F401

    import restok
    for module in pkgutil.walk_packages(restok.__path__, "restok."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def make_chain(home: Path) -> None:
    def sound(words: str) -> None:
        ended = run(words, home)
        if ended.code:
            raise AssertionError(f"the chain itself failed: restok {words}: {ended}")

    if apart(lambda: chain.build(home, sound)):
        sys.exit("the chain itself was not made")


def table(groups: dict[str, Counter]) -> Iterator[str]:
    """In Markdown: a group a row, an outcome a column."""
    rows = [(name, counts.total(), *(counts[outcome] for outcome in OUTCOMES)) for name, counts in groups.items()]
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    yield f"| bad inputs | tried | {' | '.join(OUTCOMES)} |"
    yield f"|---|{'---:|' * (len(OUTCOMES) + 1)}"
    for name, *counts in rows:
        yield f"| {name} | {' | '.join(map(str, counts))} |"


def main(folder: str | None = None, *words: str) -> int:
    scratch, groups, since = Path(folder or tempfile.mkdtemp()).absolute(), {}, time.perf_counter()
    imported()
    if not (scratch / "chain").exists():
        make_chain(scratch / "chain")
    print(f"the chain was made in {time.perf_counter() - since:.0f} s", flush=True)
    sound = files(scratch / "chain")
    for group, listed in cases.GROUPS.items():
        listed = [case for case in listed if not words or any(word in f"{group}: {case.name}" for word in words)]
        counts = Counter()
        for case, outcome, ended in outcomes(listed, scratch):
            counts[outcome] += 1
            if outcome != "clear":
                print(f"{outcome}: {group}: {case.name}\n  restok {case.words}\n  wanted: {case.named}\n  {ended}", flush=True)
        groups |= {group: counts} if listed else {}
    assert files(scratch / "chain") == sound, "a command wrote into a file that stood there"
    print("\n".join([*table(groups), MEANING, f"{time.perf_counter() - since:.0f} s"]))
    if folder is None:
        shutil.rmtree(scratch)
    return int(any(set(counts) - {"clear"} for counts in groups.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
