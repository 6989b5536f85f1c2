"""encode: a split's codes, into the packed store."""

from pathlib import Path

import torch

from restok import config
from restok.data.codes import fill_store
from restok.data.loader import crop_batches
from restok.data.table import open_split
from restok.data.transforms import crop_count
from restok.distributed import device
from restok.experiments.places import origin
from restok.files import sha256_file
from restok.files.run import make
from restok.progress import track
from restok.weights import load_tokenizer, require_tokenizer


def encode(params: config.Params, data: Path, tokenizer: Path, out: Path, split: str = "train",
           run: Path | None = None) -> None:
    """Codes of every crop (`params.codes`) of every image of a split. In the folder `run`, where it is named, they are kept."""
    images, on = open_split(data, split, params.data.decoder), device()
    require_tokenizer(tokenizer)
    sha256 = sha256_file(tokenizer / "model.safetensors")

    def write(folder: Path) -> dict:
        model = load_tokenizer(tokenizer).to(on)
        crops, settings = crop_count(params.codes), model.config
        source = crop_batches(images, settings.image_size, params.codes, params.data.workers)

        def batches():
            for views, labels in track(source, f"encode {split}", total=None):
                codes = model.encode(views.to(on)).cpu()                        # (b crops) n
                yield codes.unflatten(0, (len(labels), crops)).numpy(), labels.numpy()

        with torch.inference_mode():
            return fill_store(folder, batches(), len(images), crops, settings.latents, settings.codebook_size,
                              len(images.classes), sha256, images.digest)

    make(out, origin("codes", params, data=images.digest, tokenizer=sha256), run, write)
