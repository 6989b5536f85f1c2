import torch

from restok.tokenizer.merging import merge, split_scale, upsample


def test_average_and_nearest_on_a_small_grid():
    p = torch.tensor([[0., 2., 4., 6.], [10., 12., 14., 16.]]).reshape(1, 8, 1)
    assert merge(p, (2, 4), (1, 2), "average").flatten().tolist() == [1, 5, 11, 15]
    assert merge(p, (2, 4), (2, 2), "average").flatten().tolist() == [6, 10]
    assert merge(p, (2, 4), (1, 2), "nearest").flatten().tolist() == [0, 4, 10, 14]
    assert upsample(torch.tensor([1., 2.]).reshape(1, 2, 1), (2, 4), (2, 2)).flatten().tolist() == [1, 1, 2, 2, 1, 1, 2, 2]


def test_algorithm_2_loses_nothing():
    p = torch.randn(2, 16, 3)
    for how in ("average", "nearest"):
        coarser, finer = split_scale(p, (4, 4), (2, 2), how, residual=True)
        assert torch.allclose(finer + upsample(coarser, (4, 4), (2, 2)), p, atol=1e-6)


def test_nearest_wipes_every_even_token_of_the_finer_scale():
    """The release's fault: what stays of the finer scale is half zeros; the average keeps something of each."""
    p = torch.randn(1, 16, 3)
    _, finer = split_scale(p, (4, 4), (1, 2), "nearest", residual=True)
    assert (finer[:, ::2] == 0).all() and (finer[:, 1::2] != 0).all()
    _, finer = split_scale(p, (4, 4), (1, 2), "average", residual=True)
    assert (finer != 0).all()


def test_factor_1_copies_and_empties_the_finer_scale():
    p = torch.randn(1, 16, 3)
    coarser, finer = split_scale(p, (4, 4), (1, 1), "average", residual=True)
    assert torch.equal(coarser, p) and (finer == 0).all()
    assert torch.equal(split_scale(p, (4, 4), (1, 1), "average", residual=False)[1], p)
