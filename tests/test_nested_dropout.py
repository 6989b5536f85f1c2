from math import sqrt

import torch
from conftest import ROOT

from restok.config.load import load_params
from restok.tokenizer.nested_dropout import draw_keep

PAPER = load_params(ROOT / "params/imagenet256.yaml").tokenizer


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_lengths_come_as_often_as_table_9_says():
    """Each within four standard deviations of its exact fraction, in 20,000 images; and no other length."""
    table = {4: 1 / 155, 8: 2 / 155, 16: 4 / 155, 32: 8 / 155, 64: 16 / 155, 128: 4 / 5}
    lengths, counts = draw_keep(PAPER, 20_000, seeded(0)).unique(return_counts=True)
    assert lengths.tolist() == list(table)
    for count, p in zip(counts.tolist(), table.values(), strict=True):
        assert abs(count - 20_000 * p) < 4 * sqrt(20_000 * p * (1 - p))


def test_lengths_differ_within_a_batch():
    assert len(draw_keep(PAPER, 64, seeded(0)).unique()) > 1


def test_lengths_are_the_generators_alone():
    first = draw_keep(PAPER, 64, seeded(5))
    torch.manual_seed(123)                                                        # the global state has no say
    assert torch.equal(draw_keep(PAPER, 64, seeded(5)), first)
    assert not torch.equal(draw_keep(PAPER, 64, seeded(6)), first)


def test_a_drop_probability_of_0_keeps_everything_and_of_1_never_does():
    never, always = (PAPER.model_copy(update={"drop_probability": p}) for p in (0.0, 1.0))
    assert draw_keep(never, 500, seeded(0)).unique().tolist() == [128]
    assert 128 not in draw_keep(always, 500, seeded(0))
