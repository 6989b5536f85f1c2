"""What Figs. 8 and 9 draw is what the models are given, place by place."""

import numpy as np
import pytest
import torch
from conftest import small_params

from restok.generator.model import HAR
from restok.nn.attention import Attention
from restok.nn.rope import rotation
from restok.stages import layout
from restok.tokenizer.model import ResTok


def heard(model) -> list[tuple]:
    """The (mask, rotation) that each attention is called with, as it happens."""
    calls = []

    def hear(module, args, kwargs):
        bound = dict(zip(("x", "rotation", "mask"), args, strict=False)) | kwargs
        calls.append((bound.get("mask"), bound["rotation"]))

    for module in model.modules():
        if isinstance(module, Attention):
            module.register_forward_pre_hook(hear, with_kwargs=True)
    return calls


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("overrides", [[], ["tokenizer.merge_factor=4"], ["tokenizer.merge_factor=1"], ["tokenizer.scales=1"],
                                       ["tokenizer.merge_grid=width", "tokenizer.latent_hierarchy=false"]])
def test_the_encoder_is_given_what_is_drawn_at_every_stage_of_merging(overrides):
    config = small_params(*overrides).tokenizer
    model = ResTok(config)
    calls = heard(model.encoder)
    model.encode(torch.rand(1, 3, 16, 16))
    scales = 1
    for (mask, turned), kernel in zip(calls, model.encoder.kernels, strict=True):
        drawn = layout.encoder(config.model_copy(update={"scales": scales}))
        assert torch.equal(mask, torch.from_numpy(drawn["encoder_mask"]))
        ids = torch.from_numpy(drawn["encoder_ids"])
        assert same(turned, rotation(ids, config.width // config.heads, config.rope_base))
        assert drawn["encoder_groups"].sum() == len(ids) and len(drawn["encoder_names"]) == len(drawn["encoder_groups"])
        scales += kernel is not None
    assert scales == config.scales


def test_the_decoder_is_given_the_ids_that_are_drawn_and_no_mask():
    config = small_params().tokenizer
    model = ResTok(config)
    calls = heard(model.decoder)
    model.decode(torch.zeros(1, 16, dtype=torch.int64))
    drawn = layout.decoder(config)
    for mask, turned in calls:
        assert mask is None
        assert same(turned, rotation(torch.from_numpy(drawn["decoder_ids"]), config.width // config.heads, config.rope_base))
    assert drawn["decoder_names"].tolist() == ["L1", "L2", "L3", "L4", "L5", "image"]
    assert drawn["decoder_groups"].tolist() == [1, 1, 2, 4, 8, 16]


@pytest.mark.parametrize("ntp", ["1", "4", "all"])
def test_the_generator_is_given_the_mask_that_is_drawn_and_reads_what_is_named(ntp, tmp_path):
    params = small_params(f"generator.ntp={ntp}")
    model, read = HAR(params.generator), []
    with torch.no_grad():                       # every input says who it is: token i is i, mask i is 100 + i, the class -1
        model.token_embedding.weight.copy_(torch.arange(64.0)[:, None].expand(64, 32))
        model.mask_tokens.copy_(100 + torch.arange(float(len(model.mask_tokens)))[:, None].expand(-1, 32))
        model.class_embedding.weight.fill_(-1)
    model.token_dropout.register_forward_hook(lambda module, args, out: read.extend(args[0][0, :, 0].tolist()))
    calls = heard(model)
    model(torch.arange(1, 17)[None], torch.tensor([0]))
    layout.layout(params, tmp_path / "layout.npz")
    with np.load(tmp_path / "layout.npz") as drawn:
        mask, names = torch.from_numpy(drawn["generator_mask"]), drawn["generator_inputs"].tolist()
        assert drawn["generator_groups"].sum() == len(names)
    assert calls and all(torch.equal(given, mask) for given, _ in calls)
    meaning = {"class": -1, **{f"t{i}": i for i in range(1, 17)}, **{f"M{i}": 100 + i for i in range(16)}}
    assert [meaning[name] for name in names] == read


def test_groups_are_named_in_the_order_of_the_sequence():
    assert " ".join(layout.encoder(small_params().tokenizer)["encoder_names"]) == "S1 S2 S3 L1 L2 L3 L4 L5"
    assert " ".join(layout.inputs((1, 1, 1, 1, 4, 8))) == "class t1 t2 t3 t4 M0 M1 M2 t5 t6 t7 t8 M3 M4 M5 M6"
