"""The release's own outputs, at small size with weights by formula; its names and shapes, at full size without any weight."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from parity.closed_form import state_dict

from restok import compat
from restok.config import Guidance
from restok.generator.sampling import generate

PARITY = Path(__file__).parent / "parity"
NAMES = json.loads(gzip.decompress((PARITY / "released_names.json.gz").read_bytes()))
SPECS = {name: json.loads((PARITY / f"{name}.json").read_text()) for name in ("tokenizer", "generator")}
LARGE_TOKENIZER = SPECS["tokenizer"]["config"] | {"vit_enc_model_size": "large", "vit_dec_model_size": "large"}
LARGE_GENERATOR = SPECS["generator"]["config"] | {"n_layer": 24, "n_head": 16, "dim": 1024, "vocab_size": 8192,
                                                  "num_classes": 1000}


def formula(name):
    spec = SPECS[name]
    return {key: torch.from_numpy(value) for key, value in state_dict(spec["keys"], spec.get("scale", {})).items()}


def meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def tokenizer():
    return compat.load_released_tokenizer(formula("tokenizer"), SPECS["tokenizer"]["config"])


@pytest.fixture(scope="module")
def generator():
    return compat.load_released_generator(formula("generator"), SPECS["generator"]["config"])


@pytest.fixture(scope="module")
def released():
    return {name: np.load(PARITY / f"{name}.npz") for name in SPECS}


def test_the_released_tokenizers_latents_and_codes(tokenizer, released):
    fixture, out = released["tokenizer"], {}
    codes = tokenizer.encode(torch.from_numpy(fixture["images"]).permute(0, 3, 1, 2).float() / 255, out=out)
    assert np.abs(out["latents"].numpy() - fixture["latents"]).max() < 5e-4
    assert (codes.numpy() == fixture["indices"]).sum() >= 254                     # of 256: ties may fall either way


@pytest.mark.parametrize(("images", "keep", "names"), [
    ([0], None, ["reconstruction_every8"]), ([1], 16, ["reconstruction_keep16_every8"]),
    ([0, 1], [4, 64], ["reconstruction_keep4_every8", "reconstruction_keep_4_and_64_every8"])])
def test_the_released_tokenizers_reconstructions(tokenizer, released, images, keep, names):
    """Every 8th pixel. An image's own number is all that counts: the first of [4, 64] is the first of keeping 4."""
    fixture = released["tokenizer"]
    pixels = tokenizer.decode(torch.from_numpy(fixture["indices"][images].astype(np.int64)), keep=keep).numpy()[:, :, ::8, ::8]
    for name in names:
        rows = [0] if name == "reconstruction_keep4_every8" else images
        assert np.abs(pixels[:len(rows)] - fixture[name][rows]).max() < 2e-3


def test_the_released_generators_logits(generator, released):
    fixture = released["generator"]
    codes, labels = (torch.from_numpy(fixture[key].astype(np.int64)) for key in ("codes", "labels"))
    with torch.no_grad():
        logits = generator(codes, labels)
    assert np.abs(logits[:, :, ::16].numpy() - fixture["logits_every16"]).max() < 1e-3


@pytest.mark.parametrize(("name", "guidance"), [
    ("no_guidance", None), ("constant", Guidance(schedule="constant", scale=3.75)),
    ("linear", Guidance(schedule="linear", scale=3.75)), ("cosine", Guidance(schedule="cosine", scale=3.75)),
    ("step", Guidance(schedule="step", scale=3.75, start=0.25))])
def test_the_released_generators_greedy_codes(generator, released, name, guidance):
    fixture = released["generator"]
    codes = generate(generator, torch.from_numpy(fixture["labels"].astype(np.int64)), guidance=guidance, greedy=True)
    assert np.array_equal(codes.numpy(), fixture[f"greedy_{name}"])


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
def test_a_full_size_training_checkpoint_of_the_tokenizer_loads(prefix):
    shapes = NAMES["tokenizer_large"] | NAMES["tokenizer_large_training_extra"] | {"foundation_model.norm.weight": [1024]}
    tokenizer = compat.load_released_tokenizer(meta({prefix + name: s for name, s in shapes.items()}), LARGE_TOKENIZER)
    assert sum(p.numel() for p in tokenizer.parameters()) == 659_693_771
    assert tokenizer.config.latent_layout == "legacy" and tokenizer.config.merge == "nearest" and not tokenizer.training


def test_a_full_size_training_checkpoint_keeps_its_alignment_and_margin():
    extras = {name: torch.zeros(shape) for name, shape in NAMES["tokenizer_large_training_extra"].items()}
    alignment = compat.load_released_alignment(extras, LARGE_TOKENIZER | {"cos_margin": 0.25})
    assert sum(p.numel() for p in alignment.parameters()) == 661_791_947 - 659_693_771
    assert alignment.margin == 0.75 and alignment.projection == "tokenizer"
    alone = compat.load_released_alignment({"vf_proj.weight": extras["vf_proj.weight"]}, LARGE_TOKENIZER | {"cos_margin": 0.15})
    assert list(alone.phi) == ["encoder"] and alone.vf_token is None and alone.margin == 0.85
    with pytest.raises(compat.ReleasedWeightsError, match="feat_mask_token"):
        compat.load_released_alignment({"decoder.feat_mask_token": extras["decoder.feat_mask_token"]}, LARGE_TOKENIZER)


def test_both_full_size_generators_load():
    har = compat.load_released_generator(meta(NAMES["har_large"]), LARGE_GENERATOR)
    vanilla = {key: value for key, value in LARGE_GENERATOR.items() if key != "spe_token_num"}
    gpt = compat.load_released_generator(meta(NAMES["vanilla_large"]), vanilla)
    assert [sum(p.numel() for p in model.parameters()) for model in (har, gpt)] == [326_263_808, 326_133_760]
    assert (len(har.config.groups), len(gpt.config.groups)) == (9, 128)


def test_missing_unexpected_and_misshapen_tensors_are_all_listed():
    shapes = dict(NAMES["har_large"])
    del shapes["layers.3.ffn_norm.weight"]
    shapes |= {"layers.24.ffn_norm.weight": [1024], "norm.weight": [512]}
    with pytest.raises(compat.ReleasedWeightsError) as error:
        compat.load_released_generator(meta(shapes), LARGE_GENERATOR)
    assert {line.strip() for line in str(error.value).splitlines()[1:]} == {
        "missing: layers.3.ffn_norm.weight", "unexpected: layers.24.ffn_norm.weight",
        "shape: norm.weight is (512,), expected (1024,)"}


@pytest.mark.parametrize("change", [
    {"vit_dec_model_size": "small"}, {"reduction_ratio": 0.25}, {"vae_encoder": False}, {"use_l2_norm": False},
    {"learnable_dec_image_tokens": False}, {"vit_enc_patch_size": 8}, {"vit_dec_patch_size": 8}])
def test_a_design_that_was_never_published_is_refused_by_its_key(change):
    (key, value), = change.items()
    with pytest.raises(compat.ReleasedWeightsError, match=rf"only the published design loads:\n  {key} {value!r}, not .*\nRun"):
        compat.tokenizer_config(LARGE_TOKENIZER | change)


@pytest.mark.parametrize("change", [{"rope_base": 500}, {"norm_eps": 1e-6}, {"n_kv_head": 4}, {"cls_token_num": 2}])
def test_a_generator_of_another_design_is_refused_though_its_names_may_be_the_same(change):
    (key, value), = change.items()
    with pytest.raises(compat.ReleasedWeightsError, match=rf"only the published design loads:\n  {key} {value!r}, not "):
        compat.generator_config(LARGE_GENERATOR | change)
    same = {"rope_base": 10000.0, "norm_eps": 1e-5, "n_kv_head": None, "multiple_of": 256, "ffn_dim_multiplier": None}
    for also in (same, {"n_kv_head": LARGE_GENERATOR["n_head"]}):
        assert compat.generator_config(LARGE_GENERATOR | also) == compat.generator_config(LARGE_GENERATOR)


@pytest.mark.parametrize(("change", "message"), [
    ({"merge_tokens": "false"}, "merge_tokens: 'false', expected true or false"), ({"is_legacy": 0}, "is_legacy: 0, expected"),
    ({"vit_enc_model_size": ["large"]}, r"vit_enc_model_size: \['large'\], expected one of")])
def test_settings_of_another_type_are_named(change, message):
    with pytest.raises(compat.ReleasedWeightsError, match=message):
        compat.tokenizer_config(LARGE_TOKENIZER | change)
    with pytest.raises(compat.ReleasedWeightsError, match="dim: '1024', expected a whole number"):
        compat.generator_config(LARGE_GENERATOR | {"dim": "1024"})
    with pytest.raises(ValueError, match=r"the authors' configuration: width: .* found 1099511627776"):
        compat.load_released_generator({}, LARGE_GENERATOR | {"dim": 2 ** 40})


# What the release's configuration can switch.


def one_head(tensors):
    """A state dict as with `multi_quant: false`: the coarsest level's projections, for all levels."""
    stems = {"encoder.conv_out.", "decoder.decoder_embed."}
    named = {name: tensor for name, tensor in tensors.items() if not any(name.startswith(stem) for stem in stems)}
    return named | {f"{stem}{part}": tensors[f"{stem}0.{part}"] for stem in stems for part in ("weight", "bias")}


def test_one_projection_for_all_levels_is_the_same_at_each(released):
    """Against the release's own arithmetic: one 1x1 projection over all latents in its layout, one linear map of all codes."""
    tensors, config = one_head(formula("tokenizer")), SPECS["tokenizer"]["config"] | {"multi_quant": False}
    model, kept, out = compat.load_released_tokenizer(tensors, config), {}, {}
    model.encoder.norm_out.register_forward_hook(lambda module, inputs, output: kept.update(normed=output))
    model.decoder.norm_in.register_forward_hook(lambda module, inputs, output: kept.update(read=inputs[0]))
    images = torch.from_numpy(released["tokenizer"]["images"]).permute(0, 3, 1, 2).float() / 255
    codes = model.encode(images, out)
    legacy = kept["normed"].reshape(len(images), 512, 128)
    weight, bias = (tensors[f"encoder.conv_out.{part}"] for part in ("weight", "bias"))
    latents = torch.nn.functional.conv1d(legacy, weight.squeeze(-1), bias)
    torch.testing.assert_close(out["latents"], latents.mT, rtol=1e-5, atol=1e-5)
    assert (out["latents"][:, :1] - torch.from_numpy(released["tokenizer"]["latents"])[:, :1]).abs().max() < 5e-4   # level 1
    model.decode(codes)
    entries = torch.nn.functional.normalize(tensors["quantize.embedding.weight"][codes], dim=-1)
    embedded = entries @ tensors["decoder.decoder_embed.weight"].T + tensors["decoder.decoder_embed.bias"]
    embedded[:, 64:] += tensors["decoder.latent_token_level_embedding.7"]
    torch.testing.assert_close(kept["read"][:, 64:128], embedded[:, 64:], rtol=1e-5, atol=1e-5)


def test_one_projection_loads_at_full_size_and_is_inferred_from_its_name():
    tensors = one_head(meta(NAMES["tokenizer_large"]))
    for state, value in ((tensors, False), (meta(NAMES["tokenizer_large"]), True)):
        assert compat.complete_tokenizer_settings(state, {})[0]["multi_quant"] is value
    model = compat.load_released_tokenizer(tensors, LARGE_TOKENIZER | {"multi_quant": False})
    assert sum(p.numel() for p in model.parameters()) == 659_693_771
    with pytest.raises(compat.ReleasedWeightsError, match=r"missing: encoder\.conv_out\.weight, the projection for all levels"):
        compat.load_released_tokenizer(meta(NAMES["tokenizer_large"]), LARGE_TOKENIZER | {"multi_quant": False})
    with pytest.raises(compat.ReleasedWeightsError, match=r"unexpected: encoder\.conv_out\.weight"):
        compat.load_released_tokenizer(tensors, LARGE_TOKENIZER)


def test_without_the_legacy_layout_each_latent_gives_its_own_code(tokenizer, released):
    plain = compat.load_released_tokenizer(formula("tokenizer"), SPECS["tokenizer"]["config"] | {"is_legacy": False})
    assert (plain.config.latent_layout, tokenizer.config.latent_layout) == ("tokens", "legacy")
    assert compat.tokenizer_config(SPECS["tokenizer"]["config"] | {"is_legacy": True}) == tokenizer.config
    kept, out = {}, {}
    plain.encoder.norm_out.register_forward_hook(lambda module, inputs, output: kept.update(normed=output))
    plain.encode(torch.from_numpy(released["tokenizer"]["images"]).permute(0, 3, 1, 2).float() / 255, out)
    torch.testing.assert_close(out["latents"][:, 64:], plain.encoder.heads[7](kept["normed"][:, 64:]))
    with pytest.raises(compat.ReleasedWeightsError, match="latent_layout 'tokens': it always re-reads"):
        compat.tokenizer_settings(plain.config)


# And back.

@pytest.mark.parametrize("name", ["tokenizer", "generator"])
def test_there_and_back_is_the_identity(name, request):
    """Names, shapes and values of every tensor."""
    theirs, back = formula(name), compat.released_tensors(request.getfixturevalue(name))
    assert back.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert back[key].shape == tensor.shape and torch.equal(back[key], tensor), key


def test_half_precision_arrives_as_float32():
    halves = {key: tensor.half() for key, tensor in formula("generator").items()}
    model = compat.load_released_generator(halves, SPECS["generator"]["config"])
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.head.weight, halves["output.weight"].float())


@pytest.mark.parametrize(("names", "load", "config"), [
    ("tokenizer_large", compat.load_released_tokenizer, LARGE_TOKENIZER),
    ("har_large", compat.load_released_generator, LARGE_GENERATOR),
    ("vanilla_large", compat.load_released_generator, {k: v for k, v in LARGE_GENERATOR.items() if k != "spe_token_num"})])
def test_full_size_models_go_back_under_the_released_names_and_shapes(names, load, config):
    back = compat.released_tensors(load(meta(NAMES[names]), config))
    assert {name: list(tensor.shape) for name, tensor in back.items()} == NAMES[names]


def test_configurations_come_back_as_they_were():
    tokenizer, generator = (SPECS[name]["config"] for name in SPECS)
    assert compat.tokenizer_settings(compat.tokenizer_config(tokenizer)) == tokenizer
    assert compat.generator_settings(compat.generator_config(generator)) == generator
    flat = LARGE_TOKENIZER | {"merge_tokens": False, "hierarchy_stages": 1, "residual_latent_tokens": False,
                              "residual_image_tokens": False}
    for theirs in (flat, LARGE_TOKENIZER | {"latent_hierarchy": False}):
        assert compat.tokenizer_settings(compat.tokenizer_config(theirs)) == theirs
    assert compat.tokenizer_config(theirs).latent_init == "sequence" and len(compat.tokenizer_config(theirs).levels) == 8
    assert "ar_token_num" not in compat.generator_settings(compat.generator_config(generator | {"spe_token_num": 0}))


@pytest.mark.parametrize(("change", "reason"), [
    ({"latent_layout": "tokens"}, "latent_layout 'tokens': it always re-reads"),
    ({"merge": "average", "merge_grid": "2d"}, "merge 'average': it keeps every second token\n  merge_grid '2d': it narrows"),
    ({"merge_factor": 4, "merge_grid": "2d"}, "merge_factor 4: its pooling factors 1 and 4 cannot run"),
    ({"latent_init": "learnable"}, "latent_init 'learnable': its learnable latents cannot run"),
    ({"latent_hierarchy": False}, "latent_hierarchy False: its latents always have levels of 1, 1, 2, 4"),
    ({"image_size": 128}, "image_size 128: there it is 256"), ({"decoder_layers": 12}, "its sizes are small .512 wide")])
def test_a_tokenizer_that_their_code_cannot_express_is_refused_with_the_reason(change, reason):
    ours = compat.tokenizer_config(LARGE_TOKENIZER)
    with pytest.raises(compat.ReleasedWeightsError, match=reason):
        compat.tokenizer_settings(ours.model_copy(update=change))


def test_without_merging_how_it_would_merge_does_not_matter():
    ours = compat.tokenizer_config(LARGE_TOKENIZER | {"merge_tokens": False})
    assert compat.tokenizer_settings(ours.model_copy(update={"merge": "average", "merge_grid": "2d"}))["merge_tokens"] is False


def test_a_generator_that_their_code_cannot_express_is_refused_with_the_reason():
    ours = compat.generator_config(LARGE_GENERATOR)
    with pytest.raises(compat.ReleasedWeightsError, match="hidden 4096: there it is 2816"):
        compat.generator_settings(ours.model_copy(update={"hidden": 4096}))


# Without a configuration.

@pytest.mark.parametrize(("names", "complete", "config", "assumed"), [
    ("tokenizer_large", compat.complete_tokenizer_settings, LARGE_TOKENIZER | {"drop_prob": 0.2},
     {"rope_base_len", "reduction_ratio", "residual_image_tokens", "num_min_tokens"}),
    ("har_large", compat.complete_generator_settings, LARGE_GENERATOR, {"n_head", "ar_token_num"}),
    ("vanilla_large", compat.complete_generator_settings, LARGE_GENERATOR, {"n_head", "block_size"})])
def test_names_and_shapes_tell_the_rest_is_published_and_named(names, complete, config, assumed):
    settings, guessed = complete(meta(NAMES[names]), {})
    dropouts = {"token_dropout_p", "resid_dropout_p", "ffn_dropout_p", "class_dropout_prob"}
    for key, value in settings.items():
        assert value == (0.1 if key in dropouts else config[key]), key
    assert assumed <= guessed.keys() and {key: settings[key] for key in guessed} == guessed
    assert not guessed.keys() & {"codebook_size", "vocab_size", "num_classes", "hierarchy_stages", "num_latent_tokens", "dim"}
    load = compat.tokenizer_config if names == "tokenizer_large" else compat.generator_config
    assert load(settings).width == 1024


def test_what_was_found_goes_before_what_is_assumed():
    settings, assumed = compat.complete_generator_settings(meta(NAMES["har_large"]), {"ar_token_num": 1, "n_layer": 24})
    assert settings["ar_token_num"] == 1 and "ar_token_num" not in assumed and "n_head" in assumed


def test_settings_that_are_missing_or_senseless_are_named():
    with pytest.raises(compat.ReleasedWeightsError, match="no 'codebook_size'"):
        compat.tokenizer_config({key: value for key, value in LARGE_TOKENIZER.items() if key != "codebook_size"})
    with pytest.raises(compat.ReleasedWeightsError, match="vit_enc_model_size: 'huge', expected one of small, base, large"):
        compat.tokenizer_config(LARGE_TOKENIZER | {"vit_enc_model_size": "huge"})
    with pytest.raises(ValueError, match="the authors' configuration: ntp"):
        compat.generator_config(LARGE_GENERATOR | {"ar_token_num": 3})
    with pytest.raises(compat.ReleasedWeightsError, match=r"missing: quantize\.embedding\.weight"):
        compat.complete_tokenizer_settings(meta(NAMES["har_large"]), {})
