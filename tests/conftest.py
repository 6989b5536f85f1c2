"""Small configurations that every test shares, derived from the parameter files themselves."""

from pathlib import Path

import pytest
import torch

from restok.config import Data, Params
from restok.config.load import load_params
from restok.data.sources import prepare

ROOT = Path(__file__).parent.parent
SMALL = ["tokenizer.image_size=16", "tokenizer.cnn.channels=8", "tokenizer.cnn.multipliers=[1,1,2]", "tokenizer.cnn.blocks=1",
         "tokenizer.cnn.groups=4", "tokenizer.cnn.latent_channels=8", "tokenizer.width=32", "tokenizer.heads=2",
         "tokenizer.encoder_layers=4", "tokenizer.decoder_layers=2", "tokenizer.latents=16", "tokenizer.scales=3",
         "tokenizer.codebook_size=64", "tokenizer.codebook_dim=4", "tokenizer.keep_minimum=4",
         "generator.codebook_size=64", "generator.tokens=16", "generator.width=32", "generator.layers=2", "generator.heads=2",
         "generator.hidden=64", "generator.classes=10"]


def small_params(*overrides: str) -> Params:
    """The demo's parameters with models small enough for a test."""
    return load_params(ROOT / "params/demo.yaml", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """The embedded digits, prepared."""
    folder = tmp_path_factory.mktemp("digits") / "data"
    prepare(Data(source="digits", path=None, train="train", validation="validation", crop_scale=(0.8, 1.0), flip=False,
                 workers=0), 16, folder)
    return folder


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def picture(mask) -> str:
    """A Bool matrix as ASCII: # attends, . does not."""
    return "\n".join("".join("#" if x else "." for x in row) for row in mask.tolist())
