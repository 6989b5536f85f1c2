"""The adversary's losses, and what steadies it: hinge, LeCam, DiffAugment."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def hinge_discriminator(real: Float[Tensor, "b s"], fake: Float[Tensor, "b s"]) -> Float[Tensor, ""]:
    """relu(1 - D(x)) + relu(1 + D(G(z))), each a mean (Lim and Ye 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Float[Tensor, "b s"]) -> Float[Tensor, ""]:
    """-D(G(z)), a mean."""
    return -fake.mean()


class LeCam(nn.Module):
    """Draws each kind of prediction to where the other kind has been on average (Tseng et al. 2021, section 3.2).

    The averages are buffers, so that a run resumes exactly. They start at 0, where the hinge is undecided.
    """

    def __init__(self, decay: float = 0.999):
        super().__init__()
        self.decay = decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def forward(self, real: Float[Tensor, "b s"], fake: Float[Tensor, "b s"]) -> Float[Tensor, ""]:
        """The penalty against the averages so far."""
        # The paper prints squares without the ReLU; its authors' code, and the tokenizers that took it over, have it.
        return F.relu(real.float() - self.fake).square().mean() + F.relu(self.real - fake.float()).square().mean()

    @torch.no_grad()
    def update(self, real: Float[Tensor, ""], fake: Float[Tensor, ""]) -> None:
        """The averages take in the mean predictions of a step's whole batch."""
        self.real.lerp_(real, 1 - self.decay)
        self.fake.lerp_(fake, 1 - self.decay)


def diff_augment(images: Float[Tensor, "b c h w"], policy: Sequence[str],
                 generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """DiffAugment (Zhao et al. 2020): differentiable, and drawn anew for each image from `generator`.

    `policy` names 'color', 'translation' and 'cutout', applied in its order. On any device; the generator may be on another.
    """
    if not policy:
        return images
    x = 2 * images - 1                                         # its ranges, and 0 for what is cut out, are for [-1, 1]
    for name in policy:
        for augment in POLICIES[name]:
            x = augment(x, generator)
    return (x + 1) / 2


def brightness(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    return x + uniform(x, -0.5, 0.5, generator)


def saturation(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    grey = x.mean(dim=1, keepdim=True)
    return grey + (x - grey) * uniform(x, 0, 2, generator)


def contrast(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * uniform(x, 0.5, 1.5, generator)


def translation(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """By up to an eighth of each side."""
    height, width = x.shape[-2:]
    dy, dx = (round(side / 8) for side in (height, width))
    padded = F.pad(x, (dx, dx, dy, dy))
    corners = zip(padded, integers(x, 2 * dy + 1, generator).tolist(), integers(x, 2 * dx + 1, generator).tolist(), strict=True)
    return torch.stack([image[:, top:top + height, left:left + width] for image, top, left in corners])


def cutout(x: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """A window of half the sides, centred anywhere in the image."""
    rows, columns = (window(x, side, generator) for side in x.shape[-2:])
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def window(x: Float[Tensor, "b c h w"], side: int, generator: torch.Generator) -> Bool[Tensor, "b side"]:
    """True on half of `side` positions, or on fewer at an end."""
    half = side // 2
    start = integers(x, side + 1 - half % 2, generator).to(x.device, non_blocking=True)[:, None] - half // 2
    position = torch.arange(side, device=x.device)
    return (position >= start) & (position < start + half)


def uniform(x: Float[Tensor, "b c h w"], low: float, high: float, generator: torch.Generator) -> Float[Tensor, "b 1 1 1"]:
    u = torch.rand(len(x), 1, 1, 1, generator=generator, device=generator.device)
    return (low + (high - low) * u).to(x, non_blocking=True)


def integers(x: Float[Tensor, "b c h w"], below: int, generator: torch.Generator) -> Int[Tensor, " b"]:
    return torch.randint(below, (len(x),), generator=generator, device=generator.device)


POLICIES: dict[str, tuple[Callable[[Tensor, torch.Generator], Tensor], ...]] = {
    "color": (brightness, saturation, contrast),
    "translation": (translation,),
    "cutout": (cutout,),
}
