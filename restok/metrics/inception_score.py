"""The Inception score: how sure the classifier is of each image, and how evenly the images spread over its classes."""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from restok.errors import InputError
from restok.metrics.intervals import group_of

SPLIT = 5000        # images a split of ADM's score
SHUFFLED = 10       # splits of torch-fidelity's default score, after its shuffling
MODES = {"one split": "all images", "ADM splits": f"contiguous splits of {SPLIT}, in order",
         "ten shuffled": f"{SHUFFLED} splits after shuffling"}


class Score:
    """exp of the mean over images of KL(p(class | image) || p(class)), averaged over the splits of each of `MODES`.

    1 (no image tells anything) to k classes. Additive over images, as `frechet.Moments` is: sums of p and of its negative
    entropy a split and group, so that memory does not grow with n. Log-probabilities are logits too.
    """

    def __init__(self, n: int, classes: int, groups: int = 1, device: torch.device | str = "cpu"):
        self.n, self.classes, self.groups = n, classes, groups
        self._member = torch.from_numpy(group_of(n, groups)).to(device)                    # n
        self._shuffled = torch.from_numpy(_shuffled(n)).to(device)                         # n
        splits = {"one split": 1, "ADM splits": -(-n // SPLIT), "ten shuffled": min(SHUFFLED, n)}
        cells = {mode: (count, groups) for mode, count in splits.items()}
        exact = {"dtype": torch.float64, "device": device}
        self.p = {mode: torch.zeros(*shape, classes, **exact) for mode, shape in cells.items()}
        self.negentropy = {mode: torch.zeros(shape, **exact) for mode, shape in cells.items()}
        self.count = {mode: torch.zeros(shape, **exact) for mode, shape in cells.items()}
        self.predicted = torch.zeros(cells["ADM splits"][0], classes, dtype=torch.int64, device=device)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The additive state."""
        parts = {"p": self.p, "negentropy": self.negentropy, "count": self.count}
        return {"predicted": self.predicted, **{f"{part}.{mode}": tensor for part, modes in parts.items()
                                                for mode, tensor in modes.items()}}

    def update(self, start: int, logits: Float[Tensor, "b k"]) -> None:
        """Take in images start, start + 1, ... Raises ValueError on NaN and infinity."""
        if not logits.isfinite().all():
            raise InputError("the logits hold NaN or infinity: look at the images and at the feature network's weights")
        images, logits = torch.arange(start, start + len(logits), device=logits.device), logits.double()
        p, member = logits.softmax(1), self._member[images].long()                         # b k, b
        negentropy = -torch.special.entr(p).sum(1)                                         # b
        splits = {"one split": images * 0, "ADM splits": images // SPLIT, "ten shuffled": self._shuffled[images].long()}
        for mode, split in splits.items():
            cell = split * self.groups + member
            self.p[mode].view(-1, self.classes).index_add_(0, cell, p)
            self.negentropy[mode].view(-1).index_add_(0, cell, negentropy)
            self.count[mode].view(-1).index_add_(0, cell, torch.ones_like(negentropy))
        here = splits["ADM splits"] * self.classes + logits.argmax(1)
        self.predicted.view(-1).index_add_(0, here, torch.ones_like(here))

    def value(self, mode: str, without: int | None = None) -> float:
        """The score in one of `MODES`, of all images or without a group, within 1 to k. Raises ValueError where a split is
        empty."""
        kept = [group for group in range(self.groups) if group != without]
        count = self.count[mode][:, kept].sum(1)                                           # s
        if count.min() < 1:
            raise InputError(f"{self.n} images leave one of {len(count)} splits empty: take more")
        p = self.p[mode][:, kept].sum(1) / count[:, None]                                  # s k
        divergence = self.negentropy[mode][:, kept].sum(1) / count + torch.special.entr(p).sum(1)      # s, in nats
        return divergence.exp().mean().clamp(1, self.classes).item()

    @property
    def sorted_by_class(self) -> bool:
        """Whether splits of `SPLIT` images in order show fewer classes than all images do: then the score in ADM's splits
        collapses. Classes are counted as the network sees them, by the perplexity of its predictions; in a random order a
        split of 5,000 images has about 0.9 of the whole perplexity of 1,000 classes, half a split 0.8."""
        large = -(-(self.n - SPLIT // 2) // SPLIT)         # splits of at least half the size
        if large < 2:
            return False
        return bool(_perplexity(self.predicted[:large]).min() < 0.75 * _perplexity(self.predicted.sum(0)))


def _shuffled(n: int) -> UInt8[np.ndarray, " n"]:
    """The split of each image after torch-fidelity's shuffling. With fewer images than splits, each has one of its own."""
    order, split_of = np.random.RandomState(2020).permutation(n), np.empty(n, np.uint8)       # torch-fidelity's seed
    splits = min(SHUFFLED, n)
    for split in range(splits):
        split_of[order[split * n // splits:(split + 1) * n // splits]] = split
    return split_of


def _perplexity(counts: Int[Tensor, "... k"]) -> Float[Tensor, "..."]:
    p = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(p).sum(-1).exp()
