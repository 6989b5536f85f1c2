"""generate(): codes from classes, one group a step, with a KV cache (Fig. 4)."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from restok.config import Guidance
from restok.generator.guidance import guidance_scales
from restok.generator.model import HAR
from restok.nn.finite import NotFiniteError, is_finite


def filter_logits(logits: Float[Tensor, "... k"], top_k: int, top_p: float) -> Float[Tensor, "... k"]:
    """Top-k, then top-p: all but the k largest, then all but the fewest that reach probability p, become -inf. 0 (and a p of
    1) is off, as the paper says; the largest logit always stays."""
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)
    if 0 < top_p < 1:
        values, order = logits.sort(dim=-1, descending=True)
        probabilities = values.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities                       # mass of what is larger
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits


def uniforms(seed: int, first: int, images: int, tokens: int) -> Float[Tensor, "b n"]:
    """One number in [0, 1) a token; image i's depend on (seed, first + i) alone, so not on batch size or device."""
    rows = [np.random.default_rng((seed, first + i)).random(tokens) for i in range(images)]
    return torch.from_numpy(np.stack(rows))


def draw(logits: Float[Tensor, "b g k"], u: Float[Tensor, "b g"]) -> Int[Tensor, "b g"]:
    """The token at which the cumulated probability, in float64, passes u."""
    cumulated = logits.double().softmax(-1).cumsum(-1)
    target = (u * cumulated[..., -1])[..., None]
    chosen = torch.searchsorted(cumulated, target, right=True).squeeze(-1)
    return chosen.clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def generate(generator: HAR, labels: Int[Tensor, " b"], guidance: Guidance | None = None, temperature: float = 1.0,
             top_k: int = 0, top_p: float = 0.0, greedy: bool = False, seed: int = 0, offset: int = 0) -> Int[Tensor, "b n"]:
    """Codes of one image a label. Image i draws from (seed, offset + i) alone. `guidance`: None is none.

    Raises ValueError for a label that is not a class, NotFiniteError for logits that are NaN or infinite.
    """
    config = generator.config
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < config.classes):
        raise ValueError(f"labels from {int(labels.min())} to {int(labels.max())}: expected classes 0 to {config.classes - 1}")
    scales = [1.0] * len(config.groups) if guidance is None else guidance_scales(guidance, config.groups)
    guided = any(scale != 1 for scale in scales)
    device = generator.head.weight.device
    labels = labels.to(device)
    rows = torch.cat([labels, torch.full_like(labels, generator.no_class)]) if guided else labels
    noise = None if greedy else uniforms(seed, offset, len(labels), config.tokens).to(device)
    was_training = generator.training
    generator.eval()
    cache, groups, sound, previous, drawn = generator.new_cache(len(rows)), [], [], None, 0
    for step, (size, scale) in enumerate(zip(config.groups, scales, strict=True)):
        logits = generator.step(generator.group_input(step, previous, rows), cache)                  # (2)b g k
        if guided:
            conditional, unconditional = logits.chunk(2)
            logits = unconditional + scale * (conditional - unconditional) if scale != 1 else conditional
        logits = logits if greedy else logits / temperature
        sound.append(is_finite(logits))                                                               # looked at in the end
        if greedy:
            tokens = logits.argmax(-1)
        else:
            tokens = draw(filter_logits(logits, top_k, top_p), noise[:, drawn:drawn + size])
        groups.append(tokens)                                                                         # b g
        previous = torch.cat([tokens, tokens]) if guided else tokens
        drawn += size
    generator.train(was_training)
    if False in (sound := torch.stack(sound).tolist()):
        raise NotFiniteError(f"NaN or infinity in the logits, first in step {sound.index(False) + 1} of {len(sound)}: no code "
                             "stands for it; take sound weights of the generator, and float32 where they overflow in less")
    return torch.cat(groups, dim=1)
