"""Images and folders of them, as `prepare`, `evaluate` and `reconstruct` read them, and what `prepare` made of them."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from spoilt.case import (
    DROP,
    Case,
    Spoil,
    altered,
    both,
    bytes_of,
    copied,
    cut,
    empty,
    folder,
    gone,
    keys,
    linked,
    mishaps,
    pipe,
    written,
)
from spoilt.chain import SAMPLES, C, E, P, R, T

PREPARE = f"prepare {P} --set data.source=imagefolder --set data.path=photos --out out"
MEASURE = f"evaluate {P} {E} --samples photos/train --out out.json"
REBUILD = f"reconstruct photos/train {T} --out out.npz"
ONE = "photos/train/cat/1.png"


def saved(image: Image.Image, kind: str = "PNG", **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def picture(seed: int = 0, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG as its header says, whatever that may be."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def photos(home: Path) -> None:
    """Two splits of two classes of three images."""
    for split in ("train", "validation"):
        for kind in ("cat", "dog"):
            for number in range(3):
                path = home / f"photos/{split}/{kind}/{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(saved(picture(number)))


def among(what: str, spoil: Spoil, named: str, prepared: str | None = None) -> list[Case]:
    """Something in that folder, as each of the three commands meets it."""
    return [Case(f"{words.split()[0]}: {what}", words, prepared or named if words is PREPARE else named, both(photos, spoil))
            for words in (PREPARE, MEASURE, REBUILD)]


def image(what: str, content: bytes, name: str = ONE, named: str | None = None) -> list[Case]:
    return among(what, written(name, content), named or name.rpartition("photos/")[2].replace(".", r"\."))


WHOLE = saved(picture())
DATA, MANIFEST, ARROW = f"{R}/data", f"{R}/data/manifest.json", f"{R}/data/train/00000.arrow"

IMAGES = [
    *image("16 bits of grey", saved(Image.fromarray(np.full((16, 16), 40000, np.uint16)))),
    *image("16 bits of colour", png(16, 16, 16, 2, (b"\0" + bytes(96)) * 16)),
    *image("floats", saved(Image.fromarray(np.full((16, 16), 0.5, np.float32)), "TIFF")),
    *image("an alpha channel", saved(picture(mode="RGBA"))),
    *image("a transparent colour", saved(picture(mode="P"), transparency=0)),
    *image("half a file", WHOLE[:len(WHOLE) // 2]), *image("an empty file", b""), *image("text", b"no image"),
    *image("half a JPEG", saved(picture(), "JPEG")[:300]), *image("a bomb", png(60000, 60000, 8, 0, b"\0" * 1000)),
    *image("a hair", saved(picture(size=(1, 400)))), *image("no pixels", png(0, 0, 8, 2, b"")),
    *image("a GIF by another name", saved(picture(mode="P"), "GIF")),
    *image("a TIFF", saved(picture(), "TIFF"), "photos/train/cat/1.tif"),
    *among("a pipe called .png", pipe(ONE), "1.png"), *among("a link to nothing", linked(ONE, "nowhere.png"), "1.png"),
    *among("a link to itself", linked(ONE, "1.png"), "1.png"),
    *among("an empty class", folder("photos/train/owl"), "owl"),
    *among("a file beside the classes", written("photos/train/a.png", WHOLE), "a.png"),
    *among("a class linked to itself", linked("photos/train/cat/more", ".."), "more"),
    *among("a class that is no UTF-8", lambda home: os.mkdir(os.fsencode(home / "photos/train") + b"/\xff"), r"\\xff|ff"),
    *among("no images", both(gone("photos/train"), folder("photos/train")), "train"),
    *among("no folder", gone("photos/train"), "train"),
    *among("a file, not a folder", written("photos/train", b"text"), "train"),
]


def npz(what: str, named: str, words: str = f"evaluate {P} {E} --samples s.npz --out out.json", read: bool = False,
        **arrays) -> Case:
    def spoil(home: Path) -> None:
        np.savez(home / "s.npz", **arrays)

    return Case(f"an npz with {what}", words, f"s.npz.*{named}" if not read else named, spoil, read)


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
ARRAYS = [
    npz("floats", "float32", arr_0=PIXELS.astype(np.float32)), npz("signed numbers", "int8", arr_0=PIXELS.astype(np.int8)),
    npz("channels first", "arr_0", arr_0=PIXELS.transpose(0, 3, 1, 2)), npz("grey", "arr_0", arr_0=PIXELS[..., 0]),
    npz("alpha", "arr_0", arr_0=np.concatenate([PIXELS, PIXELS[..., :1]], -1)), npz("no images", "no images", arr_0=PIXELS[:0]),
    npz("another name", "no array 'arr_0'", images=PIXELS), npz("pickles", "arr_0", arr_0=np.array([{}], object)),
    npz("Fortran's order", "Fortran", arr_0=np.asfortranarray(PIXELS)), npz("one number", "arr_0", arr_0=np.uint8(3)),
    npz("images of no size", "arr_0", arr_0=PIXELS[:, :0]), npz("images of another size", "8", arr_0=PIXELS[:, :8, :8]),
    npz("fewer labels", "labels", arr_0=PIXELS, labels=np.arange(3)),
    npz("labels of words", "labels", arr_0=PIXELS, labels=np.array(["a"] * 20)),
    npz("labels below 0", "labels", arr_0=PIXELS, labels=np.full(20, -1)),
    npz("labels beyond all", "labels", arr_0=PIXELS, labels=np.full(20, 2**40)),
    npz("labels of halves", "labels", arr_0=PIXELS, labels=np.full(20, 0.5)),
    npz("half a pair of statistics", "mu", f"evaluate {P} {C} {SAMPLES} --reference s.npz --out out.json",
        mu=np.zeros(64)),
    npz("statistics of NaN", "mu", f"evaluate {P} {C} {SAMPLES} --reference s.npz --out out.json",
        mu=np.full(64, np.nan), sigma=np.eye(64)),
    npz("statistics of another network", "2048",
        f"evaluate {P} {C} {SAMPLES} --reference s.npz --out out.json",
        mu=np.zeros(2048), sigma=np.eye(2048)),
    npz("neither images nor statistics", "arr_0",
        f"evaluate {P} {C} {SAMPLES} --reference s.npz --out out.json", a=PIXELS),
    npz("one image", "not measured", read=True, arr_0=PIXELS[:1]),
    npz("equal images", "rFID|FD-digits", read=True, arr_0=PIXELS[[0] * 20]),
    *(Case(f"an npz {what}", f"evaluate {P} {E} {SAMPLES} --out out.json", "750k.npz",
           spoil(f"{R}/samples/main/750k.npz"))
      for what, spoil in (("cut short", cut), ("with a changed byte", altered), ("that is empty", empty),
                          ("that is a pipe", pipe))),
    Case("a single image", f"evaluate {P} {E} --samples a.png --out out.json", "a.png", written("a.png", WHOLE)),
    Case("reconstructions that are no originals'",
         f"evaluate {P} {E} --samples photos/train --originals other --crop 16 --out out.json", "3|other|cat",
         both(photos, copied("photos/train", "other"), gone("photos/train/cat/2.png"))),
]


def damaged(data: bytes) -> bytes:
    """A packed file whose fourth image is altered where it stands."""
    place = -1
    for _ in range(4):
        place = data.index(b"\x89PNG", place + 1)
    return data[:place] + bytes(60) + data[place + 60:]


def index(array: np.ndarray) -> Spoil:
    """Another index of the training split."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return written(f"{R}/data/train/index.npy", buffer.getvalue())


ENCODE = f"encode {P} --data {DATA} {T} --out out"
PREPARED = [
    *mishaps("manifest", MANIFEST, ENCODE), *mishaps("a table", ARROW, ENCODE, "data/train"),
    *(Case(f"manifest, {key} is {value if value is not DROP else 'missing'}", ENCODE, f"manifest.json.*{named}",
           keys(MANIFEST, {key: value}))
      for key, value, named in (
        ("splits", DROP, "splits"), ("splits.train", DROP, "train"), ("splits", [], "splits"), ("source", DROP, "source"),
        ("splits.train.count", "many", "count"), ("splits.train.count", -1, "count"), ("splits.train.classes", [], "classes"),
        ("splits.train.classes", DROP, "classes"), ("splits.train.sha256", 5, "sha256"),
        ("splits.train.images_per_class", {"0": -4}, "images_per_class"))),
    Case("manifest, another count", ENCODE, "train.*1436", keys(MANIFEST, {"splits.train.count": 1436})),
    Case("manifest, fewer classes", ENCODE, "train.*classes", keys(MANIFEST, {"splits.train.classes": ["0"]})),
    *mishaps("an index", f"{R}/data/train/index.npy", ENCODE, "data/train"),
    *(Case(f"an index {what}", ENCODE, "data/train", index(array)) for what, array in (
        ("of halves", np.full((2, 1437), 0.5)), ("of words", np.full((2, 1437), "zero")),
        ("of blanks", np.full((2, 1437), None)),
        ("of fewer images", np.zeros((2, 1436), np.int64)), ("of labels beyond all", np.full((2, 1437), 10)),
        ("of rows beyond all", np.stack([np.full(1437, 1437), np.zeros(1437, np.int64)])))),
    Case("a damaged image", ENCODE, "train: image 3", bytes_of(ARROW, damaged)),
    Case("manifest, no files", ENCODE, "manifest.json.*files", keys(MANIFEST, {"splits.train.files": []})),
    Case("prepared images of other classes", f"train-tokenizer {P} --data {DATA} {C} --checkpoint 750k --run new --out out",
         "generator.classes.*10",
         keys(MANIFEST, {"splits.train.classes": [str(n) for n in range(11)]})),
]
