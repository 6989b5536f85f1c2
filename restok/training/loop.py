"""The training of a model, from one checkpoint to the next: resumed, logged, saved on the way, written whole."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restok import config, signals
from restok.distributed import from_first, gathered, is_first, leaving, own_share, shared_errors
from restok.errors import RestokError
from restok.files import FileError, reserved, write_json
from restok.files.artifact import Origin, already_made, verify
from restok.files.run import keep
from restok.progress import track
from restok.training.compute import float32_products
from restok.training.log import Row, Tally, Watch, log_file
from restok.training.optim import Average, Updater
from restok.training.parallel import require_division
from restok.training.state import RunFolder, StateError, Stateful, load_state, save_state
from restok.weights import save_model

log = logging.getLogger("restok")


class Job(Stateful):
    """Everything that changes while a model trains, and the step that changes it."""

    on: torch.device
    average: Average                     # of the model's weights: what is written in the end
    step: Callable[[Any, int], dict[str, Tensor]]      # one update on a batch at a step from 0 on; named, detached losses
    measured: Callable[[], Row]          # what else the log says of the steps since the last row, on all processes the same


class LossError(RestokError):
    """A loss, or the weights after it, that is not finite; the message names it and the state that was kept."""


def train(build: Callable[[], Job], name: str, batches: Callable[[int], Iterator], steps: range, training: config.Training,
          run_folder: Path, origin: Origin, out: Path, facts: dict, previous: Path | None = None,
          keep_state: bool = False) -> None:
    """Train over `steps`, from where an unfinished run of this `origin` stopped, else from the checkpoint `previous`; a
    finished run is not trained again.

    `batches`: those from a step on. Writes `out`: the average of the weights, log.jsonl, metrics.json with `facts`, and, to go
    on from, state.pt where `keep_state`. Raises StateError, LossError, and FileError for an `out` that holds anything else.
    """
    require_division(f"{name.split()[0]}_training", training, own_share().parts)
    if from_first(lambda: already_made(out, origin)):
        return
    run, batch, micro = RunFolder(run_folder, origin.identity), training.batch_size, training.micro_batch or training.batch_size
    if is_first():
        log.info("%s: batches of %d, in micro-batches of %d, on %d process(es)", name, batch, micro, own_share().parts)

    def write(folder: Path | None) -> dict:
        job, first = build(), steps.start
        whole, model = sizes(job)
        from_first(lambda: run.require_space(out, whole, model + whole * keep_state))
        if found := from_first(run.newest):
            first, state = run.load(found)
            job.load_state_dict(state)
        elif previous:
            job.load_state_dict(_state_of(previous))
        with float32_products(training.tf32):
            last = _run(job, name, batches(first), first, steps, training, run)
        if folder:
            save_model(folder, job.average.module)
            if keep_state:
                save_state(folder / "state.pt", job.state_dict())
            shutil.copy(run.folder / "log.jsonl", folder)
            write_json(folder / "metrics.json", facts | {
                "step": steps.stop, "parameters": sum(p.numel() for p in job.average.parameters()), "device": str(job.on),
                "threads": torch.get_num_threads(), "processes": own_share().parts, "batch_size": batch,
                "micro_batch": micro, "torch": torch.__version__, "last": last})
        return {}

    with ExitStack() as held:
        with shared_errors():
            if is_first():
                held.enter_context(reserved(out))
                held.enter_context(run)
        finished = from_first(lambda: origin.made(run.finished))
        with shared_errors():
            if is_first():
                keep(run, out, origin, write)
            elif not finished:
                write(None)


def sizes(job: Job) -> tuple[int, int]:
    """Bytes of the state of a job that has not begun, with the two moments that AdamW will have, and of the finished model."""
    updates = [part for part in job.parts().values() if isinstance(part, Updater)]
    moments = sum(2 * parameter.nbytes for update in updates for parameter in update.parameters)
    return (sum(tensor.nbytes for _, tensor in _tensors(job.state_dict())) + moments,
            sum(tensor.nbytes for tensor in job.average.module.state_dict().values()))


def _state_of(previous: Path) -> dict:
    try:
        verify(previous, "state.pt", "model.safetensors", "config.json", "metrics.json")
        return load_state(previous / "state.pt")
    except (StateError, FileError) as error:
        raise StateError(f"{error}; delete {previous} and train that checkpoint again") from None


def _run(job: Job, name: str, batches: Iterator, first: int, steps: range, training: config.Training, run: RunFolder) -> dict:
    """Those of `steps` from the first on. Returns the last of the log's rows, of which there is one every `log_every` steps.
    Nothing is saved after a LossError, which a logged loss, or a state to be kept, raises where it is not finite. Of several
    processes the first one writes. Raises signals.Interrupted between two steps, when a state is saved."""
    signals.defer()
    last = steps.stop
    if leaving():
        raise _interrupted(f"before step {first + 1} of {last}")
    row, tally, watch = {}, Tally(job.on, first, training.batch_size), Watch(training.optimizer.warmup_steps)
    with log_file(run.folder / "log.jsonl", first) as write:
        left = range(first, last)
        for step in track(left, name, len(steps), "steps", before=first - steps.start) if is_first() else left:
            losses = job.step(tally.next(batches), step)
            tally.add(losses)
            done, stop = step + 1, leaving()
            saving = (stop or done % training.save_every == 0) and done < last
            if done % training.log_every == 0 or saving or done == last:
                row = tally.row(done, job.measured)
                if bad := [key for key, value in row.items() if not isfinite(value)]:
                    raise _loss_error(f"loss {', '.join(bad)} is not finite within the steps before {done}", run)
                write(row)
                if is_first():
                    means = ", ".join(f"{key} {row[key]:.4g}" for key in losses)
                    log.info("%s %d/%d: %s", name, done, last, means)
                    for warning in watch.see(row):
                        log.warning("%s %d/%d: %s", name, done, last, warning)
            if saving or done == last:
                with shared_errors():
                    if is_first():
                        _keep_state(job, done, run, saving)
                tally.start()
            if stop and saving:
                raise _interrupted(f"after step {done} of {last}, whose state is saved in {run.folder}")
    return row


def _interrupted(where: str) -> signals.Interrupted:
    name = next(name for name in gathered(signals.asked()) if name)
    return signals.Interrupted(f"by {name} {where}; the same command goes on from there")


def _keep_state(job: Job, done: int, run: RunFolder, saving: bool) -> None:
    state = job.state_dict()
    if bad := [key for key, tensor in _tensors(state) if not tensor.isfinite().all()]:     # though no loss was
        raise _loss_error(f"after step {done}, {bad[0]} is not finite", run)
    if saving:
        run.save(done, state)


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _loss_error(what: str, run: RunFolder) -> LossError:
    kept = next(iter(run.states()), None)
    where = f"the last good state is {kept}" if kept else "no state of this stage was saved yet; the one before is untouched"
    return LossError(f"{what}; {where}. A lower learning rate or a higher precision may help; with changed settings the stage "
                     "starts again, unchanged it resumes.")
