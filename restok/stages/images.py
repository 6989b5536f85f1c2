"""Images out of models: reconstructions with the panel of Fig. 5, and samples."""

from collections.abc import Sequence
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from restok import config
from restok.config.load import ConfigError
from restok.data.table import open_split
from restok.data.transforms import center_crop, to_tensor, to_uint8
from restok.distributed import device
from restok.files import atomic_file, sha256_file
from restok.files.artifact import Origin
from restok.files.npz import write_npz, write_npz_rows
from restok.files.outputs import MARK
from restok.hierarchy import prefixes
from restok.metrics.reconstruction import psnr
from restok.progress import track
from restok.stages.sampler import Sampler, guided
from restok.tokenizer.model import ResTok
from restok.weights import load_tokenizer

# What the verbs sample by without a parameter file: Table 6's row of the main model, without its guidance.
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 0.95, "guidance": None, "class_cache": "kept", "rounding": "round",
            "precision": "fp32", "batch_size": 16}
PICTURES = (".png", ".jpg", ".jpeg")
SHOWN, CLASSES_SHOWN, COUNT = 256, 10, 16      # images in one picture at most; its classes and samples of each, unasked


@torch.inference_mode()
def reconstruction(model: ResTok, images: UInt8[np.ndarray, "b h w c"], batch_size: int,
                   keep: int | None = None) -> tuple[UInt8[np.ndarray, "b h w c"], Int[torch.Tensor, "b n"]]:
    """What a tokenizer makes of images, `batch_size` at a time, from its first `keep` codes (None: all), and all codes."""
    on, parts = model.quantizer.codebook.device, np.split(images, range(batch_size, len(images), batch_size))
    codes = [model.encode(to_tensor(part).to(on)) for part in parts]
    return np.concatenate([to_uint8(model.decode(part, keep)) for part in codes]), torch.cat(codes)


def require_shown(path: Path, count: int) -> None:
    """Raises ConfigError for more images than a picture shows."""
    if count > SHOWN:
        raise ConfigError(f"{path}: {count} images, but a picture shows {SHOWN} at most; ask for fewer, or write .npz")


def write_grid(path: Path, images: UInt8[np.ndarray, "n h w c"], columns: int) -> None:
    """Images row by row in one picture, PNG or JPEG."""
    from torchvision.utils import make_grid
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    grid = make_grid(tensor, nrow=columns, pad_value=255)
    with atomic_file(path) as partial:
        write_picture(partial, grid.permute(1, 2, 0).numpy())


def write_picture(path: Path, pixels: UInt8[np.ndarray, "h w c"]) -> None:
    """One image, PNG or JPEG by its name. Encoded first: pillow, writing a file itself, passes over a disk that fills up."""
    encoded, about = BytesIO(), PngInfo()
    about.add_text("Software", MARK)
    kind = Image.registered_extensions()[path.suffix.lower()]
    Image.fromarray(pixels).save(encoded, kind, quality=95, comment=MARK, pnginfo=about)
    path.write_bytes(encoded.getvalue())


@torch.inference_mode()
def panel(data: Path, tokenizer: Path, out: Path, count: int = 8) -> None:
    """Fig. 5. An npz of what it shows of the first validation image of each class, of at most `count` classes."""
    images, model = open_split(data, "validation"), load_tokenizer(tokenizer).to(device())
    first = np.unique(images.labels, return_index=True)[1][:count]
    chosen = np.stack([center_crop(images[index][0], model.config.image_size) for index in first])
    made_of = Origin("panel", {}, {"data": images.digest, "tokenizer": sha256_file(tokenizer / "model.safetensors")},
                     {"data": data, "tokenizer": tokenizer})
    write_npz(out, made_of, **_panel(model, to_tensor(chosen).to(device())))


def _panel(model: ResTok, images: Float[Tensor, "m 3 h w"]) -> dict[str, np.ndarray]:
    """Fig. 5. Reconstructions from every prefix of levels, their PSNR, and the attention of each latent level to each scale."""
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
    originals = to_uint8(images.cpu())
    target, *shown = (torch.from_numpy(part).movedim(3, 1).double() / 255 for part in (originals, *pictures.swapaxes(0, 1)))
    return {"originals": originals, "prefixes": pictures, "kept": np.array(kept), "attention": shares,
            "psnr": torch.stack([psnr(prefix, target) for prefix in shown], dim=1).numpy()}           # m l


def balanced_labels(classes: int, per_class: int) -> np.ndarray:
    """0, 1, 2, ..., 0, 1, 2, ...: every class equally often, and in every contiguous split."""
    return np.tile(np.arange(classes), per_class)


def sample(tokenizer: Path, generator: Path, sampling: config.Sampling, seed: int, chosen: Sequence[int], some: int | None,
           per_class: int | None, out: Path, guidance: Path | None = None) -> None:
    """Samples, `per_class` (None: 16) of each class: of the `chosen` ones, or of `some` spread evenly (None: every one, in a
    picture 10). An .npz holds arr_0 (n h w 3 uint8) and labels; a .png or .jpg shows them, a class a row, one class squarely.
    `guidance`: the file that the setting came from.

    Raises ConfigError for classes that the generator does not have and for another kind of file, WeightsError.
    """
    picture, per_class = out.suffix.lower() in PICTURES, per_class or COUNT
    if not picture and out.suffix != ".npz":
        raise ConfigError(f"{out}: expected a name that ends in .npz, {', '.join(PICTURES)}")
    sampler = Sampler(tokenizer, generator, sampling)
    side, known = sampler.tokenizer.config.image_size, sampler.generator.config.classes
    if faults := [c for c in chosen if not 0 <= c < known]:
        raise ConfigError(f"class {faults[0]}: {generator} has the classes 0 to {known - 1}")
    if some is not None and some > known:
        raise ConfigError(f"{some} classes: {generator} has {known}; ask for as many at most")
    some = some or (min(CLASSES_SHOWN, known) if picture else known)
    classes = np.array(chosen) if chosen else np.linspace(0, known - 1, some).round().astype(np.int64)
    labels = np.tile(classes, per_class)
    if picture:
        require_shown(out, len(labels))
    drawn = (images for _, images in sampler.batches(sampling.guidance, labels, seed, sampling.batch_size))
    pictures = track(drawn, "sample", len(labels), "images", size=len)
    if not picture:
        made_of = Origin("samples", sampling.model_dump(mode="json") | {"seed": seed},
                         sampler.digests | guided(sampling.guidance), sampler.paths | {"guidance": guidance})
        write_npz_rows(out, "arr_0", (len(labels), side, side, 3), np.uint8, pictures, made_of, labels=lambda: labels)
        return
    by_class = np.concatenate(list(pictures)).reshape(per_class, len(classes), side, side, 3).swapaxes(0, 1)
    write_grid(out, by_class.reshape(-1, side, side, 3), per_class if len(classes) > 1 else ceil(sqrt(per_class)))
