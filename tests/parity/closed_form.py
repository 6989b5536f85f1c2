"""Weights by formula: the parity fixtures hold names, shapes, inputs and outputs, and every tensor follows from its name."""

from math import pi, prod, sqrt
from zlib import crc32

import numpy as np

PERIOD = 1_000_003


def noise(name: str, count: int) -> np.ndarray:
    """2 frac(43758.5453123 sin(12.9898 i + phase)) - 1 for i = 1 .. count, in [-1, 1); the phase comes from the name."""
    x = np.arange(1, count + 1, dtype=np.float64)
    x *= 12.9898
    x += crc32(name.encode()) % PERIOD / PERIOD * 2 * pi
    np.sin(x, out=x)
    x *= 43758.5453123
    x -= np.floor(x)
    x *= 2
    x -= 1
    return x


def weight(name: str, shape: list[int]) -> np.ndarray:
    """Matrices of unit gain; multiplicative vectors (norms, layer scales) within 0.1 of 1; any other within 0.1 of 0."""
    x, leaf = noise(name, prod(shape)), name.split(".")[-1]
    multiplies = leaf.startswith("gamma") or (leaf == "weight" and ("norm" in name or "ln_" in name))
    inputs = prod(shape[1:])
    if len(shape) > 1 and shape[0] > 1 and inputs > 1:
        x *= sqrt(3 / inputs)
    elif len(shape) <= 1 and multiplies:
        x = 1 + 0.1 * x
    else:
        x *= 0.1
    return x.reshape(shape).astype(np.float32)


def state_dict(keys: dict[str, list[int]], scale: dict[str, float]) -> dict[str, np.ndarray]:
    """A tensor for each of `keys`, in float32 times the factor of each part of `scale` that its name contains."""
    tensors = {name: weight(name, shape) for name, shape in keys.items()}
    for part, factor in scale.items():
        tensors |= {name: tensor * np.float32(factor) for name, tensor in tensors.items() if part in name}
    return tensors
