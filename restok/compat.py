"""The authors' released weights: their tensor names, their configuration, the choices their forward pass makes.

Facts from the release of 2026-04-01 (Kwai-Kolors/ResTok). `load_released_*` take a state dict and the authors' own
configuration mapping (as their checkpoints carry it); a missing or unexpected name or a wrong shape is an error that lists it.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from restok.config import CNN, Generator, Tokenizer
from restok.config import Alignment as AlignmentConfig
from restok.generator.model import HAR
from restok.objective.alignment import Alignment
from restok.tokenizer.model import ResTok

VIT_SIZES = {"small": (512, 6, 8), "base": (768, 12, 12), "large": (1024, 24, 16)}   # width, layers, heads
TRAINING_EXTRAS = re.compile(r"foundation_model\.|vf_proj|decoder\.feat_mask_token")  # the objective's, not the tokenizer's
MASKGIT = CNN(channels=128, multipliers=(1, 1, 2, 2, 4), blocks=2, latent_channels=256, groups=32)

# Released names -> ours, each pattern at most once a name, in this order.
TOKENIZER_NAMES = [
    (r"^encoder\.level_embedding\.", "encoder.scale_embedding."),
    (r"latent_token_level_embedding\.", "level_embedding."),
    (r"^encoder\.patch_embed\.", "encoder.patch."),
    (r"^encoder\.conv_out\.", "encoder.heads."),
    (r"^decoder\.decoder_embed\.", "decoder.embed."),
    (r"^decoder\.ffn\.", "decoder.unpatch."),
    (r"^decoder\.latent_mask_token$", "decoder.dropped_latent"),
    (r"^quantize\.embedding\.weight$", "quantizer.codebook"),
    (r"\.ln_pre\.", ".norm_in."), (r"\.ln_post\.", ".norm_out."),
    (r"\.gamma_", ".scale"), (r"\.attn\.proj\.", ".attention.out."), (r"\.attn\.", ".attention."),
    (r"\.mlp\.fc1\.", ".mlp.0."), (r"\.mlp\.fc2\.", ".mlp.2."),
    (r"^pixel_encoder\.", "cnn_encoder."), (r"^pixel_decoder\.", "cnn_decoder."),
    (r"^(cnn_\w+)\.mid\.", r"\1.middle."), (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.down\.(\d+)\.block\.", r".levels.\1."),
]
GENERATOR_NAMES = [
    (r"^cls_embedding\.embedding_table\.", "class_embedding."), (r"^tok_embeddings\.", "token_embedding."),
    (r"^spe_tok_embeddings\.special_embeddings\.weight$", "mask_tokens"),
    (r"^layers\.", "blocks."), (r"\.attention\.wqkv\.", ".attention.qkv."), (r"\.attention\.wo\.", ".attention.out."),
    (r"\.feed_forward\.w1\.", ".mlp.gate."), (r"\.feed_forward\.w3\.", ".mlp.up."), (r"\.feed_forward\.w2\.", ".mlp.down."),
    (r"\.attention_norm\.", ".norm1."), (r"\.ffn_norm\.", ".norm2."), (r"^norm\.", "norm_out."), (r"^output\.", "head."),
]


class ReleasedWeightsError(ValueError):
    """Released weights that do not fit: names missing, unexpected, or of another shape."""


def tokenizer_config(config: Mapping[str, Any]) -> Tokenizer:
    """The authors' tokenizer configuration as ours, with the release's own choices: nearest merging of the width, latents
    re-read in the legacy layout. Raises ReleasedWeightsError for a setting that the release's code could not run either."""
    width, layers, heads = VIT_SIZES[config["vit_enc_model_size"]]
    decoder_width, decoder_layers, _ = VIT_SIZES[config["vit_dec_model_size"]]
    if decoder_width != width or not (config["multi_quant"] and config["vae_encoder"]) or config["reduction_ratio"] != 0.5:
        raise ReleasedWeightsError("only the published design loads: one ViT width, a CNN encoder, a projection a level, "
                                   "reduction_ratio 0.5")
    pooled = "residual" if config["residual_latent_tokens"] else "pooled"
    return Tokenizer(
        image_size=16 * config["vit_enc_patch_size"], cnn=MASKGIT, width=width, encoder_layers=layers,
        decoder_layers=decoder_layers, heads=heads, rope_base=config["rope_base_len"], latents=config["num_latent_tokens"],
        latent_init="learnable" if config["learnable_latent_tokens"] else pooled, latent_hierarchy=config["latent_hierarchy"],
        scales=config["hierarchy_stages"] if config["merge_tokens"] else 1, merge_factor=2, merge="nearest", merge_grid="width",
        merge_residual=config["residual_image_tokens"], latent_layout="legacy", codebook_size=config["codebook_size"],
        codebook_dim=config["token_size"], commitment=config["commitment_cost"], codebook_init="random", revive_after=0,
        keep_minimum=config["num_min_tokens"], drop_probability=config["drop_prob"])


def generator_config(config: Mapping[str, Any]) -> Generator:
    """The authors' generator configuration as ours; without mask embeddings it is the vanilla model."""
    hidden = -(-(8 * config["dim"] // 3) // 256) * 256
    return Generator(
        codebook_size=config["vocab_size"], tokens=config["block_size"], classes=config["num_classes"], width=config["dim"],
        layers=config["n_layer"], heads=config["n_head"], hidden=hidden, rope_base=10000,
        ntp=config["ar_token_num"] if config.get("spe_token_num") else "all", token_dropout=config["token_dropout_p"],
        residual_dropout=config["resid_dropout_p"], ffn_dropout=config["ffn_dropout_p"],
        class_dropout=config["class_dropout_prob"])


def load_released_tokenizer(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> ResTok:
    """The authors' tokenizer, in eval mode. `_orig_mod.` prefixes, DINOv3 and the alignment's extras are left out."""
    ours = tokenizer_config(config)
    levels = len(ours.cnn.multipliers)
    return _load(ResTok, ours, state_dict, lambda name: _tokenizer_name(name, levels))


def load_released_generator(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> HAR:
    """The authors' generator, in eval mode."""
    return _load(HAR, generator_config(config), state_dict, lambda name: _rename(name, GENERATOR_NAMES))


def _rename(name: str, table: list[tuple[str, str]]) -> str:
    for pattern, ours in table:
        name = re.sub(pattern, ours, name, count=1)
    return name


def _tokenizer_name(name: str, levels: int) -> str:
    """They count the CNN decoder's levels from the image, we from the latents, in the order of the computation."""
    name = _rename(name, TOKENIZER_NAMES)
    name = re.sub(r"\.up\.(\d+)\.block\.", lambda m: f".levels.{levels - 1 - int(m[1])}.", name)
    return re.sub(r"\.up\.(\d+)\.upsample_conv\.", lambda m: f".upsamplers.{levels - 1 - int(m[1])}.", name)


def _load(model: type[nn.Module], config: Any, state_dict: Mapping[str, Tensor], rename: Callable[[str], str]) -> Any:
    with torch.device("meta"):
        module = model(config)
    wanted = module.state_dict()
    found, rows, unexpected = {}, defaultdict(dict), []
    for released, tensor in state_dict.items():
        released = released.removeprefix("_orig_mod.")
        if TRAINING_EXTRAS.match(released):
            continue
        name = rename(released)
        table, _, row = name.rpartition(".")
        if name in wanted:
            found[name] = tensor
        elif table in wanted and row.isdigit():                 # theirs: one (1, d) tensor a row; ours: one table
            rows[table][int(row)] = tensor
        else:
            unexpected.append(released)
    found |= {name: torch.cat([parts[i] for i in sorted(parts)]) for name, parts in rows.items()}
    found |= {name: torch.empty(tensor.shape) for name, tensor in wanted.items() if not tensor.numel()}   # vanilla: no masks
    faults = [f"unexpected: {name}" for name in unexpected] + [f"missing: {name}" for name in wanted if name not in found]
    for name in found:
        theirs, here = found[name].squeeze().shape, wanted[name].squeeze().shape
        if theirs != here:
            faults.append(f"shape: {name} is {tuple(theirs)}, expected {tuple(here)}")
    if faults:
        raise ReleasedWeightsError("released weights do not fit the configuration:\n  " + "\n  ".join(faults))
    module.load_state_dict({name: tensor.reshape(wanted[name].shape) for name, tensor in found.items()}, assign=True)
    return module.eval()


def load_released_alignment(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Alignment:
    """What a released training checkpoint keeps of Eq. 1 and 2, to train on from it: the VF mask token, the projections of the
    tokenizer's features, and the margin, 1 - `cos_margin`. Absent parts get weight 0. Raises ReleasedWeightsError."""
    tensors = {name.removeprefix("_orig_mod."): tensor for name, tensor in state_dict.items()}
    names = {"phi.encoder.weight": "vf_proj.weight", "phi.decoder.weight": "vf_proj_dec.weight",
             "vf_token": "decoder.feat_mask_token"}
    found = {ours: tensors[theirs] for ours, theirs in names.items() if theirs in tensors}
    if ("phi.decoder.weight" in found) != ("vf_token" in found):
        raise ReleasedWeightsError("missing: decoder.feat_mask_token and vf_proj_dec.weight are only of use together")
    width = VIT_SIZES[config["vit_enc_model_size"]][0]
    projections = {side: found.get(f"phi.{side}.weight") for side in ("encoder", "decoder")}
    teacher = {side: 0 if weight is None else weight.shape[0] for side, weight in projections.items()}
    settings = AlignmentConfig(network="vit_large_patch16_dinov3.lvd1689m", weights=None, encoder=float(teacher["encoder"] > 0),
                               decoder=float(teacher["decoder"] > 0), margin=1 - config["cos_margin"], projection="tokenizer")
    alignment = Alignment(settings, width, teacher["encoder"], teacher["decoder"])
    alignment.load_state_dict({ours: tensor.reshape(alignment.state_dict()[ours].shape) for ours, tensor in found.items()})
    return alignment
