"""Classifier-free guidance over the steps of one image (Table 6). No tensors: the workflow imports this."""

from math import cos, pi

from restok.config import Guidance


def guidance_scales(guidance: Guidance, steps: int) -> tuple[float, ...]:
    """The scale s of each step in logits = u + s (c - u); the ratio of step t is t / (steps - 1), always.

    constant: the largest throughout. linear: from 1 to the largest. cosine: the same along half a cosine, slow at both ends.
    step: 1 before the start ratio, the largest from there on.
    """
    ratios = [t / max(steps - 1, 1) for t in range(steps)]
    rise = guidance.scale - 1
    shapes = {
        "constant": lambda r: guidance.scale,
        "linear": lambda r: 1 + rise * r,
        "cosine": lambda r: 1 + rise * (1 - cos(pi * r)) / 2,
        "step": lambda r: guidance.scale if r >= guidance.start else 1.0,
    }
    return tuple(shapes[guidance.schedule](r) for r in ratios)
