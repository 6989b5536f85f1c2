"""The authors' configuration mapping as ours and back, and what the tensors alone say of it."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from restok.config import CNN, Config, Generator, Tokenizer
from restok.config.load import parse
from restok.errors import RestokError

VIT_SIZES = {"small": (512, 6, 8), "base": (768, 12, 12), "large": (1024, 24, 16)}   # width, layers, heads
THEIRS = "the authors' configuration"       # in messages
MASKGIT = CNN(channels=128, multipliers=(1, 1, 2, 2, 4), blocks=2, latent_channels=256, groups=32)

# The published values of what no shape tells.
TOKENIZER_PUBLISHED = {
    "vit_enc_patch_size": 16, "rope_base_len": 10000, "reduction_ratio": 0.5, "residual_image_tokens": True,
    "residual_latent_tokens": True, "learnable_latent_tokens": False, "multi_quant": True, "vae_encoder": True,
    "commitment_cost": 0.25, "num_min_tokens": 4, "drop_prob": 0.2, "num_latent_tokens": 128, "latent_hierarchy": True}
GENERATOR_PUBLISHED = {"block_size": 128, "token_dropout_p": 0.1, "resid_dropout_p": 0.1, "ffn_dropout_p": 0.1,
                       "class_dropout_prob": 0.1}
HEAD_WIDTH = 64                          # of every released model

# What only the release's code can vary. Where a mapping does not say it, it is this; another value is another model, of which
# names and shapes may tell nothing.
TOKENIZER_FIXED = {"vae_encoder": True, "reduction_ratio": 0.5, "use_l2_norm": True, "learnable_dec_image_tokens": True,
                   "vit_enc_patch_size": 16, "vit_dec_patch_size": 16}
GENERATOR_FIXED = {"rope_base": 10000, "norm_eps": 1e-5, "multiple_of": 256, "ffn_dim_multiplier": None, "cls_token_num": 1}

# Our names -> the authors', of the settings that mean the same.
TOKENIZER_KEYS = {
    "codebook_size": "codebook_size", "codebook_dim": "token_size", "commitment": "commitment_cost",
    "rope_base": "rope_base_len", "latents": "num_latent_tokens", "keep_minimum": "num_min_tokens",
    "merge_residual": "residual_image_tokens", "drop_probability": "drop_prob"}
GENERATOR_KEYS = {
    "layers": "n_layer", "heads": "n_head", "width": "dim", "codebook_size": "vocab_size", "tokens": "block_size",
    "classes": "num_classes", "residual_dropout": "resid_dropout_p", "ffn_dropout": "ffn_dropout_p",
    "token_dropout": "token_dropout_p", "class_dropout": "class_dropout_prob"}

# Why the release's code has other values of these.
REASONS = {
    "latent_layout": "it always re-reads the latents in its legacy layout", "merge": "it keeps every second token",
    "merge_grid": "it narrows the width alone", "merge_factor": "its pooling factors 1 and 4 cannot run",
    "latent_init": "its learnable latents cannot run", "cnn": "its CNN is not configurable",
    "latent_hierarchy": "its latents always have levels of 1, 1, 2, 4, ..."}
# And what the fixed ones of its own would mean.
MEANINGS = {
    "vae_encoder": "there is no CNN encoder", "use_l2_norm": "the quantiser measures distances off the sphere",
    "learnable_dec_image_tokens": "the decoder starts from upsampled latents"}
OURS_ALONE = {"codebook_init", "revive_after"}       # of training, no part of the model
OF_MERGING = {"merge", "merge_factor", "merge_grid", "merge_residual"}


class ReleasedWeightsError(RestokError):
    """What does not go between the release and here: names missing, unexpected or of another shape, settings that only one
    side has, files that hold no weights."""


class Settings(dict):
    """The authors' mapping, as they wrote it."""

    def __missing__(self, key: str):
        raise ReleasedWeightsError(f"{THEIRS} has no {key!r}; add it")

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self[key] if default is None else self.get(key, default)
        if not isinstance(value, bool):
            raise ReleasedWeightsError(f"{key}: {value!r}, expected true or false")
        return value

    def require(self, fixed: Mapping[str, Any]) -> None:
        """Raises ReleasedWeightsError for other values than these, where there are any."""
        other = [f"{key} {self[key]!r}, not {value!r}" + (f": {MEANINGS[key]}" if key in MEANINGS else "")
                 for key, value in fixed.items() if self.get(key, value) != value]
        if other:
            raise ReleasedWeightsError("only the published design loads:\n  " + "\n  ".join(other) + "\nRun these weights with "
                                       "the authors' code, or mend the configuration where it is not theirs")

    def size(self, key: str) -> tuple[int, int, int]:
        if self[key] not in list(VIT_SIZES):
            raise ReleasedWeightsError(f"{key}: {self[key]!r}, expected one of {', '.join(VIT_SIZES)}")
        return VIT_SIZES[self[key]]


def tokenizer_config(config: Mapping[str, Any]) -> Tokenizer:
    """The authors' tokenizer configuration as ours, with the release's own choices: nearest merging of the width, latents
    re-read in the legacy layout unless `is_legacy` is false. Raises ReleasedWeightsError for a setting that this project does
    not have, or that is not there, ConfigError for one that has no sense."""
    config = Settings(config)
    width, layers, heads = config.size("vit_enc_model_size")
    config.require({"vit_dec_model_size": config["vit_enc_model_size"]} | TOKENIZER_FIXED)
    pooled = "residual" if config.flag("residual_latent_tokens") else "pooled"
    start = pooled if config.flag("latent_hierarchy", True) else "sequence"
    return parse(Tokenizer, {ours: config[theirs] for ours, theirs in TOKENIZER_KEYS.items()} | dict(
        image_size=256, cnn=MASKGIT.model_dump(), width=width, encoder_layers=layers, decoder_layers=layers, heads=heads,
        latent_init="learnable" if config.flag("learnable_latent_tokens") else start, latent_hierarchy=True,
        scales=config["hierarchy_stages"] or 1 if config.flag("merge_tokens") else 1, merge_factor=2, merge="nearest",
        merge_grid="width", latent_layout="legacy" if config.flag("is_legacy", True) else "tokens",
        codebook_init="random", revive_after=0), THEIRS)


def tokenizer_settings(config: Tokenizer) -> dict[str, Any]:
    """Our tokenizer configuration as the authors' mapping. Raises ReleasedWeightsError for what their code cannot express."""
    sizes = {dims: name for name, dims in VIT_SIZES.items()}
    dims = config.width, config.encoder_layers, config.heads
    if dims not in sizes or config.decoder_layers != config.encoder_layers:
        known = ", ".join("{} ({} wide, {} layers, {} heads)".format(name, *dims) for name, dims in VIT_SIZES.items())
        raise ReleasedWeightsError("the release cannot express this tokenizer: {} wide, {} and {} layers, {} heads; its sizes "
                                   "are {}".format(*dims[:2], config.decoder_layers, config.heads, known))
    settings = TOKENIZER_PUBLISHED | {theirs: getattr(config, ours) for ours, theirs in TOKENIZER_KEYS.items()} | {
        "use_l2_norm": True, "entropy_loss_ratio": 0.0, "vit_enc_model_size": sizes[dims], "vit_dec_model_size": sizes[dims],
        "vit_dec_patch_size": 16, "test_num_latent_tokens": config.latents, "merge_tokens": config.scales > 1,
        "hierarchy_stages": config.scales, "residual_latent_tokens": config.latent_init != "pooled",
        "latent_hierarchy": config.latent_init != "sequence",
        "learnable_dec_image_tokens": True, "drop_latent_tokens": config.drop_probability > 0,
        "encoder_feature_supervision": False, "decoder_feature_supervision": False, "learnable_dec_feat_tokens": True}
    _refuse_differences(config, tokenizer_config(settings), OURS_ALONE | (OF_MERGING if config.scales == 1 else set()))
    return settings


def generator_config(config: Mapping[str, Any]) -> Generator:
    """The authors' generator configuration as ours; without mask embeddings it is the vanilla model. Raises as above."""
    config = Settings(config)
    config.require(GENERATOR_FIXED | {"n_kv_head": config.get("n_kv_head") and config["n_head"]})
    if not isinstance(config["dim"], int):
        raise ReleasedWeightsError(f"dim: {config['dim']!r}, expected a whole number")
    return parse(Generator, {ours: config[theirs] for ours, theirs in GENERATOR_KEYS.items()} | dict(
        hidden=-(-(8 * config["dim"] // 3) // 256) * 256, rope_base=10000,
        ntp=config["ar_token_num"] if config.get("spe_token_num") else "all"), THEIRS)


def generator_settings(config: Generator) -> dict[str, Any]:
    """Our generator configuration as the authors' mapping. Raises ReleasedWeightsError for what their code cannot express."""
    settings = {theirs: getattr(config, ours) for ours, theirs in GENERATOR_KEYS.items()} | {
        "cls_token_num": 1, "model_type": "c2i"}
    if config.ntp != "all":
        settings |= {"ar_token_num": config.ntp, "spe_token_num": config.tokens - 1}
    _refuse_differences(config, generator_config(settings), set())
    return settings


def _refuse_differences(ours: Config, theirs: Config, ignored: set[str]) -> None:
    """What came back from the authors' mapping must be what went in."""
    ours, theirs = ours.model_dump(), theirs.model_dump()
    faults = [f"{name} {ours[name]!r}: {REASONS.get(name, f'there it is {theirs[name]!r}')}" for name in ours
              if name not in ignored and ours[name] != theirs[name]]
    if faults:
        raise ReleasedWeightsError("the release cannot express this model:\n  " + "\n  ".join(faults))


def complete_tokenizer_settings(state_dict: Mapping[str, Tensor],
                                known: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The authors' mapping for a tokenizer's tensors (names without prefixes): what is `known`, else what names and shapes
    say, else the published values. Those are also returned alone, as assumed. Raises ReleasedWeightsError."""
    codebook, (width,) = _shape(state_dict, "quantize.embedding.weight", 2), _shape(state_dict, "encoder.ln_pre.weight", 1)
    sizes = {dims[0]: name for name, dims in VIT_SIZES.items()}
    if width not in sizes:
        raise ReleasedWeightsError(f"encoder.ln_pre.weight: {width} wide; released tokenizers are {', '.join(map(str, sizes))}")
    scales = _count(state_dict, r"encoder\.level_embedding\.(\d+)")
    levels = _count(state_dict, r"encoder\.latent_token_level_embedding\.(\d+)")
    inferred = {"codebook_size": codebook[0], "token_size": codebook[1], "vit_enc_model_size": sizes[width],
                "vit_dec_model_size": sizes[width], "merge_tokens": scales > 1, "hierarchy_stages": scales,
                "multi_quant": "encoder.conv_out.weight" not in state_dict}
    if levels > 1:                                                               # one level tells no length
        inferred["num_latent_tokens"] = 2 ** (levels - 1)
    return _complete(known, inferred, TOKENIZER_PUBLISHED)


def complete_generator_settings(state_dict: Mapping[str, Tensor],
                                known: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `complete_tokenizer_settings`, of a generator's tensors."""
    vocabulary, width = _shape(state_dict, "tok_embeddings.weight", 2)
    masks = "spe_tok_embeddings.special_embeddings.weight"
    inferred = {"n_layer": _count(state_dict, r"layers\.(\d+)\."), "dim": width, "vocab_size": vocabulary,
                "num_classes": _shape(state_dict, "cls_embedding.embedding_table.weight", 2)[0] - 1}
    published = {"n_head": width // HEAD_WIDTH} | GENERATOR_PUBLISHED
    if masks in state_dict:
        count, _ = _shape(state_dict, masks, 2)
        inferred |= {"spe_token_num": count, "block_size": count + 1}
        published["ar_token_num"] = 4
    return _complete(known, inferred, published)


def _complete(known: Mapping[str, Any], inferred: dict, published: dict) -> tuple[dict[str, Any], dict[str, Any]]:
    assumed = {key: value for key, value in published.items() if key not in inferred and key not in known}
    return published | inferred | dict(known), assumed


def _shape(state_dict: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    if name not in state_dict or state_dict[name].ndim != dims:
        raise ReleasedWeightsError(f"missing: {name} of {dims} dimensions, so these are not the weights expected here")
    return tuple(state_dict[name].shape)


def _count(state_dict: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state_dict if (match := re.match(pattern, name))})
