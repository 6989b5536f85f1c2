"""The training loop that the tokenizer, the generator and the demo's classifier share."""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor

from restok import config
from restok.errors import RestokError
from restok.files import atomic_file
from restok.progress import track
from restok.training.state import RunFolder

log = logging.getLogger("restok")


@runtime_checkable
class Job(Protocol):
    def step(self, batch: Any, step: int) -> dict[str, Tensor]:
        """One update from step `step` (counted from 0); returns named, detached losses."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


class LossError(RestokError):
    """A loss, or the weights after it, that is not finite; the message names it and the state that was kept."""


def autocast(precision: str, on: torch.device) -> torch.autocast:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(on.type, dtype=dtype, enabled=precision != "fp32")


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step, a function of (seed, step) alone: resuming needs no generator state."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def train(job: Job, batches: Iterator, first: int, last: int, training: config.Training, run: RunFolder,
          name: str) -> list[dict]:
    """Steps first .. last - 1, logged and saved on the way. Returns the log's rows, one every `log_every` steps.

    `batches` starts at `first`. Raises LossError as soon as a logged loss, or a state to be kept, is not finite; nothing is
    saved after that.
    """
    rows = _resume_log(run.folder / "log.jsonl", first)
    sums, since = {}, time.perf_counter()
    with (run.folder / "log.jsonl").open("a") as file:
        for step in track(range(first, last), name, total=last - first):
            losses = job.step(next(batches), step)
            sums = {key: sums[key] + value if key in sums else value for key, value in losses.items()}
            done, saving = step + 1, (step + 1) % training.save_every == 0 and step + 1 < last
            if done % training.log_every == 0 or saving or done == last:
                count = done - (rows[-1]["step"] if rows and rows[-1]["step"] > first else first)
                means = {key: float(value) / count for key, value in sums.items()}
                _check_finite(means, done, run)
                rate = count / (time.perf_counter() - since)
                rows.append({"step": done, **means, "steps_per_second": round(rate, 3)})
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                log.info("%s %d/%d: %s", name, done, last, ", ".join(f"{k} {v:.4g}" for k, v in means.items()))
                sums, since = {}, time.perf_counter()
            if saving or done == last:
                _check_state(state := job.state_dict(), done, run)
                if saving:
                    run.save(done, state)
    return rows


def _check_finite(means: dict[str, float], step: int, run: RunFolder) -> None:
    bad = [name for name, value in means.items() if not abs(value) < float("inf")]
    if bad:
        _refuse(f"loss {', '.join(bad)} is not finite within the steps before {step}", run)


def _check_state(state: dict, step: int, run: RunFolder) -> None:
    """A last update can spoil the weights when its loss was still finite."""
    bad = [name for name, tensor in _tensors(state) if not tensor.isfinite().all()]
    if bad:
        _refuse(f"after step {step}, {bad[0]} is not finite", run)


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _refuse(what: str, run: RunFolder) -> NoReturn:
    kept = next(iter(run.states()), None)
    where = f"the last good state is {kept}" if kept else "no state of this stage was saved yet; the one before is untouched"
    raise LossError(f"{what}; {where}. A lower learning rate or a higher precision may help; with changed settings the stage "
                    "starts again, unchanged it resumes.")


def _resume_log(path: Path, step: int) -> list[dict]:
    """The rows, one JSON object a line, up to the step that a run resumes from; the log keeps no others."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:              # the line a killed run was writing
            break
    rows = [row for row in rows if row["step"] <= step]
    with atomic_file(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows
