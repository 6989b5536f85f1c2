"""Images, and the crops of them that become codes."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from restok.config.base import Config, Fraction, Many, Workers


class Data(Config):
    source: Literal["digits", "imagefolder", "webdataset", "parquet"]
    path: str | None                       # of a folder, or of the hub's cache of one data set; None for the embedded digits
    train: str                             # below it: a folder of class folders, or of shards the folder or a pattern of files
    validation: str
    classes: str | None                    # a file that names the classes to take, one a line; None for all
    decoder: Literal["pillow", "torchcodec"]   # of what is learned from; what is measured is read by pillow
    crop_scale: tuple[Fraction, Fraction]  # side of the random training crop over the shorter side of the image
    flip: bool
    workers: Workers

    @property
    def name(self) -> str:
        """What reports call these images: 'digits', or the folder's own name, also of '.' and '..'."""
        return "digits" if self.path is None else Path(os.path.abspath(self.path)).name

    @model_validator(mode="after")
    def check(self) -> Self:
        if (self.path is None) != (self.source == "digits"):
            raise ValueError(f"path: a folder for {self.source!r}" if self.path is None else "path: null for 'digits'")
        if self.source == "digits" and self.classes is not None:
            raise ValueError("classes: null for 'digits'")
        if not 0.01 <= self.crop_scale[0] <= self.crop_scale[1]:
            raise ValueError("crop_scale: two increasing fractions from 0.01 on, such as [0.8, 1.0]")
        return self


class Codes(Config):
    # The image's shorter side over the crop's.
    scales: Annotated[tuple[Annotated[float, Field(ge=1, le=100)], ...], Field(min_length=1)]
    five_crops: bool                       # corners and centre; else the centre
    flip: bool
    batch_size: Many

    @property
    def crop_count(self) -> int:
        """Views of one image."""
        return len(self.scales) * (5 if self.five_crops else 1) * (2 if self.flip else 1)
