"""Self-attention: optional biases and qk-norm, rotary positions, Bool mask, optional KV cache."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from restok.nn.rope import Rotation, rotate


@dataclass
class Cache:
    """Keys and values of one layer; `length` tokens of the buffers are filled."""

    keys: Float[Tensor, "b h n d"]
    values: Float[Tensor, "b h n d"]
    length: int = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + k.shape[2]
        self.keys[:, :, self.length:end], self.values[:, :, self.length:end] = k, v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def clear(self) -> None:
        """For the next images, in the same memory."""
        self.length = 0


class Attention(nn.Module):
    """`biased`: the tokenizer's, biases on q, v and output, LayerNorm over each head's q and k; else Llama's, plain."""

    def __init__(self, width: int, heads: int, biased: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=biased)
        if biased:
            self.q_bias = nn.Parameter(torch.zeros(width))       # a bias on k would not change the softmax
            self.v_bias = nn.Parameter(torch.zeros(width))
        self.q_norm = nn.LayerNorm(width // heads) if biased else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if biased else nn.Identity()
        self.biased = biased

    def forward(self, x: Float[Tensor, "b n d"], rotation: Rotation, mask: Bool[Tensor, "n n"] | None = None,
                cache: Cache | None = None, weights: list[Tensor] | None = None) -> Float[Tensor, "b n d"]:
        """`weights`, when given, receives the attention probabilities (b h n n); that path is for figures."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]) if self.biased else None
        q, k, v = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)   # b h n dh
        q, k = (rotate(norm(x), rotation).to(v.dtype) for norm, x in ((self.q_norm, q), (self.k_norm, k)))   # norms: float32
        if cache is not None:
            k, v = cache.append(k, v)
        if weights is not None:
            scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            weights.append((scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)                                              # b h n e
        return self.out(x.transpose(1, 2).flatten(2))                                                            # b n d
