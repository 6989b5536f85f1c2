"""The two protocols. Each returns a flat dict for JSON that says what was measured, against what, and with which network."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from restok.metrics.codebook import codebook_metrics
from restok.metrics.features import FeatureNetwork, check_images, extract, metric_names
from restok.metrics.frechet import Moments, frechet_distance
from restok.metrics.inception_score import inception_score
from restok.metrics.precision_recall import precision_recall
from restok.metrics.reconstruction import psnr, psnr_ceiling, ssim

SPLIT = 5000        # images a split of the generation protocol's score (ADM)
Images = UInt8[np.ndarray, "n h w c"]
Labels = Int[np.ndarray, " n"]


def evaluate_reconstruction(samples: Images, originals: Images, labels: Labels, codes: Int[np.ndarray, "n t"],
                            levels: Sequence[int], codebook_size: int, network: FeatureNetwork, reference: Mapping[str, str],
                            batch_size: int) -> dict:
    """Reconstructions against their own originals: distance, score (one split), PSNR, SSIM, use of the codebook (Eq. 5-6).

    `reference` holds the originals' name and digest. Under "metrics", class_accuracy is the share of reconstructions that
    the network assigns to their label, None where it does not know the labels. Raises ValueError on arrays that do not fit.
    """
    labels = _check(samples, originals, labels)
    if samples.shape != originals.shape or len(codes) != len(samples):
        raise ValueError(f"{samples.shape} reconstructions of {originals.shape} originals with {len(codes)} rows of codes: "
                         "all three go image by image")
    names, provenance = metric_names(network.kind), _provenance(network, reference, originals, batch_size)
    features, logits = extract(network, samples, batch_size)
    reference_features, _ = extract(network, originals, batch_size)
    similarity = _similarity(samples, originals, batch_size)
    metrics = {
        names["distance"]: frechet_distance(Moments.of(features), Moments.of(reference_features)),
        names["score"]: inception_score(logits),
        "class_accuracy": _accuracy(logits, labels) if network.knows_labels else None,
        "psnr": similarity["psnr"].mean().item(),
        "ssim": similarity["ssim"].mean().item(),
        "codebook": codebook_metrics(codes, codebook_size, levels),
    }
    warnings = _warnings(network, labels, logits, {"reconstructions": len(samples)})
    if perfect := int((samples == originals).all((1, 2, 3)).sum()):
        ceiling = psnr_ceiling(samples[0].size)
        warnings.append(f"{perfect} of {len(samples)} reconstructions are perfect; their PSNR counts as {ceiling:.2f} dB")
    return {"protocol": "reconstruction", "n": len(samples), "metrics": metrics, **provenance, "score_splits": 1,
            "warnings": warnings}


def evaluate_generation(samples: Images, labels: Labels, references: Images, network: FeatureNetwork, neighbours: int,
                        reference: Mapping[str, str], batch_size: int) -> dict:
    """Samples against a set of references: distance, score, precision, recall, and whether each shows the class asked for.

    `labels` are the classes asked for; `reference` holds the references' name and digest. The score is the mean over
    contiguous splits of about 5,000 samples (ADM). class_accuracy and per_class_accuracy (one value a class, None for a
    class not asked for) are None where the network does not know the labels. Raises ValueError on arrays that do not fit.
    """
    labels = _check(samples, references, labels)
    if samples.shape[1:] != references.shape[1:]:
        raise ValueError(f"samples of {samples.shape[1:]}, references of {references.shape[1:]}: crop both to one size")
    names, provenance = metric_names(network.kind), _provenance(network, reference, references, batch_size)
    splits = max(1, len(samples) // SPLIT)
    features, logits = extract(network, samples, batch_size)
    reference_features, _ = extract(network, references, batch_size)
    precision, recall = precision_recall(features, reference_features, neighbours)
    metrics = {
        names["distance"]: frechet_distance(Moments.of(features), Moments.of(reference_features)),
        names["score"]: inception_score(logits, splits),
        "precision": precision,
        "recall": recall,
        "class_accuracy": _accuracy(logits, labels) if network.knows_labels else None,
        "per_class_accuracy": _accuracies(logits, labels) if network.knows_labels else None,
    }
    warnings = _warnings(network, labels, logits, {"samples": len(samples), "references": len(references)})
    classes = len(np.unique(labels))
    if min(len(np.unique(part)) for part in np.array_split(labels, splits)) < classes / 2:
        warnings.append(f"the samples are sorted by class, so {names['score']}, which is taken over {splits} splits in order, "
                        "is too low: shuffle them")
    return {"protocol": "generation", "n": len(samples), "metrics": metrics, **provenance, "score_splits": splits,
            "neighbours": neighbours, "warnings": warnings}


def _check(samples: Images, references: Images, labels: Labels) -> Labels:
    for name, images in (("samples", samples), ("references", references)):
        check_images(name, images)
        if len(images) < 2:
            raise ValueError(f"{name}: {len(images)} images; a distance between distributions takes 2 at the least")
    labels = np.asarray(labels)
    if labels.shape != (len(samples),) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels: {labels.dtype} of shape {labels.shape}, expected {len(samples)} integers, one a sample")
    return labels.astype(np.int64)


def _similarity(samples: Images, originals: Images, batch_size: int) -> dict[str, Float[Tensor, " n"]]:
    """PSNR and SSIM of each image, a batch at a time."""
    values = {"psnr": [], "ssim": []}
    for start in range(0, len(samples), batch_size):
        images, targets = (torch.tensor(array[start:start + batch_size]).permute(0, 3, 1, 2).double() / 255   # b c h w
                           for array in (samples, originals))
        values["psnr"].append(psnr(images, targets))
        values["ssim"].append(ssim(images, targets))
    return {name: torch.cat(parts) for name, parts in values.items()}


def _accuracy(logits: Float[Tensor, "n k"], labels: Labels) -> float:
    return float(_recognised(logits, labels).mean())


def _accuracies(logits: Float[Tensor, "n k"], labels: Labels) -> list[float | None]:
    """One a class of the network; None for a class that no label asks for."""
    recognised = _recognised(logits, labels)
    return [float(recognised[labels == k].mean()) if (labels == k).any() else None for k in range(logits.shape[1])]


def _recognised(logits: Float[Tensor, "n k"], labels: Labels) -> np.ndarray:
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, but the feature network knows "
                         f"{logits.shape[1]} classes: it was trained on other data")
    return logits.argmax(1).numpy() == labels


def _warnings(network: FeatureNetwork, labels: Labels, logits: Float[Tensor, "n k"], counts: Mapping[str, int]) -> list[str]:
    """What makes the numbers less sure than they look."""
    distance = metric_names(network.kind)["distance"]
    warnings = [f"{n} {name} are fewer than 10 x {network.dims} feature dimensions: {distance} is biased upward, by about 1/n"
                for name, n in counts.items() if n < 10 * network.dims]
    sizes = np.bincount(labels, minlength=logits.shape[1]) if network.knows_labels else np.unique(labels, return_counts=True)[1]
    if sizes.min() < 0.9 * sizes.max():     # a stratified split of a small set is not exactly even
        warnings.append(f"the classes are unbalanced: from {sizes.min()} to {sizes.max()} images each")
    return warnings


def _provenance(network: FeatureNetwork, reference: Mapping[str, str], references: Images, batch_size: int) -> dict:
    """Two values compare only where all of this is the same."""
    on_gpu = network.device.type == "cuda"
    return {
        "features": {"name": network.name, "sha256": network.sha256, "dims": network.dims, "batch_size": batch_size},
        "reference": {"name": reference["name"], "digest": reference["digest"], "n": len(references)},
        "rounding": "8 bit, rounded",
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(network.device) if on_gpu else network.device.type,
    }
