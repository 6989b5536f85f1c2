"""Everything the metrics need to know of a set of images, as sums: parts and processes add, and a run resumes from a file."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from safetensors import safe_open
from torch import Tensor

from restok.distributed import gathered, is_first, summed
from restok.errors import InputError
from restok.files import reading
from restok.files.artifact import FORMAT, seen_from
from restok.files.loading import checked
from restok.files.making import made, together
from restok.files.tensors import arrays_sha256
from restok.metrics.codebook import code_counts
from restok.metrics.facts import About, StatisticsError
from restok.metrics.features import FeatureNetwork, Features
from restok.metrics.frechet import Gaussian, Moments
from restok.metrics.inception_score import Score
from restok.metrics.intervals import GROUPS, group_of
from restok.metrics.published import take_published
from restok.networks.saved import write_tensors

# Of what is known of images beside a network's features: it is counted once, beside those of the first network.
NOTHING = {"spatial": 0, "logits": 0, "classes": 0, "knows_labels": False, "likeness": {}, "levels": [], "codebook_size": 0,
           "also": ()}
KEPT = 50_000       # the most images whose features are kept, for precision, recall, KID and MIND


class Statistics:
    """The additive state of `n` images under one feature network, kept by group for the jackknife (`group_of`).

    `facts` say what was measured and how; two states add where they are equal. Memory: two times GROUPS x d x d float64,
    whatever n; five bytes an image; and the float32 features of at most `KEPT` images, evenly spaced.
    """

    def __init__(self, facts: Mapping, device: torch.device | str = "cpu"):
        self.facts, self.published = dict(facts), {}
        self.made, self.paths = [], {}                     # by which calls before this one; where the inputs lie
        n, dims, spatial, logits = self.n, facts["features"]["dims"], facts["spatial"], facts["logits"]
        self.pooled = Moments(n, dims, facts["shift"], GROUPS, device)
        self.spatial = Moments(n, spatial, facts["shift"], GROUPS, device) if spatial else None
        self.score = Score(n, logits, GROUPS, device) if logits and n else None
        self.kept_images = np.linspace(0, n - 1, min(n, KEPT)).round().astype(np.int64)
        self.kept = torch.zeros(len(self.kept_images), dims, device=device)
        self.seen = torch.zeros(n, dtype=torch.uint8, device=device)
        counts = {"dtype": torch.int64, "device": device}
        self.asked, self.right = torch.zeros(facts["classes"], **counts), torch.zeros(facts["classes"], **counts)
        self.likeness = {name: torch.zeros(3, dtype=torch.float64, device=device) for name in facts["likeness"]}
        self.codes = torch.zeros(GROUPS, len(facts["levels"]), facts["codebook_size"], **counts)
        self.also = {about["features"]["kind"]: Statistics({**facts, **NOTHING, **about}, device)
                     for about in facts.get("also", ())}

    @classmethod
    def begin(cls, network: FeatureNetwork, images: Mapping, batch_size: int, *, classes: int = 0, spatial: bool = True,
              likeness: Mapping[str, str | None] | None = None, levels: Sequence[int] = (), codebook_size: int = 0,
              also: Sequence[FeatureNetwork] = ()) -> "Statistics":
        """An empty state. `images` holds name, digest, n, size [h, w], rounding, originals (None, or name and digest of what
        they reconstruct) and in_order (whether their labels say that they are sorted by class); `classes` is the number of
        classes; `likeness` what is measured image by image, with the sha256 of its network's weights; `levels` the tokens of
        each level of the codes; `also` are further networks, whose features of the same images are kept beside."""
        others = [{"features": one.identity, "shift": one.shift} for one in also]
        return cls({"features": network.identity, "batch_size": batch_size, "images": dict(images), "shift": network.shift,
                    "spatial": network.spatial if spatial else 0, "logits": network.classes, "classes": classes,
                    "knows_labels": network.knows_labels, "likeness": dict(likeness or {}), "levels": list(levels),
                    "codebook_size": codebook_size, **({"also": others} if others else {})}, network.device)

    @property
    def n(self) -> int:
        return self.facts["images"]["n"]

    @property
    def name(self) -> str:
        return self.facts["images"]["name"]

    @property
    def inputs(self) -> dict[str, str]:
        """The sha256 of all that the sums were made of: of images, or of the models that make them, and of the networks."""
        images = self.facts["images"]
        networks = {"features": self.facts["features"]["sha256"], **self.facts["likeness"]}
        networks |= {f"features {kind}": one.facts["features"]["sha256"] for kind, one in self.also.items()}
        made_of = images.get("inputs") or {"images": images["digest"]}
        return made_of | {name: digest for name, digest in networks.items() if digest}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The whole additive state."""
        parts = {"pooled": self.pooled, "spatial": self.spatial, "score": self.score}
        nested = {f"{part}.{name}": tensor for part, state in parts.items() if state for name, tensor in state.tensors.items()}
        likeness = {f"likeness.{name}": sums for name, sums in self.likeness.items()}
        also = {f"{kind}/{name}": tensor for kind, one in self.also.items() for name, tensor in one.tensors.items()}
        return nested | likeness | also | {"kept": self.kept, "seen": self.seen, "asked": self.asked, "right": self.right,
                                    "codes": self.codes}

    def update(self, start: int, features: Features, labels: Integer[np.ndarray, " b"] | None = None,
               likeness: Mapping[str, Float[Tensor, " b"]] | None = None, codes: Int[Tensor, "b t"] | None = None,
               also: Mapping[str, Features] | None = None) -> None:
        """Take in images start, start + 1, ... Raises ValueError on NaN features and on labels the network does not know."""
        for kind, theirs in (also or {}).items():
            self.also[kind].update(start, theirs)
        stop = start + len(features.pooled)
        try:
            self.pooled.update(start, features.pooled)
            if self.spatial:
                self.spatial.update(start, features.spatial)
            if self.score:
                self.score.update(start, features.logits)
        except ValueError as error:
            raise InputError(f"{self.name}, images {start} to {stop - 1}, {self.facts['features']['name']}: {error}") from None
        self.seen[start:stop] += 1
        first, last = np.searchsorted(self.kept_images, (start, stop))
        self.kept[first:last] = features.pooled[self.kept_images[first:last] - start]
        if labels is not None:
            self._count_labels(torch.as_tensor(labels, device=self.asked.device), features.logits)
        for name, values in (likeness or {}).items():
            values = values.double().to(self.seen.device)
            self.likeness[name] += torch.stack([torch.ones_like(values), values, values.square()]).sum(1)
        if codes is not None:
            member = group_of(self.n, GROUPS)[start:stop]
            for group in np.unique(member):
                mine = codes[torch.from_numpy(member == group).to(codes.device)]
                self.codes[group] += code_counts(mine, self.codes.shape[2], self.facts["levels"]).to(self.codes.device)

    def _count_labels(self, labels: Integer[Tensor, " b"], logits: Float[Tensor, "b k"] | None) -> None:
        if labels.min() < 0 or labels.max() >= len(self.asked):
            raise InputError(f"{self.name}: labels from {labels.min()} to {labels.max()}, of {len(self.asked)} classes")
        self.asked += labels.bincount(minlength=len(self.asked))
        if self.facts["knows_labels"]:
            self.right += labels[logits.argmax(1) == labels].bincount(minlength=len(self.asked))

    def gaussian(self, part: str, without: int | None = None) -> Gaussian:
        """Mean and covariance of the features 'pooled' or 'spatial': those published with the images, where there are such,
        else of the images themselves, without a group of them."""
        return self.published[part] if part in self.published else getattr(self, part).gaussian(without)

    def has(self, part: str) -> bool:
        """Whether `gaussian(part)` is there."""
        return part in self.published or (self.n > 1 and getattr(self, part) is not None)

    def require_whole(self) -> None:
        """Raises StatisticsError where images are missing, or were counted twice."""
        for wrong, what in ((self.seen == 0, "missing"), (self.seen > 1, "counted twice")):
            if wrong.any():
                raise StatisticsError(f"{self.name}: {int(wrong.sum())} of {self.n} images are {what}, the first is number "
                                      f"{int(wrong.nonzero()[0])}; measure every part once and give all of them")

    def require_same(self, other: "Statistics") -> None:
        """Raises StatisticsError where the two are not parts of the same images under the same network."""
        for key in self.facts | other.facts:
            ours, theirs = self.facts.get(key), other.facts.get(key)
            if ours != theirs:
                raise StatisticsError(f"{self.name} and {other.name} do not add: {key} differ, {ours} and {theirs}")

    def __add__(self, other: "Statistics") -> "Statistics":
        """Both states' images. Raises StatisticsError as `require_same`, and for published statistics that came without any."""
        self.require_same(other)
        if (self.published or other.published) and not self.facts["images"].get("published"):
            raise StatisticsError(f"{self.name}: published statistics do not add; give the file alone")
        return self._with({name: tensor + other.tensors[name].to(tensor.device) for name, tensor in self.tensors.items()},
                          together([*self.made, *other.made]))

    def all_reduced(self) -> "Statistics":
        """The sum over all processes; this state stays as it is. The first one's time counts for all."""
        own = self.made if is_first() else [one | {"seconds": 0.0, "calls": 0} for one in (*self.made, made())]
        every = [one for each in gathered(own) for one in each]
        return self._with({name: summed(tensor) for name, tensor in self.tensors.items()}, together(every))

    def _with(self, tensors: Mapping[str, Tensor], made: list[dict]) -> "Statistics":
        result = Statistics(self.facts, self.seen.device)
        for name, tensor in result.tensors.items():
            tensor.copy_(tensors[name])
        result.made, result.published, result.paths = made, self.published, self.paths
        return result

    def save(self, path: str | Path) -> None:
        """Write the state as safetensors, whole or not at all. Raises OSError where it cannot be written."""
        published = {f"published.{part}.{name}": getattr(gaussian, name)
                     for part, gaussian in self.published.items() for name in ("mean", "covariance")}
        tensors = {name: tensor.cpu() for name, tensor in (self.tensors | published).items()}
        write_tensors(path, tensors, {
            "format": str(FORMAT), "facts": json.dumps(self.facts), "made": json.dumps(together([made(), *self.made])),
            "paths": json.dumps({name: seen_from(at, Path(path)) for name, at in self.paths.items() if at}),
            "digest": arrays_sha256({name: tensor.numpy() for name, tensor in tensors.items()})})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "Statistics":
        """The state that `save` wrote. Raises FileError for a file that cannot be read, StatisticsError, which names the file,
        for anything else."""
        def damaged(what: Any) -> StatisticsError:
            return StatisticsError(f"{path}: not a statistics file, or cut short ({what}); delete it and run `restok "
                                   "statistics` or `restok evaluate` again")

        with reading(path, damaged), safe_open(path, "pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            about = file.metadata()
            facts, made, paths = (json.loads(text) for text in (about["facts"], about["made"], about.get("paths", "{}")))
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        if about.get("digest") not in (None, arrays_sha256(arrays)):
            raise damaged("its sums are not those that were written")
        try:
            checked({"facts": facts, "made": made, "paths": paths}, About)
            published = take_published(tensors, facts)
            cls._check(tensors, facts)
        except InputError as error:
            raise damaged(error) from None
        statistics = cls(facts, device)
        places = {name: Path(os.path.normpath(Path(path).parent / at)) for name, at in paths.items()}
        statistics.published, statistics.paths = published, places
        return statistics._with(tensors, made if "format" in about else [])       # earlier versions said less

    @classmethod
    def _check(cls, tensors: Mapping[str, Tensor], facts: Mapping) -> None:
        """Raises InputError for tensors that are not those of the facts, before memory is asked for, and impossible sums."""
        if "seen" not in tensors or tensors["seen"].shape != (facts["images"]["n"],):
            raise InputError(f"facts.images.n: {facts['images']['n']}, of other tensors")
        wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in cls(facts, "meta").tensors.items()}
        if {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} != wanted:
            raise InputError("its tensors are not those of its facts, or of this version")
        for name, tensor in tensors.items():
            if not tensor.isfinite().all() or (not tensor.is_floating_point() and (tensor < 0).any()):
                raise InputError(f"{name} holds NaN, infinity or a negative count")
        if tensors["pooled.count"].sum() != tensors["seen"].sum(dtype=torch.int64):
            raise InputError("pooled.count and seen are of other numbers of images")
