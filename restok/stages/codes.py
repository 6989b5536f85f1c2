"""encode: a split's codes, into the packed store."""

from pathlib import Path

import torch

from restok import config
from restok.data.codes import write_codes
from restok.data.loader import crop_batches
from restok.data.sources import open_split
from restok.data.transforms import crop_count
from restok.distributed import device
from restok.files import sha256_file
from restok.progress import track
from restok.weights import load_tokenizer


def encode(params: config.Params, data: Path, tokenizer: Path, out: Path, split: str = "train") -> dict:
    """Codes of every crop (`params.codes`) of every image of a split. Returns the store's manifest."""
    images, on = open_split(data, split), device()
    model = load_tokenizer(tokenizer).to(on)
    crops, settings = crop_count(params.codes), model.config
    source = crop_batches(images, settings.image_size, params.codes, params.data.workers)

    def batches():
        for views, labels in track(source, f"encode {split}", total=None):
            codes = model.encode(views.to(on)).cpu()                            # (b crops) n
            yield codes.unflatten(0, (len(labels), crops)).numpy(), labels.numpy()

    with torch.inference_mode():
        return write_codes(out, batches(), len(images), crops, settings.latents, settings.codebook_size,
                           len(images.classes), sha256_file(tokenizer / "model.safetensors"), images.digest)
