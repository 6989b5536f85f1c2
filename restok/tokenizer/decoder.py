"""ViT decoder over [latents | mask tokens]: no mask, no hierarchy (section 3.1)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from restok.config import Tokenizer
from restok.nn.blocks import Block
from restok.nn.rope import decoder_rotation

Keep = int | Sequence[int] | Tensor | None


class Decoder(nn.Module):
    def __init__(self, config: Tokenizer):
        super().__init__()
        self.config = config
        width, std = config.width, config.width ** -0.5
        self.dropped_latent = nn.Parameter(torch.zeros(config.codebook_dim))    # stands for a latent that is not kept
        self.mask_token = nn.Parameter(torch.randn(width) * std)
        self.embed = nn.ModuleList(nn.Linear(config.codebook_dim, width) for _ in config.levels)
        self.level_embedding = nn.Parameter(torch.randn(len(config.levels), width) * std)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.decoder_layers))
        self.norm_out = nn.LayerNorm(width)
        self.unpatch = nn.Conv2d(width, config.cnn.latent_channels, 1)

    def tokens(self, latents: Float[Tensor, "b n k"], mask_tokens: Sequence[Float[Tensor, "... d"]],
               keep: Keep = None) -> tuple[Float[Tensor, "b m d"], ...]:
        """The grid's tokens after the last block, once for each of `mask_tokens`: the batch is repeated, not the module."""
        config = self.config
        if keep is not None:
            keep = torch.as_tensor(keep, device=latents.device).reshape(-1, 1)                          # b 1, or 1 1
            kept = torch.arange(config.latents, device=latents.device) < keep                           # b n
            latents = torch.where(kept[..., None], latents, self.dropped_latent.to(latents.dtype))      # b n k
        per_level = zip(self.embed, latents.split(config.levels, dim=1), self.level_embedding, strict=True)
        z = torch.cat([embed(level) + embedding for embed, level, embedding in per_level], dim=1)       # b n d
        masks = [token.to(z.dtype).expand(len(z), config.grid ** 2, -1) for token in mask_tokens]
        x = self.norm_in(torch.cat([torch.cat([z, mask], dim=1) for mask in masks]))                    # (b t) n+m d
        head_width = config.width // config.heads
        rotation = decoder_rotation(config.latents, (config.grid, config.grid), head_width, config.rope_base, x.device)
        for block in self.blocks:
            x = block(x, rotation)
        return x[:, config.latents:].chunk(len(mask_tokens))

    def features(self, tokens: Float[Tensor, "b m d"]) -> Float[Tensor, "b c h w"]:
        """What the CNN decoder reads."""
        x = self.norm_out(tokens).transpose(1, 2).unflatten(2, (self.config.grid, self.config.grid))
        return self.unpatch(x)
