"""Images out of models on one device, batch after batch."""

import numpy as np
import pytest
import torch
from conftest import small_params

from restok.config import Guidance
from restok.data.transforms import to_uint8
from restok.generator.model import HAR
from restok.generator.sampling import generate
from restok.nn.finite import NotFiniteError
from restok.stages.sampler import Drawing
from restok.tokenizer.model import ResTok

LABELS = np.arange(11) % 10
GUIDANCE = Guidance(schedule="linear", scale=2.0)


def drawing(*overrides, **sampling):
    params = small_params(*overrides)
    torch.manual_seed(0)
    tokenizer, generator = ResTok(params.tokenizer), HAR(params.generator)
    torch.nn.init.normal_(generator.head.weight, std=0.3)
    return Drawing(tokenizer.eval(), generator.eval(), params.sampling.model_copy(update=sampling))


@pytest.mark.parametrize("guidance", [None, GUIDANCE], ids=str)
@pytest.mark.parametrize("sizes", [(11, 11), (4, 4), (3, 8), (2, 5)], ids=str)
def test_images_are_those_of_their_labels_and_numbers_whatever_the_batches(sizes, guidance):
    at_once, size = sizes
    ours = drawing(batch_size=at_once)
    codes = torch.cat([generate(ours.generator, torch.tensor([label]), guidance, 1.0, ours.sampling.top_k, ours.sampling.top_p,
                                seed=5, offset=number) for number, label in enumerate(LABELS)])
    expected = to_uint8(ours.tokenizer.decode(codes))
    batches = list(ours.batches(guidance, LABELS, 5, size))
    assert [first for first, _ in batches] == list(range(0, 11, size))
    assert all(len(images) == min(size, 11 - first) for first, images in batches)
    apart = np.abs(np.concatenate([images for _, images in batches]).astype(int) - expected)
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01        # a product of another shape rounds otherwise


def test_a_part_of_the_images_is_what_the_whole_has_there():
    ours = drawing(batch_size=3)
    whole = dict(ours.batches(GUIDANCE, LABELS, 0, 4))
    part = list(ours.batches(GUIDANCE, LABELS, 0, 4, 4, 10))
    assert [first for first, _ in part] == [4, 8] and np.array_equal(part[0][1], whole[4])
    assert len(part[1][1]) == 2 and not list(ours.batches(GUIDANCE, LABELS, 0, 4, 4, 4))


def test_batches_are_cut_evenly_since_on_a_gpu_each_costs_what_the_largest_does():
    ours, drawn = drawing(batch_size=5), []
    whole = ours.decoded
    ours.decoded = lambda codes, sound: drawn.append(len(codes)) or whole(codes, sound)
    assert [len(images) for _, images in ours.batches(None, LABELS, 0, 6)] == [6, 5] and drawn == [3, 3, 5]


def test_the_next_batch_is_drawn_before_this_one_is_waited_for():
    ours, seen = drawing(batch_size=2), []
    whole = ours.decoded
    ours.decoded = lambda codes, sound: seen.append(len(codes)) or whole(codes, sound)
    batches = ours.batches(None, LABELS[:6], 0, 2)
    for done in (2, 3, 3):
        next(batches)
        assert len(seen) == done


def test_another_guidance_is_drawn_by_steps_of_its_own():
    ours = drawing(batch_size=11)
    (_, plain), = ours.batches(None, LABELS, 0, 11)
    (_, guided), = ours.batches(Guidance(schedule="constant", scale=9.0), LABELS, 0, 11)
    (_, again), = ours.batches(None, LABELS, 0, 11)
    assert np.array_equal(plain, again) and not np.array_equal(plain, guided)


@pytest.mark.parametrize("broken", ["generator", "tokenizer"])
def test_what_is_not_finite_is_refused(broken):
    ours = drawing(batch_size=4)
    with torch.no_grad():
        next((ours.generator.head if broken == "generator" else ours.tokenizer.cnn_decoder).parameters()).fill_(torch.nan)
    wanted, message = {"generator": (NotFiniteError, "logits, first in step 1 of 6"),
                       "tokenizer": (ValueError, "images hold NaN or infinity")}[broken]
    with pytest.raises(wanted, match=message):
        next(ours.batches(None, LABELS, 0, 4))


def test_half_precision_draws_most_of_the_same_codes():
    """The decoder's CNN computes in float32."""
    codes, types = [], set()
    for precision in ("fp32", "bf16"):
        ours = drawing(batch_size=11, precision=precision)
        whole = ours.decoded
        ours.decoded = lambda drawn, sound, whole=whole: codes.append(drawn) or whole(drawn, sound)
        convolutions = [module for module in ours.tokenizer.cnn_decoder.modules() if isinstance(module, torch.nn.Conv2d)]
        for one in convolutions:
            one.register_forward_hook(lambda module, given, made: types.add(made.dtype))
        (_, images), = ours.batches(None, LABELS, 0, 11)
        assert images.dtype == np.uint8 and ours.generator.head.weight.dtype == {
            "fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert types == {torch.float32} and 0.5 < (codes[0] == codes[1]).float().mean() < 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="takes a GPU")
def test_on_a_gpu_captured_and_overlapped_batches_hold_the_same_images():
    ours = drawing(batch_size=3)
    ours = Drawing(ours.tokenizer.cuda(), ours.generator.cuda(), ours.sampling)
    found = np.concatenate([images for _, images in ours.batches(GUIDANCE, LABELS, 5, 8)])
    codes = torch.cat([generate(ours.generator, torch.tensor([label]), GUIDANCE, 1.0, ours.sampling.top_k, ours.sampling.top_p,
                                seed=5, offset=number) for number, label in enumerate(LABELS)])
    apart = np.abs(found.astype(int) - to_uint8(ours.tokenizer.decode(codes)))
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01
