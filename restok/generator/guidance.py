"""Classifier-free guidance over the steps of one image (Table 6). No tensors: the workflow imports this."""

from collections.abc import Sequence
from math import cos, pi

from restok.config import Guidance


def guidance_scales(guidance: Guidance, groups: Sequence[int]) -> tuple[float, ...]:
    """The scale s of each step in logits = u + s (c - u), for steps that draw `groups` tokens.

    The ratio of step t of T is t / (T - 1), always; over 'tokens', the tokens drawn before the step, of those drawn before the
    last one. constant: the largest throughout. linear: from 1 to the largest. cosine: the same along half a cosine, slow at
    both ends. step: 1 before the start ratio, the largest from there on.
    """
    before = [sum(groups[:t]) if guidance.over == "tokens" else t for t in range(len(groups))]
    ratios = [b / max(before[-1], 1) for b in before]
    rise = guidance.scale - 1
    shapes = {
        "constant": lambda r: guidance.scale,
        "linear": lambda r: 1 + rise * r,
        "cosine": lambda r: 1 + rise * (1 - cos(pi * r)) / 2,
        "step": lambda r: guidance.scale if r >= guidance.start else 1.0,
    }
    return tuple(shapes[guidance.schedule](r) for r in ratios)
