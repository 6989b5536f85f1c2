"""The authors' tensors as ours and back: one table of names for both directions."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from restok.compat.settings import MASKGIT, ReleasedWeightsError, Settings, generator_config, tokenizer_config
from restok.config import Alignment as AlignmentConfig
from restok.config import Generator, Tokenizer
from restok.generator.model import HAR
from restok.nn.finite import not_finite
from restok.objective.alignment import Alignment
from restok.tokenizer.model import ResTok

WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|module)\.")                             # of torch.compile, of data parallelism
# The objective's, not the tokenizer's, and what torch's AveragedModel counts.
TRAINING_EXTRAS = re.compile(r"foundation_model\.|vf_proj|decoder\.feat_mask_token|n_averaged$")
ONE_HEAD = re.compile(r"(encoder\.conv_out|decoder\.decoder_embed)\.(weight|bias)$")          # `multi_quant: false`
LAST_LEVEL = len(MASKGIT.multipliers) - 1


def _level(part: str):
    """They count the CNN decoder's levels from the image, we from the latents, in the order of the computation."""
    return lambda match: f".up.{LAST_LEVEL - int(match[1])}.{part}."


# Our names -> the authors', each pattern at most once a name, in this order.
TOKENIZER_NAMES = [
    (r"\.level_embedding$", ".latent_token_level_embedding"), (r"\.scale_embedding$", ".level_embedding"),
    (r"^encoder\.patch\.", "encoder.patch_embed."), (r"^encoder\.heads\.", "encoder.conv_out."),
    (r"^decoder\.embed\.", "decoder.decoder_embed."), (r"^decoder\.unpatch\.", "decoder.ffn."),
    (r"^decoder\.dropped_latent$", "decoder.latent_mask_token"), (r"^quantizer\.codebook$", "quantize.embedding.weight"),
    (r"^(encoder|decoder)\.norm_in\.", r"\1.ln_pre."), (r"^(encoder|decoder)\.norm_out\.", r"\1.ln_post."),
    (r"\.scale(\d)$", r".gamma_\1"), (r"\.attention\.out\.", ".attn.proj."), (r"\.attention\.", ".attn."),
    (r"\.mlp\.0\.", ".mlp.fc1."), (r"\.mlp\.2\.", ".mlp.fc2."),
    (r"^cnn_encoder\.levels\.(\d+)\.", r"cnn_encoder.down.\1.block."), (r"\.levels\.(\d+)\.", _level("block")),
    (r"\.upsamplers\.(\d+)\.", _level("upsample_conv")), (r"\.shortcut\.", ".nin_shortcut."),
    (r"^(cnn_\w+)\.middle\.", r"\1.mid."), (r"^cnn_", "pixel_"),
]
GENERATOR_NAMES = [
    (r"^class_embedding\.", "cls_embedding.embedding_table."), (r"^token_embedding\.", "tok_embeddings."),
    (r"^mask_tokens$", "spe_tok_embeddings.special_embeddings.weight"), (r"^blocks\.", "layers."),
    (r"\.attention\.qkv\.", ".attention.wqkv."), (r"\.attention\.out\.", ".attention.wo."),
    (r"\.mlp\.gate\.", ".feed_forward.w1."), (r"\.mlp\.up\.", ".feed_forward.w3."), (r"\.mlp\.down\.", ".feed_forward.w2."),
    (r"\.norm1\.", ".attention_norm."), (r"\.norm2\.", ".ffn_norm."), (r"^norm_out\.", "norm."), (r"^head\.", "output."),
]


class Place(NamedTuple):
    """Where one tensor of the release lives."""

    ours: str
    row: int | None                      # of our table, where they have one tensor a row
    shape: tuple[int, ...]               # theirs


def places(module: ResTok | HAR) -> dict[str, Place]:
    """The authors' name of every tensor of the module, which may be on the meta device."""
    names = TOKENIZER_NAMES if isinstance(module, ResTok) else GENERATOR_NAMES
    located = {}
    for name, tensor in module.state_dict().items():
        released, shape = name, tuple(tensor.shape)
        for pattern, theirs in names:
            released = re.sub(pattern, theirs, released, count=1)
        if name.endswith("_embedding"):                                          # a level's, a scale's
            located |= {f"{released}.{row}": Place(name, row, (1, *shape[1:])) for row in range(shape[0])}
        elif re.match(r"encoder\.heads\.\d+\.weight", name):                     # 1x1 convolutions
            located[released] = Place(name, None, (*shape, 1, 1))
        elif name in ("decoder.mask_token", "decoder.dropped_latent"):
            located[released] = Place(name, None, (1, 1, *shape))
        elif tensor.numel():                                                     # the vanilla model has no masks
            located[released] = Place(name, None, shape)
    return located


def plain_names(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Without the prefixes of wrapped modules."""
    return {WRAPPERS.sub("", name): tensor for name, tensor in state_dict.items()}


def load_released_tokenizer(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> ResTok:
    """The authors' tokenizer, in float32 and eval mode. Wrappers' prefixes, DINOv3 and the alignment's extras are left out; one
    projection for all levels (`multi_quant: false`) becomes the same one at each."""
    ours, tensors = tokenizer_config(config), plain_names(state_dict)
    if not Settings(config).flag("multi_quant", True):
        tensors = _one_a_level(tensors, len(ours.levels))
    return _load(ResTok, ours, tensors)


def _one_a_level(tensors: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The weights of a projection for all levels as those of each level's own."""
    if "encoder.conv_out.weight" not in tensors:
        raise ReleasedWeightsError("missing: encoder.conv_out.weight, the projection for all levels of multi_quant false; set "
                                   "that to true if there is one a level")
    copies = {name: tensor for name, tensor in tensors.items() if not ONE_HEAD.match(name)}
    for name in tensors.keys() - copies.keys():
        stem, _, part = name.rpartition(".")
        copies |= {f"{stem}.{level}.{part}": tensors[name].clone() for level in range(levels)}
    return copies


def load_released_generator(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> HAR:
    """The authors' generator, in float32 and eval mode."""
    return _load(HAR, generator_config(config), state_dict)


def _load(model: type, config: Tokenizer | Generator, state_dict: Mapping[str, Tensor]) -> Any:
    with torch.device("meta"):
        module = model(config)
    wanted = places(module)
    tensors = {name: tensor for name, tensor in plain_names(state_dict).items() if not TRAINING_EXTRAS.match(name)}
    faults = [f"unexpected: {name}" for name in tensors if name not in wanted]
    for name, place in wanted.items():
        if name not in tensors:
            faults.append(f"missing: {name}")
        elif (theirs := tensors[name].squeeze().shape) != (here := torch.Size(n for n in place.shape if n != 1)):
            faults.append(f"shape: {name} is {tuple(theirs)}, expected {tuple(here)}")
        elif not tensors[name].is_floating_point():
            faults.append(f"type: {name} is {tensors[name].dtype}, expected floating point")
    if faults:
        raise ReleasedWeightsError("released weights do not fit the configuration:\n  " + "\n  ".join(faults))
    if bad := [name for name in wanted if not_finite({name: tensors[name].float()})]:
        raise ReleasedWeightsError(f"NaN or infinity in {', '.join(bad)}; take those of another step, or of higher precision")
    pieces = defaultdict(list)
    for name, place in wanted.items():
        pieces[place.ours].append(tensors[name].reshape(place.shape))
    state = {}
    for name, tensor in module.state_dict().items():
        parts = pieces[name] or [torch.empty(tensor.shape)]                      # nothing: the masks that vanilla has not
        state[name] = (torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(tensor.shape).float()
    module.load_state_dict(state, assign=True)
    return module.eval()


def released_tensors(module: ResTok | HAR) -> dict[str, Tensor]:
    """Our module's tensors under the authors' names and in their shapes."""
    state = module.state_dict()
    return {name: (state[place.ours] if place.row is None else state[place.ours][place.row]).reshape(place.shape)
            for name, place in places(module).items()}


def load_released_alignment(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Alignment:
    """What a released training checkpoint keeps of Eq. 1 and 2, to train on from it: the VF mask token, the projections of the
    tokenizer's features, and the margin, 1 - `cos_margin`. Absent parts get weight 0. Raises ReleasedWeightsError."""
    tensors, config = plain_names(state_dict), Settings(config)
    names = {"phi.encoder.weight": "vf_proj.weight", "phi.decoder.weight": "vf_proj_dec.weight",
             "vf_token": "decoder.feat_mask_token"}
    kept = {ours: tensors[theirs] for ours, theirs in names.items() if theirs in tensors}
    if ("phi.decoder.weight" in kept) != ("vf_token" in kept):
        raise ReleasedWeightsError("missing: decoder.feat_mask_token and vf_proj_dec.weight are only of use together")
    width, _, _ = config.size("vit_enc_model_size")
    encoder, decoder = (len(kept.get(f"phi.{side}.weight", ())) for side in ("encoder", "decoder"))       # the teacher's widths
    settings = AlignmentConfig(network="vit_large_patch16_dinov3.lvd1689m", weights=None, encoder=float(encoder > 0),
                               decoder=float(decoder > 0), margin=1 - config["cos_margin"], projection="tokenizer")
    alignment = Alignment(settings, width, encoder, decoder)
    alignment.load_state_dict({ours: tensor.reshape(alignment.state_dict()[ours].shape) for ours, tensor in kept.items()})
    return alignment
