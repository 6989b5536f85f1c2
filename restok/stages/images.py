"""Images out of models: reconstructions with the panel of Fig. 5, and samples."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from restok import config
from restok.data.loader import evaluation_batches
from restok.data.sources import open_split
from restok.data.transforms import center_crop, to_tensor, to_uint8
from restok.files import read_json, sha256_file, write_npz, write_npz_rows
from restok.generator.sampling import generate
from restok.hierarchy import prefixes
from restok.progress import track
from restok.tokenizer.model import ResTok
from restok.training.loop import device
from restok.weights import WeightsError, load_generator, load_tokenizer


def reconstruct(params: config.Params, data: Path, tokenizer: Path, out: Path) -> None:
    """Reconstruct the validation split into an npz of arr_0 (n h w 3 uint8, rounded), labels and codes (n tokens)."""
    images, on = open_split(data, "validation"), device()
    model = load_tokenizer(tokenizer).to(on)
    size, batch, codes = model.config.image_size, params.evaluation.batch_size, []

    @torch.inference_mode()
    def pictures():
        total = -(-len(images) // batch)
        for originals, _ in track(evaluation_batches(images, size, batch, params.data.workers), "reconstruct", total):
            found = model.encode(originals.to(on))
            codes.append(found.cpu().numpy())
            yield to_uint8(model.decode(found))

    write_npz_rows(out, "arr_0", (len(images), size, size, 3), np.uint8, pictures(), labels=lambda: images.labels,
                   codes=lambda: np.concatenate(codes))


@torch.inference_mode()
def panel(data: Path, tokenizer: Path, out: Path, count: int = 8) -> None:
    """Fig. 5. An npz of what it shows of the first validation image of each class, of at most `count` classes."""
    images, on = open_split(data, "validation"), device()
    model = load_tokenizer(tokenizer).to(on)
    first = np.unique(images.labels, return_index=True)[1][:count]
    chosen = np.stack([center_crop(images[index][0], model.config.image_size) for index in first])
    write_npz(out, **_panel(model, to_tensor(chosen).to(on)))


def _panel(model: ResTok, images: Float[Tensor, "m 3 h w"]) -> dict[str, np.ndarray]:
    """Fig. 5. Reconstructions from every prefix of levels, and the attention that each latent level pays to each scale."""
    out = {"attention": []}
    codes = model.encode(images, out)
    kept = prefixes(model.config.levels)
    pictures = np.stack([to_uint8(model.decode(codes, keep=k).cpu()) for k in kept], axis=1)          # m l h w 3
    scales = [tokens.shape[1] for tokens in out["scales"]]                                            # coarse to fine
    shares = np.full((len(out["attention"]), len(kept), len(scales)), np.nan, np.float32)
    for layer, weights in enumerate(out["attention"]):                                                # b h n n
        from_latents = weights[:, :, -model.config.latents:].mean(dim=(0, 1))                         # tokens n
        present = from_latents.shape[1] - model.config.latents                                        # image tokens so far
        merged = next(s for s in range(len(scales)) if sum(scales[s:]) == present)
        to_scales = [part.sum(-1) for part in from_latents[:, :present].split(scales[merged:], dim=1)]
        for scale, share in enumerate(to_scales, start=merged):
            shares[layer, :, scale] = [level.mean().item() for level in share.split(model.config.levels)]
    return {"originals": to_uint8(images.cpu()), "prefixes": pictures, "kept": np.array(kept), "attention": shares}


class Sampler:
    """A generator with the tokenizer that its codes came from. Raises WeightsError for another tokenizer."""

    def __init__(self, tokenizer: Path, generator: Path):
        trained_on, given = read_json(generator / "metrics.json")["tokenizer"], sha256_file(tokenizer / "model.safetensors")
        if trained_on != given:
            raise WeightsError(f"{generator}: trained on codes of tokenizer {trained_on[:12]}, but {tokenizer} is "
                               f"{given[:12]}; train it on this tokenizer's codes (`restok encode`, `restok train-generator`)")
        self.on, self.name = device(), generator.as_posix()
        self.digests = {"tokenizer": given, "generator": sha256_file(generator / "model.safetensors")}
        self.tokenizer, self.generator = load_tokenizer(tokenizer).to(self.on), load_generator(generator).to(self.on)

    @torch.inference_mode()
    def __call__(self, sampling: config.Sampling, guidance: config.Guidance, labels: Int[np.ndarray, " n"], seed: int,
                 offset: int = 0) -> UInt8[np.ndarray, "n h w c"]:
        """One image a label; image i of a call depends on its label and on (seed, offset + i) alone."""
        pictures = []
        for start in range(0, len(labels), sampling.batch_size):
            classes = torch.from_numpy(labels[start:start + sampling.batch_size])
            codes = generate(self.generator, classes, guidance, sampling.temperature, sampling.top_k, sampling.top_p,
                             seed=seed, offset=offset + start)
            pictures.append(to_uint8(self.tokenizer.decode(codes)))
        return np.concatenate(pictures)


def balanced_labels(classes: int, per_class: int) -> np.ndarray:
    """0, 1, 2, ..., 0, 1, 2, ...: every class equally often, and in every contiguous split."""
    return np.tile(np.arange(classes), per_class)


def sample(params: config.Params, tokenizer: Path, generator: Path, guidance: config.Guidance, per_class: int | None,
           classes: int | None, out: Path) -> None:
    """Samples as an npz of arr_0 (n h w 3 uint8) and labels: `per_class` (None: as many as are evaluated) of each of `classes`
    classes, spread evenly (None: of every class)."""
    sampler, size = Sampler(tokenizer, generator), params.sampling.batch_size
    side, known = sampler.tokenizer.config.image_size, sampler.generator.config.classes
    chosen = np.linspace(0, known - 1, min(classes or known, known)).round().astype(np.int64)
    labels = np.tile(chosen, per_class or params.evaluation.samples_per_class)
    starts = range(0, len(labels), size)
    pictures = (sampler(params.sampling, guidance, labels[start:start + size], params.seed, offset=start)
                for start in track(starts, "sample", total=len(starts)))
    write_npz_rows(out, "arr_0", (len(labels), side, side, 3), np.uint8, pictures, labels=lambda: labels)
