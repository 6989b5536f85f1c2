import torch
import torch.nn.functional as F

from restok.hierarchy import latent_grids
from restok.tokenizer.latents import pooling, residual_pooling, sequence_pooling


def levels(z, grids):
    parts = z.split([h * w for h, w in grids], dim=1)
    return [part.transpose(1, 2).unflatten(2, grid) for part, grid in zip(parts, grids, strict=True)]


def test_algorithm_1_telescopes_to_the_input():
    """With levels down to single tokens, the upsampled levels add up to the input."""
    p = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    parts = levels(residual_pooling(p, latent_grids(128)), latent_grids(128))
    total = sum(F.interpolate(part, size=(8, 8)) for part in parts)
    assert torch.allclose(total, p)


def test_level_2_is_zero_and_the_pooled_one_is_not():
    p = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert residual_pooling(p, latent_grids(64))[:, 1].abs().max() < 1e-12
    assert pooling(p, latent_grids(64))[:, 1].abs().max() > 0.01


def test_each_level_explains_its_grid():
    """What is left after a level has no mean in any of the level's windows."""
    p = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    grids = latent_grids(64)
    left = p
    for part, grid in zip(levels(residual_pooling(p, grids), grids), grids, strict=True):
        left = left - F.interpolate(part, size=(8, 8))
        assert F.adaptive_avg_pool2d(left, grid).abs().max() < 1e-12


def test_in_reading_order_a_latent_is_the_mean_of_its_neighbours():
    """A 2 x 4 grid of 0 .. 7 gives 4 latents of two tokens each, whatever the rows; where there are more latents than tokens,
    some repeat, as the area interpolation of the release has them."""
    p = torch.arange(8.0).view(1, 1, 2, 4)
    assert sequence_pooling(p, 4).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]
    assert sequence_pooling(p, 16).flatten().tolist() == [float(i // 2) for i in range(16)]
    assert torch.equal(sequence_pooling(p, 4), F.interpolate(p.flatten(2), size=4, mode="area").transpose(1, 2))
