"""What the log of a training costs.

Not one of the tests: `python tests/log_cost.py [PARAMS] [STEPS]` trains the tokenizer and the generator of a parameter file
whose networks are all `digits` (none: params/demo.yaml) on noise. Of two steps one is measured, the other not. It prints the
medians of both, of what the calls that measure take by themselves, and of a row, and what the last two add to a step where
there is a row every `log_every` steps. On a CPU times are those that the process computed, whatever else
the machine does.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from statistics import median
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent))              # the package beside these tests

import torch

from restok import config
from restok.config.load import load_params
from restok.distributed import device
from restok.networks.classifier import SmallClassifier
from restok.training.generator import GeneratorJob
from restok.training.log import CodebookUse, Tally, Watch, log_file
from restok.training.loop import Job
from restok.training.optim import Updater
from restok.training.tokenizer import TokenizerJob

MEASURING = (Updater, "measure"), (CodebookUse, "add"), (Tally, "add"), (Tally, "next")


def seconds(work: Callable[[], object], on: torch.device) -> float:
    clock = time.perf_counter if on.type == "cuda" else time.process_time
    began = clock()
    work()
    if on.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


@contextmanager
def timed(on: torch.device) -> Iterator[list[float]]:
    """The seconds of each call that measures something meanwhile."""
    taken = []

    def wrapped(call: Callable) -> Callable:
        def run(*arguments: object) -> object:
            results = []
            taken.append(seconds(lambda: results.append(call(*arguments)), on))
            return results[0]
        return run

    with ExitStack() as patches:
        for owner, name in MEASURING:
            patches.enter_context(patch.object(owner, name, wrapped(getattr(owner, name))))
        yield taken


def cost(name: str, job: Job, batch: tuple, first: int, steps: int, training: config.Training, folder: Path) -> None:
    on, watch, batches, times = job.on, Watch(0), repeat(batch), []
    tally = Tally(on, 0, training.batch_size)

    def step() -> None:
        tally.add(job.step(tally.next(batches), first))

    def row(done: int) -> None:
        found = tally.row(done, job.measured)
        write(found)
        watch.see(found)

    with log_file(folder / "log.jsonl", 0) as write:
        for done in range(1, steps + 5):
            with patch.object(Updater, "measure", lambda *_: None), patch.object(CodebookUse, "add", lambda *_: None):
                plain = seconds(lambda: job.step(batch, first), on)
            measured = seconds(step, on)
            with timed(on) as taken:
                step()
            times.append((plain, measured, sum(taken), seconds(partial(row, done), on)))
    plain, measured, calls, rows = (1e3 * median(column) for column in zip(*times[4:], strict=True))    # the first ones warm up
    print(f"{name}: a step of {plain:.2f} ms takes {measured:.2f} ms when it is measured; the calls that measure take "
          f"{calls:.3f} ms, a row every {training.log_every} steps {rows:.3f} ms: "
          f"{(calls + rows / training.log_every) / plain:.2%}")


def main(path: str = "params/demo.yaml", steps: str = "100") -> None:
    params, on = load_params(path), device()
    torch.set_num_threads(params.threads)
    side, generator = params.tokenizer.image_size, params.generator
    with tempfile.TemporaryDirectory() as scratch:
        SmallClassifier(generator.classes, params.classifier.channels).save(Path(scratch, "classifier"))
        images = torch.rand(params.tokenizer_training.batch_size, 3, side, side), None
        cost("tokenizer", TokenizerJob(params, Path(scratch, "classifier"), on), images, params.objective.discriminator.start,
             int(steps), params.tokenizer_training, Path(scratch))
        rows = params.generator_training.batch_size
        codes = torch.randint(generator.codebook_size, (rows, generator.tokens)), torch.arange(rows) % generator.classes
        cost("generator", GeneratorJob(params, on), codes, 0, int(steps), params.generator_training, Path(scratch))


if __name__ == "__main__":
    main(*sys.argv[1:])
