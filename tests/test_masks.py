import torch
from conftest import picture

from restok.hierarchy import group_sizes
from restok.nn.masks import block_causal


def test_encoder_mask_of_figure_8a():
    """Scales of 1 and 2 image tokens, latent levels of 1, 1 and 2: each group sees itself and what is coarser."""
    assert picture(block_causal((1, 2, 1, 1, 2))) == "\n".join([
        "#......",
        "###....",
        "###....",
        "####...",
        "#####..",
        "#######",
        "#######"])


def test_generator_mask_of_figure_8b():
    """Four next-token predictions, then a level of 4."""
    assert picture(block_causal(group_sizes(8, 4))) == "\n".join([
        "#.......",
        "##......",
        "###.....",
        "####....",
        "########",
        "########",
        "########",
        "########"])


def test_vanilla_is_causal_and_one_group_sees_all():
    assert torch.equal(block_causal(group_sizes(8, 8)), torch.ones(8, 8).tril().bool())
    assert block_causal((5,)).all()
