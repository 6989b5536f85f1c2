"""One batch over micro-batches and processes, so that what is computed does not depend on how many there are."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from inspect import signature
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from restok import config
from restok.config.load import ConfigError
from restok.distributed import own_share
from restok.parts import WHOLE


def require_division(key: str, training: config.Training, processes: int) -> None:
    """Raises ConfigError where a batch is not so many whole micro-batches on each process, with sizes that are."""
    batch, micro = training.batch_size, training.micro_batch or training.batch_size
    if batch % (micro * processes):
        fitting = [size for size in range(1, batch + 1) if batch % (size * processes) == 0]
        nearest = sorted(sorted(fitting, key=lambda size: abs(size - micro))[:3])
        remedy = (f"take {' or '.join(map(str, nearest))} for {key}.micro_batch" if nearest
                  else f"take a multiple of {processes} for {key}.batch_size, or fewer processes")
        raise ConfigError(f"{key}.micro_batch: batches of {batch} are no whole number of micro-batches of {micro} on "
                          f"{processes} process{'es' if processes > 1 else ''}; {remedy}")


def step_generator(seed: int, step: int, micro: int = 0) -> torch.Generator:
    """The randomness of one step, or of one of its micro-batches, a function of these numbers alone: resuming needs no
    generator state, and no process one of its own."""
    if not micro:
        return torch.Generator().manual_seed(seed * 1_000_003 + step)
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, step, micro)).generate_state(1, np.uint64)[0]))


def micro_batches(size: int | None, *parts: Tensor) -> list[tuple[Any, ...]]:
    """This process's part of a batch, cut into micro-batches, each with its number in the whole batch. None: one."""
    size = size or len(parts[0])
    cut = list(zip(*(part.split(size) for part in parts), strict=True))
    return [(own_share().part * len(cut) + i, *tensors) for i, tensors in enumerate(cut)]


def own_part(drawn: Tensor) -> Tensor:
    """Of what was drawn for a whole batch, what is this process's."""
    return drawn[slice(*own_share().bounds(len(drawn)))]


def replicated(module: nn.Module) -> nn.Module:
    """The module, whose gradients are averaged over the processes while they are computed; alone, the module itself. Its
    buffers are left alone: they are the same everywhere."""
    if own_share() == WHOLE:
        return module
    from torch.nn.parallel import DistributedDataParallel
    name = "forward_sync_buffers"                        # from torch 2.13 on
    unsynchronised = {name if name in signature(DistributedDataParallel).parameters else "broadcast_buffers": False}
    return DistributedDataParallel(module, gradient_as_bucket_view=True, **unsynchronised)


@contextmanager
def exchanging(module: nn.Module, last: bool) -> Iterator[None]:
    """Around forward and backward of a micro-batch: gradients go to the other processes with the last one alone."""
    with nullcontext() if last or own_share() == WHOLE else module.no_sync():
        yield


def averaged(value: Tensor) -> Tensor:
    """The mean over the processes."""
    if own_share() != WHOLE:
        value = value.clone()
        dist.all_reduce(value)
        value /= own_share().parts
    return value


def largest(value: Tensor) -> Tensor:
    """The maximum over the processes, element by element."""
    if own_share() != WHOLE:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def joined(part: Tensor) -> Tensor:
    """The whole batch, of which each process has a part."""
    if own_share() == WHOLE:
        return part
    parts = [torch.empty_like(part) for _ in range(own_share().parts)]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def from_first_micro_batch(rng: torch.Generator) -> torch.Generator:
    """The generator in the state in which the first micro-batch left it, which the first process has."""
    if own_share() != WHOLE:
        state = rng.get_state()
        on = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else state.device
        state = state.to(on)
        dist.broadcast(state, 0)
        rng.set_state(state.cpu())
    return rng
