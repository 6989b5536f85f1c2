"""How near a reconstruction is to its own image: PSNR and SSIM, one value an image, so that a mean can carry its spread."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2       # (K L)^2 for a data range L = 1


def psnr(images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """-10 log10 of the mean squared error, in dB, for 8-bit images in [0, 1].

    A perfect image, which would be infinite, takes the value of one that is off by 1/255 in a single number
    (`psnr_ceiling`): the best that an imperfect 8-bit image can reach, so a perfect one never lowers a mean.
    """
    _check(images, targets)
    error = (images - targets).double().square().mean((1, 2, 3))                           # b
    return (-10 * error.log10()).clamp(max=psnr_ceiling(images[0].numel()))


def psnr_ceiling(numbers: int) -> float:
    """In dB, for images of so many numbers (c h w): 48.13 + 10 log10(c h w)."""
    return -10 * torch.tensor(1 / 255**2 / numbers, dtype=torch.float64).log10().item()


def ssim(images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Structural similarity (Wang et al. 2004): mean over channels and over all 11 x 11 Gaussian windows inside the image.

    Raises ValueError for images smaller than a window.
    """
    _check(images, targets)
    height, width = images.shape[-2:]
    if min(height, width) < WINDOW:
        raise ValueError(f"images of {height}x{width} are smaller than SSIM's window of {WINDOW}x{WINDOW}: take larger images")
    x, y = images.double(), targets.double()
    mean_x, mean_y, squares, product = _blur(torch.stack([x, y, x**2 + y**2, x * y]))      # b c h' w' each
    means = mean_x**2 + mean_y**2
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (means + C1)
    structure = (2 * covariance + C2) / (squares - means + C2)
    return (luminance * structure).mean((1, 2, 3))


def _blur(maps: Float[Tensor, "s b c h w"]) -> Float[Tensor, "s b c hh ww"]:
    """Gaussian windows, valid padding, as a matrix product on either side: on a CPU four times as fast as convolutions."""
    height, width = (_windows(size).to(maps) for size in maps.shape[-2:])
    return height @ maps @ width.T


def _windows(size: int) -> Float[Tensor, "positions size"]:
    """One row a position of the window: its Gaussian there, zero elsewhere."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    kernel = (-offsets**2 / (2 * SIGMA**2)).exp()
    return torch.stack([F.pad(kernel / kernel.sum(), (left, size - WINDOW - left)) for left in range(size - WINDOW + 1)])


def _check(images: Tensor, targets: Tensor) -> None:
    if images.shape != targets.shape or images.ndim != 4:
        raise ValueError(f"images of {tuple(images.shape)} against {tuple(targets.shape)}: expected b c h w, twice the same")
