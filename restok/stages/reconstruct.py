"""restok reconstruct: anybody's images through a tokenizer and back, into a picture, a folder or an npz."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from restok.config.load import ConfigError
from restok.data.images import ImageSource, open_files, open_images
from restok.data.shards import KINDS
from restok.data.transforms import to_tensor
from restok.distributed import device
from restok.files import atomic_folder, require_free, sha256_file
from restok.files.artifact import Origin
from restok.files.npz import write_npz_rows
from restok.files.outputs import kind_of, require_writable
from restok.metrics.reconstruction import psnr
from restok.progress import track
from restok.stages.images import PICTURES, reconstruction, require_shown, write_grid, write_picture
from restok.weights import load_tokenizer

COLUMNS = 8                              # of a picture
Piece = tuple[UInt8[np.ndarray, "b h w c"], UInt8[np.ndarray, "b h w c"]]    # originals, reconstructions


def reconstruct(images: Sequence[Path], tokenizer: Path, out: Path, keep: int | None = None, batch_size: int = 16,
                workers: int = 0, show: Callable[[list[tuple[str, float]]], None] = lambda _: None) -> list[tuple[str, float]]:
    """Reconstruct images, files or what `open_images` reads, as centre crops of the tokenizer's size, from their first `keep`
    codes (None: all).

    Writes a picture with the originals above (.png, .jpg), an npz of arr_0 (n h w 3 uint8), codes (n tokens) and, from one
    source with labels, labels; or else a folder with one PNG an image. Returns name and PSNR of each image, in dB, of which
    `show` is given those that were measured, even where they cannot be written. Raises
    DataError, which names the file, for what is no image of 8-bit channels without alpha, FileError where `out` would take
    the place of something else, ConfigError, WeightsError.
    """
    suffix = out.suffix.lower()
    folder = suffix not in (".npz", *PICTURES)
    if folder and suffix in Image.registered_extensions():
        raise ConfigError(f"{out}: expected {', '.join(PICTURES)}, .npz, or a folder")
    require_free(out, images, (lambda path: path.is_dir() or kind_of(path) == "picture") if folder else None)
    require_writable(out, folder, ("images", "picture"))
    model = load_tokenizer(tokenizer).to(device())
    config, sources, names, values, codes = model.config, [], [], [], []
    if keep is not None and not 1 <= keep <= config.latents:
        raise ConfigError(f"keep {keep}: {tokenizer} makes {config.latents} codes; keep 1 to {config.latents}")
    for plain, paths in groupby(images, lambda path: path.is_file() and path.suffix not in (".npz", *KINDS)):
        for path in [list(paths)] if plain else paths:                             # single files are batched together
            sources.append((open_files if plain else open_images)(path, config.image_size, workers))
            names += _names(sources[-1], path)

    def pieces() -> Iterator[Piece]:
        batches = (batch for source in sources for _, batch in source.batches(batch_size))
        for originals in track(batches, "reconstruct", sum(source.n for source in sources), "images", size=len):
            pictures, tokens = reconstruction(model, originals, batch_size, keep)
            values.extend(psnr(to_tensor(pictures), to_tensor(originals)).tolist())
            codes.append(tokens.cpu().numpy())
            yield originals, pictures

    if suffix in PICTURES:
        require_shown(out, 2 * len(names))
    try:
        if suffix in PICTURES:
            _write_picture(out, pieces())
        elif suffix == ".npz":
            labels = sources[0].labels if len(sources) == 1 else None
            made_of = Origin("images", {"keep": keep}, {f"images {place}": source.digest for place, source in enumerate(
                sources, 1)} | {"tokenizer": sha256_file(tokenizer / "model.safetensors")}, {"tokenizer": tokenizer})
            write_npz_rows(out, "arr_0", (len(names), config.image_size, config.image_size, 3), np.uint8,
                           (pictures for _, pictures in pieces()), made_of, codes=lambda: np.concatenate(codes),
                           **({} if labels is None else {"labels": lambda: labels}))
        else:
            _write_folder(out, pieces(), names)
    finally:
        show(list(zip(names, values, strict=False)))
    return list(zip(names, values, strict=True))


def _names(images: ImageSource, path: Path | list[Path]) -> list[str]:
    """Without suffix, as a folder is written with: the files' own, or else numbers."""
    if images.names is None:
        digits = max(6, len(str(images.n - 1)))              # names sort as numbers do
        return [f"{path.stem}-{index:0{digits}}" for index in range(images.n)]
    return [name.with_suffix("").as_posix() for name in images.names]


def _write_picture(out: Path, pieces: Iterable[Piece]) -> None:
    originals, pictures = (np.concatenate(images) for images in zip(*pieces, strict=True))
    columns = min(COLUMNS, len(originals))
    missing = [(0, -len(originals) % columns), (0, 0), (0, 0), (0, 0)]                 # of the last row
    rows = [np.pad(images, missing, constant_values=255).reshape(-1, columns, *images.shape[1:])
            for images in (originals, pictures)]
    write_grid(out, np.stack(rows, axis=1).reshape(-1, *originals.shape[1:]), columns)


def _write_folder(out: Path, pieces: Iterable[Piece], names: list[str]) -> None:
    """One PNG an image."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{out}: two images are named {twice}; rename one, or write .npz")
    with atomic_folder(out) as folder:
        for name, pixels in zip(names, chain.from_iterable(pictures for _, pictures in pieces), strict=True):
            path = folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, pixels)
