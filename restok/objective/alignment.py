"""Alignment of the tokenizer with a frozen vision model (Eq. 1 and 2; their weighted sum, Eq. 3, is taken with Eq. 4)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from restok import config
from restok.errors import InputError
from restok.networks.backbone import FrozenClassifier, VisionTransformer, load_backbone


class Alignment(nn.Module):
    """Eq. 1 and 2. Owns what only alignment trains: the mask VF token and the projections phi of the encoder and the decoder.

    `width` is the tokenizer's, `class_width` and `patch_width` are the teacher's. A term of weight 0 has no parameters here
    and is not computed; `vf_token` (1 1 d) is None without the decoder's.
    """

    def __init__(self, config: config.Alignment, width: int, class_width: int, patch_width: int):
        super().__init__()
        self.margin, self.projection = config.margin, config.projection
        self.phi = nn.ModuleDict()
        for name, weight, teacher_width in (("encoder", config.encoder, class_width), ("decoder", config.decoder, patch_width)):
            if weight:
                # Eq. 1 and 2 project the teacher's features to the tokenizer's width; the release does the reverse.
                pair = (teacher_width, width) if config.projection == "teacher" else (width, teacher_width)
                self.phi[name] = nn.Linear(*pair, bias=False)
        self.vf_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5) if config.decoder else None

    def forward(self, coarsest: Float[Tensor, "b n d"] | None, vf_tokens: Float[Tensor, "b m d"] | None,
                f_cls: Float[Tensor, "b t"], f_patch: Float[Tensor, "b m s"]) -> dict[str, Float[Tensor, ""]]:
        """The unweighted terms: 'encoder' from the image tokens p_1 of the coarsest scale after the last encoder layer,
        'decoder' from the decoder's VF tokens. What only a term of weight 0 would read may be None."""
        terms = {}
        if "encoder" in self.phi:                                                                      # Eq. 1
            terms["encoder"] = self.distance("encoder", coarsest.mean(dim=1), f_cls)
        if "decoder" in self.phi:                                                                      # Eq. 2
            terms["decoder"] = self.distance("decoder", vf_tokens, f_patch)
        return terms

    def distance(self, name: str, ours: Float[Tensor, "*b d"], theirs: Float[Tensor, "*b t"]) -> Float[Tensor, ""]:
        """Mean of relu(margin - cosine), in single precision."""
        if self.projection == "teacher":
            theirs = self.phi[name](theirs)
        else:
            ours = self.phi[name](ours)
        return F.relu(self.margin - F.cosine_similarity(ours.float(), theirs.float(), dim=-1)).mean()


def load_teacher(config: config.Alignment, grid: int, classifier: str | Path | None) -> VisionTransformer | FrozenClassifier:
    """The frozen vision model f of Eq. 1 and 2 (the paper: DINOv3-L), for a tokenizer of grid x grid image tokens: at the
    resolution at which its patches are that grid, 256 px for 16 x 16 of 16 px. Raises what `load_backbone` raises."""
    network = load_backbone(config, classifier, grid)
    if not network.has_class:
        raise InputError(f"network: {config.network} has no class token for the encoder to be aligned with")
    return network
