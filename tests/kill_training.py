"""Kills trainings at random moments, and compares what they end in with one that was left alone.

python tests/kill_training.py FOLDER --kills 100 --seed 0

FOLDER is a finished chain of params/short.yaml, results/short after `make short`: its images and its classifier are read.
"""

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parent.parent


def killed(train: Callable[[Path], None], folder: Path, kills: int, longest: float, random: Random) -> list[Path]:
    """Run `train` in a process after another, each sent SIGKILL up to `longest` seconds after its start, until so many were;
    then let it finish. One that finishes before is followed by another, in a folder of its own. Returns the folders."""
    context, folders, done = multiprocessing.get_context("fork"), [folder / "0"], 0
    while True:
        process = context.Process(target=train, args=(folders[-1],))
        process.start()
        process.join(random.uniform(0, longest) if done < kills else None)
        process.kill()
        process.join()
        if process.exitcode == 0 and done == kills:
            return folders
        if process.exitcode == 0:
            folders.append(folder / str(len(folders)))
        elif process.exitcode > 0:
            raise RuntimeError(f"after {done} kills the training failed")
        else:
            done += 1


def digest(tree: Any) -> str:
    """A sha256 of all numbers of a state and their names. Its file may differ in how it refers to names that it repeats."""
    if isinstance(tree, dict):
        words = [f"{name}={digest(value)}" for name, value in tree.items()]
    elif isinstance(tree, list | tuple):
        words = [digest(value) for value in tree]
    else:
        words = [tree.numpy().tobytes().hex() if hasattr(tree, "numpy") else repr(tree)]
    return sha256(" ".join(words).encode()).hexdigest()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--longest", type=float, default=4.0, help="seconds that a process lives at most")
    given = options.parse_args()

    from restok.config.load import load_params
    from restok.distributed import use_threads
    from restok.files import sha256_file
    from restok.training.state import load_state
    from restok.training.tokenizer import train_tokenizer

    params = load_params(ROOT / "params/short.yaml", ["tokenizer_training.checkpoints={750k: 120}",
                                                      "tokenizer_training.save_every=5", "tokenizer_training.log_every=5"])
    use_threads(params.threads)

    def train(folder: Path) -> None:
        data, classifier = (given.folder / name for name in ("data", "classifier"))
        train_tokenizer(params, "750k", data, classifier, None, folder / "run", folder / "out")

    work, began = Path(tempfile.mkdtemp(prefix="kill_training.")), time.monotonic()
    train(work / "whole")
    ends = killed(train, work / "killed", given.kills, given.longest, Random(given.seed))
    outs = [folder / "out" for folder in (work / "whole", *ends)]
    weights = {sha256_file(out / "model.safetensors") for out in outs}
    states = {digest(load_state(out / "state.pt")) for out in outs}
    left = [path for folder in ends for path in folder.rglob("*.partial*")]
    print(f"{given.kills} kills, {len(ends)} trainings, {time.monotonic() - began:.0f} s: {len(weights)} different weights, "
          f"{len(states)} different states, {len(left)} unfinished files left")
    shutil.rmtree(work)
    raise SystemExit(len(weights) + len(states) > 2 or bool(left))


if __name__ == "__main__":
    main()
