"""What devices can do at the most, and what models ask of them."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

# Dense products in bf16 or fp16, in 10^12 operations a second, by the name that torch gives: NVIDIA's data sheets of the H100
# and H200 Tensor Core GPUs, which print twice as much, for sparse matrices.
TERAFLOPS = {"NVIDIA H100 80GB HBM3": 989.5, "NVIDIA H100 PCIe": 756.5, "NVIDIA H100 NVL": 835.5, "NVIDIA H200": 989.5,
             "NVIDIA H200 NVL": 835.5}
# In float32, without TF32, by the same sheets.
FLOAT32 = {"NVIDIA H100 80GB HBM3": 67, "NVIDIA H100 PCIe": 51, "NVIDIA H100 NVL": 60, "NVIDIA H200": 67, "NVIDIA H200 NVL": 60}


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations of a run: of products of matrices, of convolutions and of attention, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def share_of_peak(rate: float, dtype: str, device: str) -> float | None:
    """MFU: of so many operations a second, how much of what the device can do at the most. None where that is not known."""
    peak = {"bf16": TERAFLOPS, "fp16": TERAFLOPS, "fp32": FLOAT32}.get(dtype, {}).get(device)
    return rate / (1e12 * peak) if peak else None


def ran_out(run: Callable[[], object]) -> bool:
    """Whether the device has not the memory for a run."""
    try:
        run()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return True
    return False
