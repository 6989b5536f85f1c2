"""Likeness of a reconstruction to its image: closed forms, and definitions written a second time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from restok.metrics import reconstruction
from restok.metrics.reconstruction import psnr, psnr_ceiling, similarity, similarity_names, structure

GAUSSIAN = np.exp(-((np.mgrid[:11, :11] - 5) ** 2).sum(0) / (2 * 1.5**2))
GAUSSIAN /= GAUSSIAN.sum()


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(*shape, seed=0):
    """Images with something to see at every scale."""
    return sum(F.interpolate(uniform(*shape[:2], side, side, seed=seed + side), size=shape[2:], mode="bilinear")
               for side in (3, 12, 48)) / 3


def ssim(x, y):
    return reconstruction.ssim(structure(x, y, scales=1))


def ms_ssim(x, y):
    return reconstruction.ms_ssim(structure(x, y, scales=5))


def pictures(n, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


# PSNR

def test_psnr_of_a_known_offset():
    images = torch.full((2, 3, 8, 8), 0.5)
    offset = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert psnr(images, images + offset).tolist() == pytest.approx([20, 40], rel=1e-5)


def test_a_perfect_image_counts_as_one_that_is_off_by_one_level_in_one_number():
    image = torch.full((1, 3, 16, 16), 100 / 255, dtype=torch.float64)
    nearly = image.clone()
    nearly[0, 1, 2, 3] = 101 / 255
    assert psnr(image, image).item() == pytest.approx(psnr_ceiling(3 * 16 * 16))
    assert psnr(image, nearly).item() == pytest.approx(psnr_ceiling(3 * 16 * 16))


# SSIM

def windows(a, b):
    """SSIM and its contrast-structure factor of two matrices, window by window."""
    whole, structure = [], []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = a[top:top + 11, left:left + 11], b[top:top + 11, left:left + 11]
            mean_x, mean_y = (GAUSSIAN * x).sum(), (GAUSSIAN * y).sum()
            var_x, var_y = (GAUSSIAN * (x - mean_x) ** 2).sum(), (GAUSSIAN * (y - mean_y) ** 2).sum()
            covariance = (GAUSSIAN * (x - mean_x) * (y - mean_y)).sum()
            structure.append((2 * covariance + 9e-4) / (var_x + var_y + 9e-4))
            whole.append((2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4) * structure[-1])
    return np.mean(whole), np.mean(structure)


def test_ssim_of_an_image_to_itself_is_one():
    images = uniform(2, 3, 16, 20)
    assert ssim(images, images).tolist() == pytest.approx([1, 1])


def test_ssim_is_its_definition_window_by_window():
    x, y = uniform(2, 2, 13, 12), uniform(2, 2, 13, 12, seed=1)
    expected = [np.mean([windows(x[i, c].numpy(), y[i, c].numpy())[0] for c in range(2)]) for i in range(2)]
    assert ssim(x, y).tolist() == pytest.approx(expected, rel=1e-9)


def test_ssim_keeps_its_digits_where_a_bright_image_is_almost_flat():
    """The variance is a difference of nearly equal moments: in float32 it would be rounding alone."""
    x = 0.999 + 1e-4 * uniform(1, 1, 11, 11)
    y = x + 1e-4 * uniform(1, 1, 11, 11, seed=1)
    expected, _ = windows(x[0, 0].numpy(), y[0, 0].numpy())
    assert 1 - ssim(x, y).item() == pytest.approx(1 - expected, rel=1e-6)


def test_ssim_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ssim(uniform(1, 3, 16, 16), uniform(1, 3, 16, 16))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# MS-SSIM

def halved(a):
    a = a[:a.shape[0] // 2 * 2, :a.shape[1] // 2 * 2]
    return (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4


def multiscale(a, b):
    """Wang, Simoncelli and Bovik 2003, of two matrices."""
    value = 1
    for exponent in (0.0448, 0.2856, 0.3001, 0.2363):
        value *= max(windows(a, b)[1], 0) ** exponent
        a, b = halved(a), halved(b)
    return value * max(windows(a, b)[0], 0) ** 0.1333


def test_ms_ssim_is_its_definition_window_by_window():
    x = smooth(1, 1, 177, 176)
    y = 0.5 * x + 0.5 * smooth(1, 1, 177, 176, seed=1)
    expected = multiscale(x[0, 0].numpy(), y[0, 0].numpy())
    assert 0.1 < expected < 0.9
    assert ms_ssim(x, y).item() == pytest.approx(expected, rel=1e-9)


def test_ms_ssim_is_the_mean_over_channels_and_each_image_has_its_own():
    x, y = smooth(2, 3, 176, 180), smooth(2, 3, 176, 180, seed=1)
    alone = [[ms_ssim(x[i:i + 1, c:c + 1], y[i:i + 1, c:c + 1]).item() for c in range(3)] for i in range(2)]
    assert ms_ssim(x, y).tolist() == pytest.approx(np.mean(alone, axis=1).tolist(), rel=1e-12)
    assert alone[0] != alone[1]


def test_ms_ssim_is_one_for_equal_images_falls_with_distortion_and_is_zero_for_the_negative():
    x, noise = smooth(1, 3, 176, 176), uniform(1, 3, 176, 176, seed=9) - 0.5
    values = [ms_ssim(x, x + strength * noise).item() for strength in (0, 0.1, 0.3, 1)]
    assert values[0] == pytest.approx(1) and values == sorted(values, reverse=True) and len(set(values)) == 4
    assert ms_ssim(x, 1 - x).item() == 0


# All of them

class FirstNumber(torch.nn.Module):
    """Stands for LPIPS: the difference of the first numbers, if all is as LPIPS must have it."""

    def forward(self, a, b, normalize):
        assert normalize and a.dtype == b.dtype == torch.float32 and 0 <= a.min() and 0.9 < a.max() <= 1
        assert torch.get_float32_matmul_precision() == "highest" and not torch.is_autocast_enabled("cpu")
        return (a - b)[:, :1, :1, :1].abs()


def test_similarity_is_each_metric_in_float64_and_leaves_out_what_cannot_be():
    for height, lpips, names in ((176, FirstNumber(), ["psnr", "ssim", "ms_ssim", "lpips"]), (175, None, ["psnr", "ssim"]),
                                 (10, FirstNumber(), ["psnr"])):
        images, targets = pictures(2, height, 180), pictures(2, height, 180, seed=1)
        with torch.autocast("cpu"):
            found = similarity(images, targets, lpips, "cpu")
        assert list(found) == names == similarity_names((height, 180), lpips is not None)
        assert all(value.dtype == torch.float64 and value.shape == (2,) for value in found.values())
        error = ((images.astype(float) - targets) / 255) ** 2
        assert found["psnr"].tolist() == pytest.approx((-10 * np.log10(error.mean((1, 2, 3)))).tolist(), rel=1e-12)
        a, b = (torch.tensor(x).permute(0, 3, 1, 2).double() / 255 for x in (images, targets))
        if "ssim" in names:
            assert torch.equal(found["ssim"], ssim(a, b))
        if "ms_ssim" in names:
            assert torch.equal(found["ms_ssim"], ms_ssim(a, b))
            assert found["lpips"].tolist() == pytest.approx((a - b)[:, 0, 0, 0].abs().tolist(), rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same():
    images, targets = pictures(30, 176, 180), pictures(30, 176, 180, seed=1)         # 90 channels: more than go at once
    here, there = (similarity(images, targets, None, device) for device in ("cpu", "cuda"))
    assert here.keys() == there.keys()
    for name in here:
        torch.testing.assert_close(here[name], there[name], rtol=1e-9, atol=0)


def test_image_distances_refuse_small_images_other_shapes_and_what_is_not_8_bit(unchecked):
    with pytest.raises(ValueError, match="10x16 are smaller than 11x11"):
        ssim(torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16))
    with pytest.raises(ValueError, match="200x175 are smaller than 176x176"):
        ms_ssim(torch.zeros(1, 3, 200, 175), torch.zeros(1, 3, 200, 175))
    with pytest.raises(ValueError, match="twice the same"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="twice the same"):
        similarity(pictures(2, 16, 16), pictures(2, 16, 17), None, "cpu")
    with pytest.raises(ValueError, match="targets: float64, not uint8"):
        similarity(pictures(1, 16, 16), pictures(1, 16, 16) / 255, None, "cpu")
