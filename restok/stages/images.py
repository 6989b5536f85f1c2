"""Images out of models: reconstructions with the panel of Fig. 5, and samples."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from restok import config
from restok.data.loader import evaluation_batches
from restok.data.sources import open_split
from restok.data.transforms import to_uint8
from restok.files import read_json, sha256_file, write_npz
from restok.generator.sampling import generate
from restok.hierarchy import prefixes
from restok.progress import track
from restok.tokenizer.model import ResTok
from restok.training.loop import device
from restok.weights import WeightsError, load_generator, load_tokenizer


@torch.inference_mode()
def reconstruct(params: config.Params, data: Path, tokenizer: Path, out: Path, panel: Path) -> None:
    """Reconstruct the validation split. Writes `out`, an npz of arr_0 (n h w 3 uint8, rounded), labels and codes (n tokens),
    and `panel`, what Fig. 5 shows of one image a class (at most 8)."""
    images, on = open_split(data, "validation"), device()
    model = load_tokenizer(tokenizer).to(on)
    size, batch = model.config.image_size, params.evaluation.batch_size
    pictures, codes, chosen = [], [], {}
    total = -(-len(images) // batch)
    for originals, labels in track(evaluation_batches(images, size, batch, params.data.workers), "reconstruct", total):
        found = model.encode(originals.to(on))
        pictures.append(to_uint8(model.decode(found).cpu()))
        codes.append(found.cpu().numpy())
        for original, label in zip(originals, labels.tolist(), strict=True):
            if len(chosen) < 8:
                chosen.setdefault(label, original)
    digest = sha256_file(tokenizer / "model.safetensors")
    write_npz(out, arr_0=np.concatenate(pictures), labels=images.labels, codes=np.concatenate(codes), tokenizer=digest)
    write_npz(panel, **_panel(model, torch.stack([chosen[label] for label in sorted(chosen)]).to(on)))


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
        self.on = device()
        self.tokenizer, self.generator = load_tokenizer(tokenizer).to(self.on), load_generator(generator).to(self.on)

    @torch.inference_mode()
    def __call__(self, sampling: config.Sampling, guidance: config.Guidance, labels: np.ndarray, seed: int) -> np.ndarray:
        """One image a label, n h w 3 uint8; image i depends on (seed, i) alone."""
        pictures = []
        starts = range(0, len(labels), sampling.batch_size)
        for start in track(starts, "sample", total=len(starts)):
            classes = torch.from_numpy(labels[start:start + sampling.batch_size])
            codes = generate(self.generator, classes, guidance, sampling.temperature, sampling.top_k, sampling.top_p,
                             seed=seed, offset=start)
            pictures.append(to_uint8(self.tokenizer.decode(codes).cpu()))
        return np.concatenate(pictures)


def balanced_labels(classes: int, per_class: int) -> np.ndarray:
    """0, 1, 2, ..., 0, 1, 2, ...: every class equally often, and in every contiguous split."""
    return np.tile(np.arange(classes), per_class)


def sample(params: config.Params, tokenizer: Path, generator: Path, guidance: config.Guidance, out: Path) -> None:
    """`params.evaluation.samples_per_class` samples of every class, as an npz of arr_0 (n h w 3 uint8) and labels."""
    sampler = Sampler(tokenizer, generator)
    labels = balanced_labels(sampler.generator.config.classes, params.evaluation.samples_per_class)
    write_npz(out, arr_0=sampler(params.sampling, guidance, labels, params.seed), labels=labels)
