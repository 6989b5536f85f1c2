from fractions import Fraction

import pytest

from restok.hierarchy import group_sizes, keep_probabilities, latent_grids, merge_kernels, merge_layers, prefixes, scale_grids


def test_levels_and_steps_of_128_tokens():
    assert group_sizes(128) == (1, 1, 2, 4, 8, 16, 32, 64)                       # 8 levels, 8 steps
    assert group_sizes(128, 4) == (1, 1, 1, 1, 4, 8, 16, 32, 64)                 # 9 steps
    assert group_sizes(128, 128) == (1,) * 128                                   # vanilla
    assert prefixes(group_sizes(128)) == (1, 2, 4, 8, 16, 32, 64, 128)


@pytest.mark.parametrize(("total", "first"), [(96, 1), (128, 3), (4, 8), (8, 0)])
def test_totals_that_doubling_misses_are_refused(total, first):
    with pytest.raises(ValueError, match="never arrives"):
        group_sizes(total, first)


def test_grids_double_the_width_first():
    assert latent_grids(128) == ((1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8))
    assert [h * w for h, w in latent_grids(32)] == list(group_sizes(32))


def test_table_9_exact():
    expected = {4: Fraction(1, 155), 8: Fraction(2, 155), 16: Fraction(4, 155), 32: Fraction(8, 155), 64: Fraction(16, 155),
                128: Fraction(4, 5)}
    assert keep_probabilities(128, 4, 0.2) == expected
    assert keep_probabilities(4, 4, 0.2) == {4: 1}                               # nothing shorter to drop to


def test_scales_of_the_release_and_of_table_3():
    tokens = [h * w for h, w in scale_grids(16, merge_kernels(4, 2, "width"))]
    assert tokens == [256, 128, 64, 32]
    assert scale_grids(16, merge_kernels(4, 2, "width"))[-1] == (16, 2)
    assert scale_grids(16, merge_kernels(4, 2, "2d"))[-1] == (8, 4)
    assert [h * w for h, w in scale_grids(16, merge_kernels(4, 4, "2d"))] == [256, 64, 16, 4]
    assert [h * w for h, w in scale_grids(16, merge_kernels(4, 1, "2d"))] == [256] * 4
    with pytest.raises(ValueError, match="does not divide"):
        scale_grids(2, merge_kernels(4, 4, "2d"))


def test_merging_layers():
    assert merge_layers(24, 4) == (6, 12, 18)
    assert merge_layers(6, 4) == (1, 3, 4)
    assert merge_layers(24, 1) == ()
