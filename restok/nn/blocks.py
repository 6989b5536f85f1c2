"""Pre-norm transformer blocks: the tokenizer's (LayerNorm, LayerScale, GELU) and the generator's (RMSNorm, SwiGLU)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from restok.nn.attention import Attention, Cache
from restok.nn.rope import Rotation


class Block(nn.Module):
    """x + s1 attention(norm(x)), then x + s2 mlp(norm(x)); the two halves are callable alone, for what merges in between."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, biased=True)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.scale2 = nn.Parameter(torch.ones(width))

    def attend(self, x: Float[Tensor, "b n d"], rotation: Rotation, mask: Bool[Tensor, "n n"] | None = None,
               weights: list[Tensor] | None = None) -> Float[Tensor, "b n d"]:
        return x + self.scale1 * self.attention(self.norm1(x), rotation, mask, weights=weights)

    def transform(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x + self.scale2 * self.mlp(self.norm2(x))

    def forward(self, x: Float[Tensor, "b n d"], rotation: Rotation, mask: Bool[Tensor, "n n"] | None = None,
                weights: list[Tensor] | None = None) -> Float[Tensor, "b n d"]:
        return self.transform(self.attend(x, rotation, mask, weights))


class SwiGLU(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, residual_dropout: float, ffn_dropout: float):
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=1e-5)
        self.attention = Attention(width, heads, biased=False)
        self.norm2 = nn.RMSNorm(width, eps=1e-5)
        self.mlp = SwiGLU(width, hidden)
        self.residual_dropout = nn.Dropout(residual_dropout)
        self.ffn_dropout = nn.Dropout(ffn_dropout)

    def forward(self, x: Float[Tensor, "b n d"], rotation: Rotation, mask: Bool[Tensor, "n n"] | None,
                cache: Cache | None = None) -> Float[Tensor, "b n d"]:
        x = x + self.residual_dropout(self.attention(self.norm1(x), rotation, mask, cache))
        return x + self.ffn_dropout(self.mlp(self.norm2(x)))
