"""The Inception score: how sure the classifier is of each image, and how evenly the images spread over its classes."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from restok.metrics.jackknife import group_of

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
        self._split = {mode: torch.from_numpy(of).to(device) for mode, of in _splits(n).items()}
        cells = {mode: (int(of.max()) + 1, groups) for mode, of in self._split.items()}    # splits by groups
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
            raise ValueError("the logits hold NaN or infinity: look at the images and at the feature network's weights")
        images = slice(start, start + len(logits))
        logits = logits.double()
        p, member = logits.softmax(1), self._member[images]                                # b k, b
        negentropy = -torch.special.entr(p).sum(1)                                         # b
        for mode, split in self._split.items():
            cell = split[images] * self.groups + member
            self.p[mode].view(-1, self.classes).index_add_(0, cell, p)
            self.negentropy[mode].view(-1).index_add_(0, cell, negentropy)
            self.count[mode].view(-1).index_add_(0, cell, torch.ones_like(negentropy))
        here = self._split["ADM splits"][images] * self.classes + logits.argmax(1)
        self.predicted.view(-1).index_add_(0, here, torch.ones_like(here))

    def value(self, mode: str, without: int | None = None) -> float:
        """The score in one of `MODES`, of all images or without a group. Raises ValueError where a split is empty."""
        kept = [group for group in range(self.groups) if group != without]
        count = self.count[mode][:, kept].sum(1)                                           # s
        if count.min() < 1:
            raise ValueError(f"{self.n} images leave one of {len(count)} splits empty: take more")
        p = self.p[mode][:, kept].sum(1) / count[:, None]                                  # s k
        divergence = self.negentropy[mode][:, kept].sum(1) / count + torch.special.entr(p).sum(1)      # s, in nats
        return divergence.exp().mean().item()

    @property
    def sorted_by_class(self) -> bool:
        """Whether the whole splits of `SPLIT` images show far fewer classes than all images do: then the score in ADM's
        splits collapses. Classes are counted as the network sees them, by the perplexity of its predictions."""
        whole = self.n // SPLIT
        if whole < 2:
            return False
        return bool(_perplexity(self.predicted[:whole]).min() < _perplexity(self.predicted.sum(0)) / 2)


def _splits(n: int) -> dict[str, Int[np.ndarray, " n"]]:
    """The split of each image, by mode. With fewer images than shuffled splits, each has one of its own."""
    order, shuffled = np.random.RandomState(2020).permutation(n), np.empty(n, np.int64)    # torch-fidelity's seed
    splits = min(SHUFFLED, n)
    for split in range(splits):
        shuffled[order[split * n // splits:(split + 1) * n // splits]] = split
    return {"one split": np.zeros(n, np.int64), "ADM splits": np.arange(n) // SPLIT, "ten shuffled": shuffled}


def _perplexity(counts: Int[Tensor, "... k"]) -> Float[Tensor, "..."]:
    p = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(p).sum(-1).exp()
