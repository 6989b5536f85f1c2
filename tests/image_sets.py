"""The same few photographs as ImageNet is published: folders of classes, tar shards, parquet files."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
from conftest import ROOT

from restok import config

IDS = {"dress": "n03000001", "hat": "n01000002", "shoes": "n02000003"}       # whose order is another than the names'
LABELS = {kind: label for label, kind in enumerate(sorted(IDS, key=IDS.__getitem__))}
LEMMAS = ("hat, chapeau", "shoe", "dress, frock")


class Photo(NamedTuple):
    kind: str
    stem: str                            # as ImageNet names it
    data: bytes

    @property
    def label(self) -> int:
        return LABELS[self.kind]

    @property
    def id(self) -> str:
        return IDS[self.kind]


def photographs() -> dict[str, list[Photo]]:
    """By split, in an order in which nobody wants them."""
    splits = {}
    for split in ("train", "validation"):
        files = sorted((ROOT / "tests/photographs" / split).glob("*/*.jpg"))
        named = [(file.parent.name, number, file.read_bytes()) for number, file in enumerate(files)]
        photos = [Photo(kind, f"{IDS[kind]}_{100 - number}" if split == "train" else f"ILSVRC2012_val_{number:08}", data)
                  for kind, number, data in named]
        splits[split] = [photos[i] for i in np.random.default_rng(1).permutation(len(photos))]
    return splits


def settings(source: str, path: Path, train: str, validation: str) -> config.Data:
    return config.Data(source=source, path=str(path), train=train, validation=validation, classes=None, decoder="pillow",
                       crop_scale=(0.8, 1.0), flip=True, workers=0)


def as_folder(root: Path) -> config.Data:
    for split, photos in photographs().items():
        for photo in photos:
            path = root / split / photo.id / f"{photo.stem}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo.data)
    return settings("imagefolder", root, "train", "validation")


def sample(photo: Photo, told: bool = False) -> dict[str, bytes]:
    """As timm/imagenet-1k-wds has it. Names of validation images tell no class, unless that is to be `told`."""
    filename = f"{photo.id}/{photo.stem}.JPEG" if photo.stem.startswith("n") or told else f"{photo.stem}.JPEG"
    return {f"{photo.stem}.cls": str(photo.label).encode(), f"{photo.stem}.jpg": photo.data,
            f"{photo.stem}.json": json.dumps({"filename": filename, "label": photo.label}).encode()}


def write_tar(path: Path, samples: Sequence[Mapping[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in (item for one in samples for item in one.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def as_tars(root: Path, info: bool = False, told: bool = False) -> config.Data:
    """Three shards for training, one for validation; `info`: with timm's list of them."""
    splits = {}
    for split, photos in photographs().items():
        count = 3 if split == "train" else 1
        names = [f"imagenet1k-{split}-{i:04}.tar" for i in range(count)]
        for i, name in enumerate(names):
            write_tar(root / name, [sample(photo, told) for photo in photos[i::count]])
        splits[split] = {"name": split, "filenames": names, "shard_lengths": [len(photos[i::count]) for i in range(count)],
                         "num_samples": len(photos)}
    if info:
        (root / "_info.json").write_text(json.dumps({"splits": splits}))
    return settings("webdataset", root, "imagenet1k-train-{0000..0002}.tar", "imagenet1k-validation-*.tar")


def write_parquet(path: Path, photos: Sequence[Photo], names: Sequence[str] = LEMMAS, rows: int = 2) -> None:
    """As ILSVRC/imagenet-1k, in row groups of so many."""
    label = {"names": list(names), "_type": "ClassLabel"}
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    images = [{"bytes": photo.data, "path": f"{photo.stem}_{photo.id}.JPEG"} for photo in photos]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array(images, kind), "label": [photo.label for photo in photos]})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), path, row_group_size=rows)


def as_parquet(root: Path) -> config.Data:
    """In the hub's cache, where files are links to blobs."""
    snapshot = root / "snapshots/0123abc"
    for split, photos in photographs().items():
        count = 2 if split == "train" else 1
        for i in range(count):
            name, blob = f"{split}-{i:05}-of-{count:05}.parquet", root / f"blobs/{split}{i}"
            write_parquet(blob, photos[i::count])
            (snapshot / "data").mkdir(parents=True, exist_ok=True)
            (snapshot / "data" / name).symlink_to(blob)
    (root / "refs").mkdir()
    (root / "refs/main").write_text("0123abc")
    return settings("parquet", root, "data/train-*.parquet", "data/validation-*.parquet")


FORMS = {"imagefolder": as_folder, "webdataset": as_tars, "parquet": as_parquet}
