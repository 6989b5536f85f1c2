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


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
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
    assert {"missing: blocks.3.norm2.weight", "shape: norm_out.weight is (512,), expected (1024,)"} < {
        line.strip() for line in str(error.value).splitlines()}
    assert "unexpected: layers.24.ffn_norm.weight" in str(error.value)
    assert len(str(error.value).splitlines()) == 4                                # the heading, and these three


@pytest.mark.parametrize("change", [{"vit_dec_model_size": "small"}, {"reduction_ratio": 0.25}, {"multi_quant": False}])
def test_a_design_that_was_never_published_is_refused(change):
    with pytest.raises(compat.ReleasedWeightsError, match="only the published design loads"):
        compat.tokenizer_config(LARGE_TOKENIZER | change)
