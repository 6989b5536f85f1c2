"""HAR: a Llama-style transformer over grouped tokens (Fig. 4, Fig. 8b). `ntp` = all makes it LlamaGen's vanilla GPT."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from restok.config import Generator
from restok.nn.attention import Cache
from restok.nn.blocks import LlamaBlock
from restok.nn.masks import block_causal_on
from restok.nn.rope import sequence_rotation
from restok.parts import WHOLE, Shard


class HAR(nn.Module):
    """Position i of the sequence predicts token i. The first group reads the class; each later group of n tokens reads the
    tokens of the group before it, followed by as many mask tokens as bring them to n."""

    def __init__(self, config: Generator):
        super().__init__()
        self.config = config
        self.class_embedding = nn.Embedding(config.classes + 1, config.width)   # the last one: no class
        self.token_embedding = nn.Embedding(config.codebook_size, config.width)
        # As released: one for every token but the first, of which `tokens / 2 - 1` are used; vanilla autoregression has none.
        masks = 0 if len(config.groups) == config.tokens else config.tokens - 1
        self.mask_tokens = nn.Parameter(torch.empty(masks, config.width))
        self.token_dropout = nn.Dropout(config.token_dropout)
        blocks = (LlamaBlock(config.width, config.heads, config.hidden, config.residual_dropout, config.ffn_dropout)
                  for _ in range(config.layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm_out = nn.RMSNorm(config.width, eps=1e-5)
        self.head = nn.Linear(config.width, config.codebook_size, bias=False)
        self.apply(_initialise)
        nn.init.normal_(self.mask_tokens, std=0.02)
        nn.init.zeros_(self.head.weight)

    @property
    def no_class(self) -> int:
        return self.config.classes

    def drop_labels(self, labels: Int[Tensor, " b"], generator: torch.Generator, share: Shard = WHOLE) -> Int[Tensor, " b"]:
        """Labels with the class replaced by 'no class' at rate `class_dropout`: what guidance needs. Of a batch of which they
        are a share, all is drawn, so that the draws do not depend on how it is shared."""
        drop = torch.rand(len(labels) * share.parts, generator=generator) < self.config.class_dropout
        drop = drop[slice(*share.bounds(len(drop)))]
        return labels.masked_fill(drop.to(labels.device, non_blocking=True), self.no_class)

    def group_input(self, step: int, previous: Int[Tensor, "b m"] | None, labels: Int[Tensor, " b"]) -> Float[Tensor, "b g d"]:
        """What group `step` reads: `previous` is the tokens of group step - 1 (None for the first)."""
        if previous is None:
            return self.class_embedding(labels)[:, None]                        # b 1 d
        sizes = self.config.groups
        used = sizes[step - 1] - sizes[0]                                       # sizes never shrink: the differences telescope
        masks = self.mask_tokens[used:used + sizes[step] - sizes[step - 1]]
        return torch.cat([self.token_embedding(previous), masks.expand(len(previous), -1, -1)], dim=1)

    def forward(self, codes: Int[Tensor, "b n"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b n k"]:
        """Logits of every token given the groups before its own; the last group's tokens are read by nobody."""
        sizes = self.config.groups
        if codes.shape[1] != self.config.tokens:
            raise ValueError(f"codes of {codes.shape[1]} tokens: generator.tokens is {self.config.tokens}")
        previous = [None, *codes.split(sizes, dim=1)[:-1]]
        x = torch.cat([self.group_input(i, p, labels) for i, p in enumerate(previous)], dim=1)          # b n d
        x = self.token_dropout(x)
        rotation = sequence_rotation(len(x[0]), self.config.width // self.config.heads, self.config.rope_base, x.device)
        mask = block_causal_on(sizes, x.device)
        for block in self.blocks:
            x = block(x, rotation, mask)
        return self.head(self.norm_out(x)).float()

    def loss(self, codes: Int[Tensor, "b n"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Mean cross-entropy a token, in nats."""
        return F.cross_entropy(self(codes, labels).flatten(0, 1), codes.flatten())

    def new_cache(self, images: int) -> list[Cache]:
        config, like = self.config, self.head.weight
        shape = (images, config.heads, config.tokens, config.width // config.heads)
        return [Cache(like.new_empty(shape), like.new_empty(shape)) for _ in self.blocks]

    def step(self, x: Float[Tensor, "b g d"], cache: list[Cache]) -> Float[Tensor, "b g k"]:
        """Logits of one group from its input; the group sees itself and everything cached, so no mask is needed."""
        config, start = self.config, cache[0].length
        cos, sin = sequence_rotation(config.tokens, config.width // config.heads, config.rope_base, x.device)
        rotation = cos[start:start + x.shape[1]], sin[start:start + x.shape[1]]
        for block, layer in zip(self.blocks, cache, strict=True):
            x = block(x, rotation, None, layer)
        return self.head(self.norm_out(x)).float()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
