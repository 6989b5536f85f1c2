"""Data: raw folders become checked tables, views are cut exactly, and the order of training is a function of (seed, step)."""

import io
import logging
import os
import re
import shutil
import struct
import time
import zlib
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import held
from PIL import Image
from rich.console import Console

from restok import config, progress
from restok.data.images import open_images
from restok.data.loader import batches, evaluation_batches, order
from restok.data.prepare import prepare
from restok.data.reading import DataError
from restok.data.table import Split, open_split
from restok.data.threads import map_ahead
from restok.data.transforms import center_crop, crops, random_crop, to_tensor, to_uint8
from restok.files import read_json, write_json
from restok.progress import track


def settings(path=None, workers=0):
    return config.Data(source="imagefolder" if path else "digits", path=path and str(path), train="train",
                       validation="validation", classes=None, decoder="pillow", crop_scale=(0.8, 1.0), flip=True,
                       workers=workers)


def noise(height=24, width=40, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


def image_folder(root, train=4, classes=("cat", "dog")):
    for split, count in (("train", train), ("validation", 2)):
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                noise(seed=100 * label + i).save(root / split / name / f"{i:04d}.jpg")
    return root


# Sources

def test_digits_are_split_once_and_evenly(digits):
    train, validation = open_split(digits, "train"), open_split(digits, "validation")
    assert (len(train), len(validation)) == (1437, 360)
    assert train.classes == validation.classes == list("0123456789")
    shares = np.bincount(train.labels) / (np.bincount(train.labels) + np.bincount(validation.labels))
    assert np.abs(shares - 0.8).max() < 0.005
    image, label = validation[7]
    assert (image.mode, image.size, label) == ("RGB", (16, 16), validation.labels[7])
    assert np.ptp(np.asarray(image)) > 128


def test_preparing_again_gives_the_same_digest(digits, tmp_path):
    manifest = prepare(settings(workers=2), 16, tmp_path / "again")
    assert manifest == read_json(tmp_path / "again" / "manifest.json")
    assert held(tmp_path / "again") == held(digits)
    digests = [open_split(digits, split).digest for split in ("train", "validation")]
    assert digests == [manifest["splits"][split]["sha256"] for split in ("train", "validation")] and digests[0] != digests[1]


def test_image_files_are_packed_as_they_are(tmp_path):
    root = image_folder(tmp_path / "raw")
    noise(9, 5).convert("L").save(root / "train" / "dog" / "grey.png")
    manifest = prepare(settings(root), 256, tmp_path / "data")
    assert manifest["splits"]["train"]["images_per_class"] == {"cat": 4, "dog": 5}
    split = open_split(tmp_path / "data", "train")
    assert split.classes == ["cat", "dog"] and split.labels.tolist() == [0] * 4 + [1] * 5
    exact = Image.open(root / "train" / "dog" / "0002.jpg").convert("RGB")
    assert np.array_equal(split[6][0], exact) and split[6][1] == 1
    assert (split[8][0].mode, split[8][0].size) == ("RGB", (5, 9))


def test_exif_orientation_is_left_alone(tmp_path):
    root = image_folder(tmp_path / "raw", train=60)
    exif = Image.Exif()
    exif[0x0112] = 6                     # "turn by 90 degrees"
    noise(24, 40).save(root / "train" / "cat" / "0000.jpg", exif=exif)
    facts = prepare(settings(root), 256, tmp_path / "data")["splits"]["train"]
    assert open_split(tmp_path / "data", "train")[0][0].size == (40, 24) and facts["odd"] == {"EXIF turn": ["cat/0000.jpg"]}


def test_broken_files_are_skipped_and_named(tmp_path, caplog):
    root = image_folder(tmp_path / "raw", train=100)
    truncated, corrupt = root / "train" / "cat" / "0003.jpg", root / "train" / "dog" / "0050.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-200])
    corrupt.write_bytes(b"not an image")
    with caplog.at_level(logging.WARNING, logger="restok"):
        manifest = prepare(settings(root, workers=3), 256, tmp_path / "data")
    assert list(manifest["splits"]["train"]["skipped"]) == ["cat/0003.jpg", "dog/0050.jpg"]
    assert manifest["splits"]["train"]["skipped"]["dog/0050.jpg"].startswith("not a readable image")
    assert str(truncated) in caplog.text and str(corrupt) in caplog.text
    split = open_split(tmp_path / "data", "train")
    assert len(split) == manifest["splits"]["train"]["count"] == 198 and np.bincount(split.labels).tolist() == [99, 99]


def test_more_than_one_percent_broken_is_an_error_that_leaves_nothing(tmp_path):
    root = image_folder(tmp_path / "raw", train=100)
    for i in range(3):
        (root / "train" / "cat" / f"{i:04d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"more than 1% of its 200 images are not read.*0002\.jpg"):
        prepare(settings(root), 256, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["raw"]


def grey(deep):
    return (np.arange(16 * 16).reshape(16, 16) * (257 if deep == np.uint16 else 1)).astype(deep)


def drawing(path):
    """A black drawing on transparent ground."""
    Image.merge("LA", (Image.new("L", (16, 16)), Image.fromarray(grey(np.uint8)))).save(path)


UNREAD = {
    "deep.png": (lambda path: Image.fromarray(grey(np.uint16)).save(path), "more than 8 bits|16 bits a channel"),
    "deep.tiff": (lambda path: Image.fromarray(grey(np.uint16)).save(path), "not of a kind that is read"),
    "float.TIF": (lambda path: Image.fromarray(grey(np.float32) / 256).save(path), "not of a kind that is read"),
    "phone.heic": (lambda path: path.write_bytes(b"....ftypheic"), "not of a kind that is read"),
    "nameless": (lambda path: noise().save(path, "PNG"), "not of a kind that is read"),
    "gone.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "a link to nothing"),
    "gone": (lambda path: path.symlink_to("nowhere"), "a link to nothing"),
    "pipe.png": (lambda path: os.mkfifo(path), "no regular file"),
    "bomb.png": (lambda path: path.write_bytes(bomb()), "DecompressionBomb"),
    "slim.png": (lambda path: Image.new("L", (1, 2000)).save(path), "one more than 100 times the other")}


def bomb():
    """A PNG that says it has 60,000 x 60,000 pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(bytes(60_001)), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_read_rightly_is_refused_and_counted_by_name_by_one_rule(tmp_path, caplog, name):
    """Packed, a deep grey would train as white, a drawing as black; left out unsaid, nobody would know."""
    root, (write, reason) = image_folder(tmp_path / "raw", train=60), UNREAD[name]
    for i in range(1, 3):
        (root / "train" / "cat" / f"second{i}").mkdir()
        write(root / "train" / "cat" / f"second{i}" / name)
        if i == 1:                       # one of 121
            manifest = prepare(settings(root, workers=2), 256, tmp_path / "data")
            assert list(manifest["splits"]["train"]["skipped"]) == [f"cat/second1/{name}"]
            assert f"cat/second1/{name}: " in caplog.text and re.search(reason, caplog.text)
            assert len(open_split(tmp_path / "data", "train")) == 120
    with pytest.raises(DataError, match=rf"more than 1% of its 122 images are not read.*second1/{name}.*({reason})"):
        prepare(settings(root), 256, tmp_path / "again")
    (tmp_path / "alone").mkdir()
    write(tmp_path / "alone" / name)
    with pytest.raises(DataError, match=rf"alone/{name}: .*({reason})"):
        open_images(tmp_path / "alone")


def test_what_is_odd_is_read_as_usual_and_named_by_kind_but_not_measured(tmp_path):
    """In training, a black drawing is what the usual pipelines make of it; a distance is of what the picture shows."""
    root = image_folder(tmp_path / "raw", train=60)
    drawing(root / "train" / "cat" / "drawing.png")
    manifest = prepare(settings(root, workers=2), 256, tmp_path / "data")
    assert manifest["splits"]["train"]["odd"] == {"transparency": ["cat/drawing.png"]}
    assert manifest["splits"]["train"]["count"] == len(open_split(tmp_path / "data", "train")) == 121
    noise().convert("CMYK").save(root / "train" / "cat" / "print.jpg")
    with pytest.raises(DataError, match=r"more than 1% of its 122 images are odd, .*print\.jpg, cat/drawing\.png.*save them"):
        prepare(settings(root), 256, tmp_path / "again")
    (tmp_path / "alone").mkdir()
    drawing(tmp_path / "alone" / "drawing.png")
    with pytest.raises(DataError, match="has an alpha channel"):
        open_images(tmp_path / "alone")


def test_images_below_a_class_folder_belong_to_the_class(tmp_path):
    root = image_folder(tmp_path / "raw")
    for i in range(20):
        (root / "train" / "cat" / "a" / "b").mkdir(parents=True, exist_ok=True)
        noise(seed=i).save(root / "train" / "cat" / "a" / "b" / f"{i}.png")
    (root / "train" / "cat" / "boxes.txt").write_text("no image")
    manifest = prepare(settings(root), 256, tmp_path / "data")["splits"]["train"]
    assert (manifest["images_per_class"], manifest["skipped"]) == ({"cat": 24, "dog": 4}, {})
    assert np.array_equal(open_split(tmp_path / "data", "train")[4][0], noise(seed=0))      # cat/0003.jpg, cat/a/b/0.png
    (root / "train" / "cat" / "loop").symlink_to(root / "train" / "dog")
    with pytest.raises(DataError, match="whose images would count twice"):
        prepare(settings(root), 256, tmp_path / "again")
    (root / "train" / "cat" / "loop").unlink()
    noise().save(root / "train" / "stray.png")
    with pytest.raises(DataError, match=r"train/stray\.png: lies beside the class folders"):
        prepare(settings(root), 256, tmp_path / "again")


def test_names_that_are_not_utf8_are_named(tmp_path):
    root = image_folder(tmp_path / "raw", train=60)
    (root / "train" / "cat" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"no image")
    assert prepare(settings(root), 256, tmp_path / "data")["splits"]["train"]["skipped"].keys() == {"cat/caf\\xe9.jpg"}
    for split in ("train", "validation"):
        (root / split / "cat").rename(root / split / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DataError, match=r"raw/train: the class folder caf\\xe9 has a name that is not UTF-8"):
        prepare(settings(root), 256, tmp_path / "again")


def test_a_manifest_is_checked_where_it_is_read(digits, tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split).symlink_to(digits / split)
    for key, value, message in (("source", None, "has no 'source'"), ("count", "many", r"splits\.train\.count"),
                                ("classes", list("012"), "labels from 0 to 9, but the manifest names 3 classes")):
        manifest = read_json(digits / "manifest.json")
        if value is None:
            del manifest[key]
        else:
            manifest["splits"]["train"][key] = value
        write_json(tmp_path / "manifest.json", manifest)
        with pytest.raises(DataError, match=rf"{message}.*restok prepare"):
            open_split(tmp_path, "train")
    manifest = read_json(digits / "manifest.json")
    del manifest["splits"]["train"]["files"]             # as earlier versions wrote it
    write_json(tmp_path / "manifest.json", manifest)
    with pytest.raises(DataError, match=r"has no 'splits\.train\.files'.*run `restok prepare` to write"):
        open_split(tmp_path, "train")


def test_folders_that_are_not_two_splits_of_the_same_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"raw/train: no such folder.*data\.path"):
        prepare(settings(tmp_path / "raw"), 256, tmp_path / "data")
    root = image_folder(tmp_path / "raw")
    (root / "train" / "emu").mkdir()
    with pytest.raises(DataError, match=r"raw/validation: has no folder for 1 .*'emu'"):
        prepare(settings(root), 256, tmp_path / "data")
    (root / "validation" / "emu").mkdir()
    with pytest.raises(DataError, match=r"train/emu: an empty class folder"):
        prepare(settings(root), 256, tmp_path / "data")


def test_a_missing_or_half_written_split_names_the_command(digits, tmp_path):
    with pytest.raises(DataError, match="restok prepare"):
        open_split(tmp_path / "nowhere", "train")
    manifest = read_json(digits / "manifest.json")
    manifest["splits"]["train"]["count"] += 1
    write_json(tmp_path / "short" / "manifest.json", manifest)
    (tmp_path / "short" / "train").symlink_to(digits / "train")
    with pytest.raises(DataError, match=r"\(2, 1437\), but the manifest counts 1438 images.*restok prepare"):
        open_split(tmp_path / "short", "train")
    with pytest.raises(DataError, match=r"short/validation.*restok prepare"):
        open_split(tmp_path / "short", "validation")


@pytest.mark.parametrize(("index", "message"), [
    (np.full((2, 1437), 0.5), "float64"), (np.full((2, 1437), "zero"), "<U4"), (np.zeros((2, 1436), np.int64), r"\(2, 1436\)"),
    (np.full((2, 1437), 1437), "labels from 1437 to 1437"), (np.stack([np.full(1437, 1437), np.zeros(1437, int)]), "rows from"),
    (np.full((2, 1437), None), "allow_pickle")])
def test_an_index_that_is_no_order_of_the_images_is_refused(digits, tmp_path, index, message):
    shutil.copytree(digits, tmp_path / "data")
    np.save(tmp_path / "data/train/index.npy", index)
    with pytest.raises(DataError, match=rf"train: not a prepared split.*{message}.*restok prepare"):
        open_split(tmp_path / "data", "train")


def test_files_are_read_ahead_in_order_and_no_further():
    started = []
    squares = map_ahead(lambda i: started.append(i) or i * i, range(1000), workers=3, ahead=10)
    assert [next(squares) for _ in range(5)] == [0, 1, 4, 9, 16]
    squares.close()
    assert sorted(started) == list(range(len(started))) and 5 <= len(started) <= 15


# Views

def test_center_crop_takes_the_middle_of_the_shorter_side():
    image = np.zeros((30, 10, 3), np.uint8)
    image[10:20] = 255
    assert (center_crop(Image.fromarray(image), 10) == 255).all()
    view = center_crop(noise(30, 50), 20)
    assert view.shape == (20, 20, 3) and view.dtype == np.uint8


def ten(**changes):
    return config.Codes(**{"scales": (1.1,), "five_crops": True, "flip": True, "batch_size": 1} | changes)


def test_ten_crops_are_corners_and_centre_and_their_mirror_images():
    image = Image.fromarray(np.arange(22 * 22 * 3, dtype=np.uint16).reshape(22, 22, 3).astype(np.uint8))
    pixels = np.asarray(image)
    views = crops(image, 20, ten())      # a square of 22: no resizing
    assert len(views) == ten().crop_count == 10
    corners = [pixels[top:top + 20, left:left + 20] for top, left in [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]]
    for view, corner in zip(views, [*corners, *(corner[:, ::-1] for corner in corners)], strict=True):
        assert np.array_equal(view, corner)
    assert len({view.tobytes() for view in views}) == 10


def test_crops_follow_the_settings():
    wide = Image.new("RGB", (400, 300))
    wide.putpixel((200, 150), (255, 255, 255))
    for codes, count in [(ten(), 10), (ten(flip=False), 5), (ten(five_crops=False), 2), (ten(scales=(1.1, 1.05)), 20)]:
        views = crops(wide, 256, codes)
        assert len(views) == codes.crop_count == count and {view.shape for view in views} == {(256, 256, 3)}
    bright = np.unravel_index(crops(wide, 256, ten())[0].sum(-1).argmax(), (256, 256))
    assert bright == (140, 140)          # the centre of a square of int(256 * 1.1) = 281 pixels


def test_random_crops_show_the_asked_share_of_the_shorter_side():
    row = np.linspace(0, 255, 100)       # across the picture, brightness is the position
    image = Image.fromarray(np.broadcast_to(row[None, :, None], (100, 100, 3)).astype(np.uint8))
    shares, mirrored = [], 0
    for seed in range(200):
        view = random_crop(image, 32, (0.8, 1.0), True, np.random.default_rng(seed)).astype(float)
        assert view.shape == (32, 32, 3)
        across = (view[16, 31, 0] - view[16, 0, 0]) / 255 * 32 / 31
        shares.append(abs(across))
        mirrored += across < 0
    assert 0.77 < min(shares) < 0.82 and 0.97 < max(shares) < 1.03
    assert 70 < mirrored < 130
    steady = [random_crop(image, 32, (0.8, 1.0), False, np.random.default_rng(seed)) for seed in range(20)]
    assert all(int(view[16, 31, 0]) > int(view[16, 0, 0]) for view in steady)


def test_eight_bits_survive_the_way_to_tensors_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    tensor = to_tensor(levels)
    assert tensor.shape == (1, 3, 16, 16) and (tensor.min(), tensor.max()) == (0, 1)
    assert np.array_equal(to_uint8(tensor), levels)
    assert torch.equal(to_tensor([levels[0], levels[0]])[1], tensor[0])


def test_to_uint8_clamps_and_rounds():
    values = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 126.7 / 255, 254.6 / 255, 1.0, 7.0]).reshape(1, 1, 1, 8)
    assert to_uint8(values.expand(1, 3, 1, 8))[0, 0, :, 0].tolist() == [0, 0, 0, 1, 127, 255, 255, 255]
    assert to_uint8(values.expand(1, 3, 1, 8), "truncate")[0, 0, :, 0].tolist() == [0, 0, 0, 0, 126, 254, 255, 255]
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.full((1, 3, 2, 2), float("nan")))
    with pytest.raises(ValueError, match="images hold NaN or infinity"):        # which clamping would make white
        to_uint8(torch.full((1, 3, 2, 2), float("inf")))


# Order

def test_order_is_a_pure_function_and_a_permutation():
    np.random.seed(1)
    assert np.array_equal(order(7, 3, 50), order(7, 3, 50))
    assert sorted(order(7, 3, 50)) == list(range(50))
    assert len({tuple(order(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


class Numbered(Split):
    """A split whose image i is a picture of noise with label i."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return noise(20, 20, seed=index), index


def take(count, start, workers=0, seed=5):
    return list(islice(batches(Numbered(10), settings(workers=workers), 16, 4, seed, start), count))


def test_an_epoch_visits_every_image_once_across_batches():
    labels = torch.cat([labels for _, labels in take(5, 0)])
    assert labels.tolist() == [*order(5, 0, 10), *order(5, 1, 10)]


def test_a_batch_depends_on_seed_and_step_alone():
    straight = take(7, 0)
    for other in (take(3, 4), take(3, 4, workers=2)):
        for (images, labels), (again, labels_again) in zip(straight[4:], other, strict=True):
            assert torch.equal(images, again) and torch.equal(labels, labels_again)
    assert not torch.equal(straight[4][0], take(1, 4, seed=6)[0][0])


def test_an_image_is_augmented_anew_each_epoch():
    views = {}
    for images, labels in take(5, 0):
        for image, label in zip(images, labels.tolist(), strict=True):
            views.setdefault(label, []).append(image)
    assert len(views) == 10 and all(len(seen) == 2 for seen in views.values())
    assert sum(not torch.equal(*seen) for seen in views.values()) > 5      # two of the few small crops may coincide


def test_drawing_batches_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    take(2, 0)
    assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])


def test_evaluation_is_every_image_once_in_order(digits):
    split = open_split(digits, "validation")
    in_order = list(evaluation_batches(split, 16, 128))
    assert [len(labels) for _, labels in in_order] == [128, 128, 104]
    assert np.array_equal(torch.cat([labels for _, labels in in_order]), split.labels)
    assert np.array_equal(to_uint8(in_order[1][0])[3], np.asarray(split[131][0]))


# Progress

def test_progress_passes_items_through_and_reports_steps(caplog):
    with caplog.at_level(logging.INFO, logger="restok"):
        assert list(track(iter("abc"), "letters", total=3, every=0)) == ["a", "b", "c"]
    assert "letters: 1/3 (33%)" in caplog.text and "left" in caplog.text


def test_a_terminal_shows_steps_rate_and_time_left(monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(progress, "CONSOLE", terminal)
    for item in track(range(20), "tokenizer 250k", total=20):
        time.sleep(0.02)
        if item == 12:
            terminal.print("a row of the log")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue())
    assert re.search(r"tokenizer 250k.* 1[0-9]/20.* [0-9.]+/s.* 0:00:0[0-9]", shown) and "a row of the log" in shown


def test_images_that_did_not_change_are_packed_once(tmp_path, caplog):
    """They stand; or the workflow deleted them, because it was killed before it recorded success."""
    root, out, run = image_folder(tmp_path / "raw"), tmp_path / "data", tmp_path / "run"
    with caplog.at_level("INFO", "restok"):
        first = prepare(settings(root), 256, out, run)
        assert prepare(settings(root), 256, out, run) == first and "data: stands already" in caplog.text
        shutil.rmtree(out)
        assert prepare(settings(root), 256, out, run) == first and "was finished before; taken from" in caplog.text
        os.utime(next((root / "train").rglob("*.jpg")))                              # it may be another picture now
        caplog.clear()
        again = prepare(settings(root), 256, out, run)
    assert again["splits"] == first["splits"] and "reading" in caplog.text and "stands already" not in caplog.text
    assert len(list(run.glob("*/finished"))) == 1
