"""ResTok: images to ordered codes and back (Fig. 2a)."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from restok.config import Tokenizer
from restok.errors import InputError
from restok.nn.finite import require_finite
from restok.tokenizer.cnn import CNNDecoder, CNNEncoder
from restok.tokenizer.decoder import Decoder, Keep
from restok.tokenizer.encoder import Encoder
from restok.tokenizer.quantizer import Quantizer

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ResTok(nn.Module):
    def __init__(self, config: Tokenizer):
        super().__init__()
        self.config = config
        self.cnn_encoder = CNNEncoder(config.cnn)
        self.encoder = Encoder(config)
        self.quantizer = Quantizer(config.codebook_size, config.codebook_dim)
        self.decoder = Decoder(config)
        self.cnn_decoder = CNNDecoder(config.cnn)
        self.apply(_initialise)

    def latents(self, images: Float[Tensor, "b 3 h w"], out: dict | None = None) -> Float[Tensor, "b n k"]:
        """Images in [0, 1] -> latents before quantisation. Raises ValueError on another size than the configuration's."""
        side = self.config.image_size
        if images.shape[1:] != (3, side, side):
            raise ValueError(f"images of {tuple(images.shape)}: expected (b, 3, {side}, {side}), as tokenizer.image_size says")
        mean, std = _normalisation(images.dtype, images.device)
        features = self.cnn_encoder((images - mean) / std)                      # b c gh gw
        return self.encoder(features, {} if out is None else out)               # b n k

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 h w"], out: dict | None = None) -> Int[Tensor, "b n"]:
        """Images in [0, 1] -> codes. `out` receives "latents" (b n k, before quantisation) and what the encoder adds. Raises
        NotFiniteError where there is no nearest entry."""
        out = {} if out is None else out
        out["latents"] = self.latents(images, out)
        codes = self.quantizer.nearest(out["latents"])
        require_finite("no code stands for it; mend the images, or take sound weights of the tokenizer", images=images,
                       latents=out["latents"], codebook=self.quantizer.codebook)
        return codes

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "b n"], keep: Keep = None) -> Float[Tensor, "b 3 h w"]:
        """Codes -> images, unclamped. `keep`: how many leading codes to use, for all images or one number an image. Raises
        InputError for fewer than 1 and for more than there are."""
        kept = [] if keep is None else torch.as_tensor(keep).flatten().tolist()
        if wrong := [k for k in kept if not 1 <= k <= self.config.latents]:
            raise InputError(f"keep {wrong[0]}: keep 1 to {self.config.latents} codes")
        (tokens,) = self.decoder.tokens(self.quantizer.lookup(codes), [self.decoder.mask_token], keep)
        return self.pixels(tokens)

    def pixels(self, tokens: Float[Tensor, "b m d"]) -> Float[Tensor, "b 3 h w"]:
        """Decoder tokens -> images; the CNN in float32, as released."""
        features = self.decoder.features(tokens)
        with torch.autocast(features.device.type, enabled=False):
            return self.cnn_decoder(features.float())

    def forward(self, images: Float[Tensor, "b 3 h w"], keep: Keep = None, vf_token: Float[Tensor, "... d"] | None = None,
                out: dict | None = None) -> Float[Tensor, "b 3 h w"]:
        """Reconstruct, with gradients. `out` receives "latents", "quantized", the encoder's "scales", and, given a
        `vf_token`, "vf_tokens" (b m d): the doubled half of the decoder's batch (Eq. 2)."""
        out = {} if out is None else out
        out["latents"] = self.latents(images, out)
        out["quantized"] = self.quantizer(out["latents"])
        masks = [self.decoder.mask_token] + ([] if vf_token is None else [vf_token])
        tokens, *vf = self.decoder.tokens(out["quantized"].latents, masks, keep)
        if vf:
            out["vf_tokens"] = vf[0]
        return self.pixels(tokens)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _normalisation(dtype: torch.dtype, device: torch.device) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    mean, std = (torch.tensor(x, dtype=dtype, device=device)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def _initialise(module: nn.Module) -> None:
    """Linear layers: Xavier, zero bias, as ViT and MAE. A fixed 0.02 suits a width of 1024; at 64 the blocks would hardly hear
    the codes, and the codebook collapses before they do."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
