"""ViT encoder over [image scales coarse to fine | latents], with residual merging on the way (Fig. 2a, Algorithm 2)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from restok.config import Tokenizer
from restok.hierarchy import latent_grids, merge_layers, scale_grids
from restok.nn.blocks import Block
from restok.nn.masks import block_causal_on, group_of_each_on
from restok.nn.rope import encoder_rotation
from restok.tokenizer.latents import pooling, residual_pooling, sequence_pooling
from restok.tokenizer.merging import split_scale


class Encoder(nn.Module):
    def __init__(self, config: Tokenizer):
        super().__init__()
        self.config = config
        width, std = config.width, config.width ** -0.5
        self.patch = nn.Conv2d(config.cnn.latent_channels, width, 1)
        self.scale_embedding = nn.Parameter(torch.randn(config.scales, width) * std)           # finest first, as they appear
        self.level_embedding = nn.Parameter(torch.randn(len(config.levels), width) * std)
        if config.latent_init == "learnable":
            self.latents = nn.Parameter(torch.randn(config.latents, width) * std)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.encoder_layers))
        self.norm_out = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, config.codebook_dim) for _ in config.levels)
        merging = dict(zip(merge_layers(config.encoder_layers, config.scales), config.merge_kernels, strict=True))
        self.kernels = [merging.get(layer) for layer in range(1, config.encoder_layers + 1)]   # None: a plain block

    def start_latents(self, p: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n d"]:
        config = self.config
        if config.latent_init == "learnable":
            return self.latents.expand(len(p), -1, -1)
        if config.latent_init == "sequence":
            return sequence_pooling(p, config.latents)
        return (residual_pooling if config.latent_init == "residual" else pooling)(p, latent_grids(config.latents))

    def forward(self, features: Float[Tensor, "b c h w"], out: dict) -> Float[Tensor, "b n k"]:
        """Latents before quantisation. `out` receives "scales" (image tokens after the last layer, coarse to fine), and
        "latent_start"; if it holds a list "attention", each layer's probabilities (b h n n) are appended."""
        config = self.config
        p = self.patch(features)                                                # b d h w
        z = self.start_latents(p)                                               # b n d
        out["latent_start"] = z
        z = z + self.level_embedding.index_select(0, group_of_each_on(config.levels, z.device))
        p = p.flatten(2).transpose(1, 2) + self.scale_embedding[0]              # b h*w d
        x = self.norm_in(torch.cat([p, z], dim=1))
        all_grids = scale_grids(config.grid, config.merge_kernels)              # finest first
        scales = 1
        for block, kernel in zip(self.blocks, self.kernels, strict=True):
            grids = all_grids[:scales][::-1]                                    # coarse to fine, as in the sequence
            mask = block_causal_on((*(h * w for h, w in grids), *config.levels), x.device)
            rotation = encoder_rotation(grids, config.latents, config.width // config.heads, config.rope_base, x.device)
            x = block.attend(x, rotation, mask, out.get("attention"))           # b n d
            if kernel is None:
                x = block.transform(x)
                continue
            tokens = grids[0][0] * grids[0][1]
            coarser, finer = split_scale(x[:, :tokens], grids[0], kernel, config.merge, config.merge_residual)
            x = block.transform(torch.cat([coarser, finer, x[:, tokens:]], dim=1))
            new = coarser.shape[1]
            x = torch.cat([x[:, :new] + self.scale_embedding[scales], x[:, new:]], dim=1)
            scales += 1
        sizes = [h * w for h, w in all_grids[::-1]]
        *out["scales"], z = x.split([*sizes, config.latents], dim=1)
        z = self.norm_out(z)
        if config.latent_layout == "legacy":                                    # (tokens, width) re-read as (width, tokens)
            z = z.reshape(len(z), config.width, config.latents).transpose(1, 2)
        per_level = zip(self.heads, z.split(config.levels, dim=1), strict=True)
        return torch.cat([head(level) for head, level in per_level], dim=1)     # b n k
