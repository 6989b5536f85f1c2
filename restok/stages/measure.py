"""Measuring images: evaluate, and score-guidance for one candidate of the search."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from restok import config
from restok.data.loader import evaluation_batches
from restok.data.sources import open_split
from restok.data.transforms import to_uint8
from restok.files import write_json
from restok.metrics.evaluate import evaluate_generation, evaluate_reconstruction
from restok.metrics.features import load_features, metric_names
from restok.stages.images import Sampler, balanced_labels


class MeasureError(ValueError):
    """Images that cannot be measured; the message names the file and the remedy."""


def evaluate(params: config.Params, samples: Path, data: Path, classifier: Path | None, out: Path) -> dict:
    """Measure an npz of images against the validation split: reconstructions (an npz with codes) or samples. Writes JSON."""
    arrays = _read_npz(samples)
    originals, reference = _reference(params, data)
    network, batch = load_features(params.evaluation, classifier), params.evaluation.batch_size
    if "codes" in arrays:
        if len(arrays["arr_0"]) != len(originals):
            raise MeasureError(f"{samples}: {len(arrays['arr_0'])} reconstructions of {len(originals)} images; "
                               "run `restok reconstruct` again")
        result = evaluate_reconstruction(arrays["arr_0"], originals, arrays["labels"], arrays["codes"], params.tokenizer.levels,
                                         params.tokenizer.codebook_size, network, reference, batch)
    else:
        result = evaluate_generation(arrays["arr_0"], arrays["labels"], originals, network, params.evaluation.neighbours,
                                     reference, batch)
    write_json(out, result)
    return result


def score_guidance(params: config.Params, guidance: config.Guidance, data: Path, classifier: Path | None, tokenizer: Path,
                   generator: Path, out: Path) -> dict:
    """Measure one candidate on samples of its own, drawn from another seed than the final ones. Writes JSON."""
    sampler = Sampler(tokenizer, generator)
    labels = balanced_labels(sampler.generator.config.classes, params.guidance_search.samples_per_class)
    samples = sampler(params.sampling, guidance, labels, params.seed + 1)
    originals, reference = _reference(params, data)
    network = load_features(params.evaluation, classifier)
    result = evaluate_generation(samples, labels, originals, network, params.evaluation.neighbours, reference,
                                 params.evaluation.batch_size)
    row = {**guidance.model_dump(), **result["metrics"], "n": result["n"], "features": result["features"],
           "reference": result["reference"], "sampling": params.sampling.model_dump(),
           "metric": metric_names(params.evaluation.features)["distance"]}
    write_json(out, row)
    return row


def _reference(params: config.Params, data: Path) -> tuple[np.ndarray, dict[str, str]]:
    """The validation split as centre crops, n h w 3 uint8, with its name and digest."""
    split, size = open_split(data, "validation"), params.tokenizer.image_size
    source = evaluation_batches(split, size, params.evaluation.batch_size, params.data.workers)
    images = np.concatenate([to_uint8(batch) for batch, _ in source])
    return images, {"name": f"{params.data.source} validation, centre crops of {size}", "digest": split.digest}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (OSError, ValueError, BadZipFile) as error:
        raise MeasureError(f"{path}: not a readable npz of images ({error}); `restok sample` and `restok reconstruct` write "
                           "such files") from None
    for name in ("arr_0", "labels"):
        if name not in arrays:
            raise MeasureError(f"{path}: has no {name!r}; expected arr_0 (n h w 3 uint8) and labels (n)")
    return arrays
