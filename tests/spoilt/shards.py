"""Images in tar shards and parquet files, and parts of prepared images."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet

from restok.config.load import load_params
from restok.data.prepare import prepare_part
from restok.parts import Shard
from spoilt.case import DROP, Case, altered, both, copied, folder, gone, keys, mishaps, moved, written
from spoilt.chain import RUN, E, P, R
from spoilt.images import picture, saved

SHARDS, TABLES = (f"prepare {P} --set data.source={source} --set data.path=. --set data.train=train.{kind} --set "
                  f"data.validation=validation.{kind} --set data.classes=classes.txt --out out"
                  for source, kind in (("webdataset", "tar"), ("parquet", "parquet")))

SCORED = f"evaluate {P} {E} --samples {{}} --out out.json"


def shards(home: Path) -> None:
    """Images as tar shards and as parquet files, and a list of their classes."""
    for split in ("train", "validation"):
        images = [(label, saved(picture(number))) for label in range(2) for number in range(3)]
        with tarfile.open(home / f"{split}.tar", "w") as archive:
            for key, (label, data) in enumerate(images):
                for kind, content in (("cls", str(label).encode()), ("png", data)):
                    member = tarfile.TarInfo(f"{('cat', 'dog')[label]}/{key}.{kind}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        about = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
        table = pyarrow.table({"image": [{"bytes": data, "path": f"{key}.png"} for key, (_, data) in enumerate(images)],
                               "label": [label for label, _ in images]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
        pyarrow.parquet.write_table(table, home / f"{split}.parquet")
    (home / "classes.txt").write_text("dog\ncat\n")


def first_shards(cases: list[Case]) -> list[Case]:
    """These cases, once there are such files to spoil."""
    return [case._replace(spoil=both(shards, case.spoil)) for case in cases]


SHARDED = first_shards([
    Case("shards", SHARDS, "train: 6", read=True), Case("parquet files", TABLES, "train: 6/6", read=True),
    *mishaps("a shard", "train.tar", SHARDS), *mishaps("a parquet file", "train.parquet", TABLES),
    *mishaps("a list of classes", "classes.txt", SHARDS, without=("cut short",)),       # half a list is a shorter one
    Case("a shard, one byte altered", SHARDS, r"train\.tar", altered("train.tar", 0.05)),
    Case("a parquet file, one byte altered", TABLES, r"train\.parquet", altered("train.parquet", 0.99)),
    *(case for kind in ("tar", "parquet") for case in (
        Case(f"samples in a {kind}", SCORED.format(f"train.{kind}"), f"train.{kind}", read=True),
        *mishaps(f"samples in a {kind}", f"train.{kind}", SCORED.format(f"train.{kind}")),
        Case(f"a folder of a {kind} and of images", SCORED.format("both"), f"both: holds train.{kind} and 1.png", both(
            folder("both"), moved(f"train.{kind}", f"both/train.{kind}"), written("both/1.png", saved(picture())))))),
    Case("samples in a tar, one byte altered", SCORED.format("train.tar"), r"train\.tar", altered("train.tar", 0.05)),
    Case("samples in a parquet, one byte altered", SCORED.format("train.parquet"), r"train\.parquet",
         altered("train.parquet", 0.99)),
])


def parts(home: Path) -> None:
    """The digits in two parts."""
    params = load_params(home / RUN)
    for i in range(2):
        prepare_part(params.data, params.tokenizer.image_size, Shard(i, 2), home / f"parts/{i}")


GATHER, ABOUT = f"prepare parts/0 parts/1 {P} --out out", "parts/1/manifest.json"
PARTS = [case._replace(spoil=both(parts, case.spoil)) for case in [
    Case("parts", GATHER, "", read=True), Case("a part alone", f"prepare parts/0 {P} --out out", "part 1/2 is missing"),
    Case("a part twice", f"{GATHER} parts/1", "parts/1"), Case("a copy of a part", GATHER, "parts/1: part 0/2", both(
        gone("parts/1"), copied("parts/0", "parts/1"))),
    Case("parts of another size", f"{GATHER} --set tokenizer.image_size=32", "parts/0.*image_size"),
    Case("a whole as a part", f"prepare {R}/data {P} --out out", "data"),
    *mishaps("manifest of a part", ABOUT, GATHER, "parts/1"),
    *mishaps("a file of a part", "parts/1/validation/00000.arrow", GATHER, r"parts/1/validation/00000\.arrow"),
    *(Case(f"manifest of a part, {key} is {'missing' if value is DROP else value}", GATHER, f"{ABOUT}.*{named}",
           keys(ABOUT, {key: value}))
      for key, value, named in (
        ("part", DROP, "part"), ("parts", "two", "parts"), ("parts", 0, "parts"), ("kind", DROP, "kind"),
        ("pieces", [], "pieces"), ("pieces.train", DROP, "pieces"), ("pieces.validation.0.images", -1, "images"),
        ("pieces.validation.0.seen", "none", "seen"), ("about.train", DROP, "about"), ("about.train.name", 5, "name"),
        ("files", DROP, "files"))),
    Case("manifest of a part, another count", GATHER, r"00000\.arrow.*361", keys(ABOUT, {"pieces.validation.0.images": 361})),
    Case("manifest of a part, pieces gone", GATHER, "parts/1|digits/validation", keys(ABOUT, {"pieces.validation": []})),
]]
