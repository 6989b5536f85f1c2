"""How a step is computed. Nothing here changes a result by more than rounding, or the name of a weight."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from restok import config
from restok.nn.blocks import Block, LlamaBlock

REGIONS = {Block: ("attend", "transform"), LlamaBlock: ("forward",)}      # what of a block is treated as one
VARIANTS = 32            # of a region: sequences of the scales, with gradients and without; more are an error of torch's


def autocast(precision: str, on: torch.device) -> torch.autocast:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(on.type, dtype=dtype, enabled=precision != "fp32")


@contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Of matrices and in convolutions, on GPUs: as written, or in TF32. Elsewhere it changes nothing."""
    if not torch.cuda.is_available():
        yield
        return
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with cudnn.flags(enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=tf32):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def channels_last(*networks: nn.Module) -> None:
    """Let images go through convolutional networks with their channels side by side; weights stay as they are."""
    def laid_out(network: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x.contiguous(memory_format=torch.channels_last) for x in images)

    for network in networks:
        network.register_forward_pre_hook(laid_out)


def arrange(model: nn.Module, training: config.Training) -> None:
    """Let the transformer blocks of a model compute as the settings say: call it before the model is wrapped, and after it is
    copied."""
    if not (training.compile or training.checkpointing):
        return
    if training.compile:
        from torch._dynamo import config as compiler  # 2 s
        compiler.recompile_limit = VARIANTS
        compiler.optimize_ddp = False                    # it cuts graphs in pieces, to send gradients early: blocks are pieces
    for block in model.modules():
        for name in REGIONS.get(type(block), ()):
            run = getattr(block, name)
            if training.compile:
                run = torch.compile(run, fullgraph=True, dynamic=False, options={"fallback_random": True})   # the same dropout
            if training.checkpointing:
                run = partial(checkpoint, run, use_reentrant=False)
            setattr(block, name, run)
