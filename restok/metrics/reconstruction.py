"""How near a reconstruction is to its own image: PSNR, SSIM, MS-SSIM, LPIPS, one value an image, so that a mean can carry its
spread."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from restok.errors import InputError
from restok.metrics.features import check_images, full_precision

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2       # (K L)^2 for a data range L = 1
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)       # Wang et al. 2003: the exponent of each scale, the finest first
SMALLEST = WINDOW * 2 ** (len(SCALES) - 1)              # the side which, halved four times, still holds a window: 176
ALEXNET = 31     # the least side that LPIPS's AlexNet takes
PLANES = 64      # channels of images that a GPU compares at once: about half a GB for 256 x 256 pixels


def similarity_names(size: Sequence[int], lpips: bool) -> list[str]:
    """What `similarity` finds for images of `size` (height, width), with LPIPS's network or without."""
    least = {"psnr": 1, "ssim": WINDOW, "ms_ssim": SMALLEST, "lpips": ALEXNET}
    return [name for name in least if min(size) >= least[name] and (lpips or name != "lpips")]


@torch.no_grad()
def similarity(images: UInt8[np.ndarray, "b h w c"], targets: UInt8[np.ndarray, "b h w c"], lpips: nn.Module | None,
               device: torch.device | str) -> dict[str, Float[Tensor, " b"]]:
    """PSNR, SSIM, MS-SSIM and LPIPS of each image: float64 on the CPU, computed on `device`, where `lpips` already is.

    SSIM, MS-SSIM and LPIPS are left out for images too small for them, LPIPS without its network
    (`restok.networks.lpips.load_lpips`) too. Raises ValueError for what is not 8-bit RGB and for different shapes.
    """
    check_images("images", images)
    check_images("targets", targets)
    a, b = (torch.tensor(array, device=device).permute(0, 3, 1, 2).contiguous().double() / 255 for array in (images, targets))
    names = similarity_names(images.shape[1:3], lpips is not None)
    values = {"psnr": psnr(a, b)}
    if "ssim" in names:
        terms = structure(a, b, scales=len(SCALES) if "ms_ssim" in names else 1)           # one pass for both
        values["ssim"] = ssim(terms)
    if "ms_ssim" in names:
        values["ms_ssim"] = ms_ssim(terms)
    if "lpips" in names:
        with full_precision(a.device):
            values["lpips"] = lpips(a.float(), b.float(), normalize=True)[:, 0, 0, 0].double()
    return {name: value.cpu() for name, value in values.items()}


def psnr(images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """-10 log10 of the mean squared error, in dB, for 8-bit images in [0, 1]; in float64.

    A perfect image, which would be infinite, takes the value of one that is off by 1/255 in a single number
    (`psnr_ceiling`): the best that an imperfect 8-bit image can reach, so a perfect one never lowers a mean.
    """
    _check(images, targets)
    error = (images.double() - targets.double()).square().mean((1, 2, 3))                  # b
    return (-10 * error.log10()).clamp(max=psnr_ceiling(images[0].numel()))


def psnr_ceiling(numbers: int) -> float:
    """In dB, for images of so many numbers (c h w): 48.13 + 10 log10(c h w)."""
    return 10 * math.log10(255**2 * numbers)


def structure(images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b c h w"], scales: int) -> Float[Tensor, "b c s 2"]:
    """SSIM, and its contrast-structure factor alone, of each channel at each scale; in float64.

    Means over all 11 x 11 Gaussian windows inside the image. Each scale is half as wide as the one before: means of 2 x 2
    pixels, without an odd last row or column. Raises ValueError for images without a window at the last scale. On a CPU channel
    by channel in one thread: so the maps stay in its cache, and no time goes into waiting for threads, which takes longer than
    operations as short as these, and far longer on a busy machine. On a GPU in few large launches.
    """
    _check(images, targets)
    (height, width), smallest = images.shape[-2:], WINDOW * 2 ** (scales - 1)
    if min(height, width) < smallest:
        raise InputError(f"images of {height}x{width} are smaller than {smallest}x{smallest}, which the metric needs: "
                         "take larger images")
    step = 1 if images.device.type == "cpu" else PLANES
    pairs = zip(images.flatten(0, 1).split(step), targets.flatten(0, 1).split(step), strict=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if images.device.type == "cpu" else threads)
    try:
        terms = torch.cat([_multiscale(x.double(), y.double(), scales) for x, y in pairs])
    finally:
        torch.set_num_threads(threads)
    return terms.unflatten(0, images.shape[:2])


def ssim(terms: Float[Tensor, "b c s 2"]) -> Float[Tensor, " b"]:
    """Structural similarity (Wang et al. 2004) from `structure`: the mean over channels, at the first scale."""
    return terms[:, :, 0, 0].mean(1)


def ms_ssim(terms: Float[Tensor, "b c 5 2"]) -> Float[Tensor, " b"]:
    """Multi-scale SSIM (Wang, Simoncelli and Bovik 2003) from `structure` at five scales: the mean over channels.

    Of each channel, the product of the contrast-structure terms of all scales but the last and of the last scale's SSIM, each
    raised to its exponent, negative ones taken as 0. Images take 176 pixels a side (implementations that pad odd sides: 161).
    """
    factors = torch.cat([terms[:, :, :-1, 1], terms[:, :, -1:, 0]], dim=2).clamp(min=0)     # b c s
    return (factors ** factors.new_tensor(SCALES)).prod(2).mean(1)


def _multiscale(x: Float[Tensor, "p h w"], y: Float[Tensor, "p h w"], scales: int) -> Float[Tensor, "p s 2"]:
    terms = [_compare(x, y)]
    for _ in range(1, scales):
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        terms.append(_compare(x, y))
    return torch.stack(terms, dim=1)


def _compare(x: Float[Tensor, "p h w"], y: Float[Tensor, "p h w"]) -> Float[Tensor, "p 2"]:
    mean_x, mean_y, squares, product = _blur(torch.stack([x, y, x.square() + y.square(), x * y]))     # p hh ww each
    means, cross = mean_x.square() + mean_y.square(), mean_x * mean_y
    luminance = (2 * cross + C1) / (means + C1)
    structure = (2 * (product - cross) + C2) / (squares - means + C2)
    return torch.stack([(luminance * structure).mean((1, 2)), structure.mean((1, 2))], dim=1)


def _blur(maps: Float[Tensor, "m p h w"]) -> Float[Tensor, "m p hh ww"]:
    """Gaussian windows, valid padding, as sums of shifted copies: on a CPU many times as fast as float64 convolutions."""
    window = [math.exp(-(i - WINDOW // 2) ** 2 / (2 * SIGMA**2)) for i in range(WINDOW)]
    for dim in (-2, -1):
        size = maps.shape[dim] - WINDOW + 1
        blurred = torch.zeros_like(maps.narrow(dim, 0, size))
        for i, weight in enumerate(window):
            blurred.add_(maps.narrow(dim, i, size), alpha=weight / sum(window))
        maps = blurred
    return maps


def _check(images: Tensor, targets: Tensor) -> None:
    if images.shape != targets.shape or images.ndim != 4:
        raise InputError(f"images of {tuple(images.shape)} against {tuple(targets.shape)}: expected b c h w, twice the same")
