"""Images to be measured: exactly those that are there, as they are, in one order, whatever reads them."""

import hashlib
import os
import threading

import numpy as np
import pytest
from conftest import small_params
from PIL import Image

from restok.config.load import ConfigError
from restok.data.images import AHEAD, ImageSource, open_images
from restok.data.loader import evaluation_batches
from restok.data.reading import DataError
from restok.data.table import open_split
from restok.data.transforms import center_crop, to_tensor, to_uint8
from restok.files import FileError, read_json
from restok.metrics.reconstruction import psnr
from restok.metrics.statistics import Statistics
from restok.stages.reconstruct import reconstruct
from restok.stages.subjects import MeasureError, reconstructions_of, reference_of
from restok.tokenizer.model import ResTok
from restok.weights import save_model

PICTURES = np.random.default_rng(0).integers(256, size=(10, 12, 16, 3), dtype=np.uint8)


def save(root, *names, pictures=PICTURES):
    for name, picture in zip(names, pictures, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / name)
    return root


def everything(source, batch_size=4):
    return np.concatenate([images for _, images in source.batches(batch_size)])


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    save_model(tmp_path / "tokenizer", ResTok(small_params().tokenizer))
    return tmp_path / "tokenizer"


# Batches

def test_batches_are_the_same_wherever_a_run_begins(tmp_path):
    np.savez(tmp_path / "s.npz", arr_0=PICTURES)
    source = open_images(tmp_path / "s.npz")
    whole = list(source.batches(4))
    assert [(first, len(images)) for first, images in whole] == [(0, 4), (4, 4), (8, 2)]
    assert np.array_equal(np.concatenate([images for _, images in whole]), PICTURES)
    for start, stop, expected in ((4, None, whole[1:]), (4, 8, whole[1:2]), (8, 99, whole[2:]), (12, None, [])):
        part = source.batches(4, start, stop)
        assert all(a == b and np.array_equal(x, y) for (a, x), (b, y) in zip(part, expected, strict=True))
    with pytest.raises(ValueError, match="start 3: expected a multiple of the batch size, 4"):
        next(source.batches(4, 3))


def test_batches_are_read_ahead_and_no_further():
    asked = []

    def read(start, stop):
        asked.append((start, threading.current_thread()))
        return PICTURES[:stop - start]

    batches = ImageSource("x", "", 1000, (12, 16), None, "", read).batches(10)
    assert next(batches)[0] == 0 and next(batches)[0] == 10
    batches.close()
    assert 2 <= len(asked) <= 2 + AHEAD
    assert threading.main_thread() not in {thread for _, thread in asked}


# An npz

def test_an_npz_is_measured_as_stored(tmp_path):
    for save_as in (np.savez, np.savez_compressed):
        save_as(tmp_path / "s.npz", arr_0=PICTURES, labels=np.arange(10, dtype=np.int32))
        source = open_images(tmp_path / "s.npz")
        assert (source.name, source.n, source.size, source.rounding) == ("s.npz", 10, (12, 16), "8 bit, as stored")
        assert source.digest == hashlib.sha256((tmp_path / "s.npz").read_bytes()).hexdigest()
        assert source.labels.dtype == np.int64 and source.labels.tolist() == list(range(10))
        assert np.array_equal(everything(source), PICTURES)
    with pytest.raises(DataError, match=r"s\.npz: images of 12 x 16 .*, but 12 x 12 were asked for; .* or name a folder"):
        open_images(tmp_path / "s.npz", crop=12)


@pytest.mark.parametrize("arrays, expected", [
    ({}, None), ({"arr_1": np.arange(10)}, list(range(10))), ({"arr_1": np.ones(10)}, None), ({"arr_1": np.arange(3)}, None),
    ({"arr_1": np.arange(10), "labels": np.zeros(10, int)}, [0] * 10)])
def test_labels_of_an_npz(tmp_path, arrays, expected):
    np.savez(tmp_path / "s.npz", arr_0=PICTURES, **arrays)
    labels = open_images(tmp_path / "s.npz").labels
    assert labels is None if expected is None else labels.tolist() == expected


def test_an_npz_of_anything_but_8_bit_rgb_is_refused(tmp_path):
    for array, what in ((PICTURES / 255, "float64 (10, 12, 16, 3)"), (PICTURES[..., 0], "uint8 (10, 12, 16)"),
                        (PICTURES.transpose(0, 3, 1, 2), "uint8 (10, 3, 12, 16)"), (PICTURES[:0], "holds no images")):
        np.savez(tmp_path / "s.npz", arr_0=np.ascontiguousarray(array))
        with pytest.raises(DataError, match=r"s\.npz: arr_0") as error:
            open_images(tmp_path / "s.npz")
        assert what in str(error.value)
    np.savez(tmp_path / "s.npz", arr_0=PICTURES, labels=np.arange(9))
    with pytest.raises(DataError, match=r"s\.npz: labels are int64 \(9,\), expected 10 integers"):
        open_images(tmp_path / "s.npz")
    np.savez(tmp_path / "s.npz", images=PICTURES)
    with pytest.raises(FileError, match=r"s\.npz: has no array 'arr_0', only images"):
        open_images(tmp_path / "s.npz")


# A prepared split

def test_a_prepared_split_gives_the_views_of_the_evaluation(digits):
    split = open_split(digits, "validation")
    expected = np.concatenate([to_uint8(images) for images, _ in evaluation_batches(split, 8, 100)])
    for workers in (0, 3):
        source = open_images(digits, crop=8, workers=workers)
        assert (source.n, source.size, source.digest) == (360, (8, 8), split.digest)
        assert (source.name, source.rounding) == ("digits validation, centre crops of 8", "8 bit, rounded")
        assert np.array_equal(everything(source, 100), expected) and np.array_equal(source.labels, split.labels)
    assert open_images(digits, crop=16, split="train").n == 1437
    with pytest.raises(DataError, match="--crop SIZE"):
        open_images(digits)


@pytest.mark.parametrize(("labels", "message"), [
    ([0, 10**13], "labels from 0 to 10000000000000, expected the numbers of classes"), ([0, -1], "labels from -1 to 0"),
    (np.array([0, 2**64 - 1], np.uint64), "labels from 0 to 18446744073709551615")])
def test_labels_that_are_no_classes_are_refused(tmp_path, labels, message):
    np.savez(tmp_path / "s.npz", arr_0=PICTURES[:2], labels=labels)
    with pytest.raises(DataError, match=rf"s\.npz: {message}"):
        open_images(tmp_path / "s.npz")


@pytest.mark.parametrize("size", [(0, 16), (16, 0), (1, 9000)])
def test_images_of_absurd_sizes_are_refused(tmp_path, size):
    np.savez(tmp_path / "s.npz", arr_0=np.zeros((1, *size, 3), np.uint8))
    with pytest.raises(DataError, match=rf"s\.npz: arr_0 holds images of {size[0]} x {size[1]} pixels"):
        open_images(tmp_path / "s.npz")
    for crop in (0, -5, 10**8):
        with pytest.raises(DataError, match=rf"crop {crop}: expected a side of 1 to 8192 pixels"):
            open_images(save(tmp_path / "r", "a.png"), crop)


def test_what_is_neither_npz_nor_folder_is_refused(tmp_path):
    save(tmp_path, "a.png", "b.jpg")
    (tmp_path / "b.jpg").rename(tmp_path / "b")
    for name in ("a.png", "b"):
        with pytest.raises(DataError, match=rf"{name}: a single image; put it into a folder"):
            open_images(tmp_path / name)
    for name in ("x.png", "x.npz"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=rf"{name}: no regular file"):
            open_images(tmp_path / name)
    for reader in (lambda path: reference_of(path, None, 0), read_json, Statistics.load):
        with pytest.raises(FileError, match=r"x\.npz: no regular file"):
            reader(tmp_path / "x.npz")


# Reconstructions and their originals

def pairs(originals, reconstructions):
    """The pictures' numbers in PICTURES, original by reconstruction, as they are measured."""
    def number(image):
        return next(i for i, picture in enumerate(PICTURES) if np.array_equal(picture, image))

    subject = reconstructions_of(open_images(reconstructions), open_images(originals), reconstructions, None)
    return [(number(a), number(b)) for batch in subject.batches(4, 0, subject.n)
            for a, b in zip(batch.originals, batch.images, strict=True)], subject


@pytest.mark.parametrize(("originals", "reconstructions"), [
    (("photo.bmp", "photo.large.bmp", "photo0.bmp"), ("photo.png", "photo.large.png", "photo0.png")),
    (("c/0.png", "b/1.png", "a/2.png", "a/3.png"), ("0.bmp", "1.png", "2.png", "3.png")),
    (("0.png", "1.png", "2.png"), ("c/0.png", "b/1.png", "a/2.png")),
    (("a/0.png", "b/0.png"), ("a/0.bmp", "b/0.bmp")),
    (("caf\u00e9.png", "cafe.png"), ("cafe\u0301.png", "cafe.png"))])
def test_reconstructions_in_files_go_with_the_originals_of_their_names(tmp_path, originals, reconstructions):
    """And not by place: of photo.bmp, photo.large.bmp the one sorts behind the other, of photo.png, photo.large.png before."""
    found, subject = pairs(save(tmp_path / "o", *originals), save(tmp_path / "r", *reconstructions))
    assert [a for a, _ in found] == [b for _, b in found] == np.argsort(originals).tolist()
    known = open_images(tmp_path / "o").labels
    assert known is None or subject.labels.tolist() == known.tolist()
    assert subject.facts["digest"] == open_images(tmp_path / "r").digest


@pytest.mark.parametrize(("originals", "reconstructions", "message"), [
    (("00.png", "01.png"), ("0.png", "1.png"), r"folder r, .*: 2 of 2 names have no other in folder o, such as '0'"),
    (("0.png", "1.png"), ("0.png",), r"1 of 2 names have no other in folder r, such as '1'"),
    (("a/0.png", "b/1.png"), ("a/0.png", "b/2.png"), r"such as 'b/2'"),
    (("a/0.png", "b/0.png"), ("0.png", "1.png"), r"folder o: a/0\.png and b/0\.png have one name.*class folders"),
    (("0.png", "1.png"), ("0.png", "0.bmp"), r"folder r: 0\.bmp and 0\.png have one name.*rename one")])
def test_a_name_without_its_other_is_refused(tmp_path, originals, reconstructions, message):
    with pytest.raises(DataError, match=message):
        pairs(save(tmp_path / "o", *originals), save(tmp_path / "r", *reconstructions))


def test_images_without_names_are_paired_by_place(tmp_path, caplog):
    np.savez(tmp_path / "o.npz", arr_0=PICTURES[:3])
    found, _ = pairs(tmp_path / "o.npz", save(tmp_path / "r", "1.png", "2.png", "3.png"))
    assert found == [(0, 0), (1, 1), (2, 2)] and not caplog.records
    found, _ = pairs(tmp_path / "o.npz", save(tmp_path / "s", "1.png", "2.png", "10.png"))
    assert found == [(0, 0), (1, 2), (2, 1)] and "folder s: paired by place" in caplog.text and "zeros" in caplog.text


def test_labels_tell_two_orders_apart(tmp_path):
    """By whatever numbers the classes go: 0, 0, 1 is 7, 7, 3, but not 7, 3, 3."""
    for name, labels in (("o", [0, 0, 1]), ("r", [7, 7, 3]), ("s", [7, 3, 3])):
        np.savez(tmp_path / f"{name}.npz", arr_0=PICTURES[:3], labels=labels)
    assert pairs(tmp_path / "o.npz", tmp_path / "r.npz")[0] == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(MeasureError, match=r"s\.npz: its labels are not those of o\.npz, so the two are not in one order"):
        pairs(tmp_path / "o.npz", tmp_path / "s.npz")


@pytest.mark.parametrize("codes", [np.full((2, 16), np.nan), np.zeros((2, 8), int), np.zeros((3, 16), int)])
def test_codes_that_are_not_the_tokenizers_are_refused(tmp_path, codes):
    np.savez(tmp_path / "r.npz", arr_0=PICTURES[:2], codes=codes)
    source = open_images(tmp_path / "r.npz")
    with pytest.raises(MeasureError, match=r"r\.npz: codes are .*, expected integers, 2 images by 16 tokens"):
        reconstructions_of(source, source, tmp_path / "r.npz", small_params().tokenizer)


def test_reconstructions_are_paired_as_restok_wrote_them(tokenizer, tmp_path):
    root = save(tmp_path / "o", "photo.jpg", "photo.large.jpg", "a.b.png", "a.png")
    known = dict(reconstruct([root], tokenizer, tmp_path / "r"))
    subject = reconstructions_of(open_images(tmp_path / "r"), open_images(root, 16), tmp_path / "r", None)
    (batch,) = subject.batches(4, 0, 4)
    values = psnr(to_tensor(batch.images), to_tensor(batch.originals)).tolist()
    assert values == pytest.approx([known[name] for name in ("a.b", "a", "photo.jpg"[:-4], "photo.large")], rel=1e-6)
    save(root, "photo.png")
    with pytest.raises(ConfigError, match=r"two images are named photo; rename one, or write \.npz"):
        reconstruct([root], tokenizer, tmp_path / "r")


# A folder of images

def test_a_flat_folder_is_read_in_the_order_of_its_names(tmp_path):
    root = save(tmp_path / "samples", "b.png", "a.PNG", "10.bmp", "9.webp")
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.png").write_text("not an image")
    Image.fromarray(PICTURES[3]).save(root / "9.webp", lossless=True)
    for workers in (0, 3):
        source = open_images(root, workers=workers)
        assert (source.name, source.n, source.size, source.labels) == ("folder samples", 4, (12, 16), None)
        assert np.array_equal(everything(source, 3), PICTURES[[2, 3, 1, 0]])
    listing = "".join(f"{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n"
                      for name in ("10.bmp", "9.webp", "a.PNG", "b.png"))
    assert source.digest == hashlib.sha256(listing.encode()).hexdigest()
    (root / "b.png").rename(root / "c.png")
    assert open_images(root).digest != source.digest


def test_class_folders_give_labels(tmp_path):
    root = save(tmp_path / "samples", "dog/0.png", "cat/1.png", "cat-fish/0.png", "cat/0.png")
    source = open_images(root)
    assert source.labels.tolist() == [0, 0, 1, 2] and source.labels.dtype == np.int64
    assert np.array_equal(everything(source), PICTURES[[3, 1, 2, 0]])
    (root / "emu").mkdir()
    with pytest.raises(DataError, match=r"samples/emu: a class folder without images"):
        open_images(root)


@pytest.mark.parametrize(("files", "emptied"), [
    (("a.png", "c.png", "d.webp", "b.png/0.png"), True), (("a/0.png", "b.png/0.png", "b.png/1.png", "c/0.png"), False)])
def test_a_folder_called_as_an_image_shifts_no_names(tokenizer, tmp_path, files, emptied):
    root = save(tmp_path / "samples", *files)
    if emptied:
        (root / "b.png/0.png").unlink()
        files = files[:-1]
    known = reconstruct([root], tokenizer, tmp_path / "r")
    assert [name for name, _ in known] == [name.rpartition(".")[0] for name in files]
    written = sorted((tmp_path / "r").rglob("*.png"))
    assert [path.relative_to(tmp_path / "r").as_posix() for path in written if path.is_file()] == [
        f"{name.rpartition('.')[0]}.png" for name in files]
    assert [name.as_posix() for name in open_images(root).names] == list(files)


def test_images_without_files_of_their_own_are_numbered(tokenizer, digits, tmp_path):
    np.savez(tmp_path / "views.npz", arr_0=np.zeros((2, 16, 16, 3), np.uint8))
    save(tmp_path, "x.png", "y.png")
    known = reconstruct([tmp_path / "x.png", tmp_path / "views.npz", tmp_path / "y.png", digits], tokenizer,
                        tmp_path / "r.npz", batch_size=90)
    names = [name for name, _ in known]
    assert names[:5] == ["x", "views-000000", "views-000001", "y", "data-000000"] and names[-1] == "data-000359"
    assert len(np.load(tmp_path / "r.npz")["arr_0"]) == 364


def test_images_of_several_sizes_need_a_crop(tmp_path):
    root = save(tmp_path / "samples", "a.png", "b.png", pictures=[PICTURES[0], PICTURES[1].swapaxes(0, 1)])
    with pytest.raises(DataError, match=r"b\.png: 16 x 12 pixels.*a\.png has 12 x 16 pixels.*`--crop SIZE`"):
        open_images(root)
    source = open_images(root, crop=8)
    assert (source.name, source.size, source.rounding) == ("folder samples, centre crops of 8", (8, 8), "8 bit, rounded")
    assert np.array_equal(everything(source)[1], center_crop(Image.open(root / "b.png"), 8))


def test_grey_and_palette_images_become_rgb(tmp_path):
    picture = Image.fromarray(PICTURES[0])
    for name, mode in (("a", "L"), ("b", "P"), ("c", "1")):
        picture.convert(mode).save(tmp_path / f"{name}.png")
    picture.convert("CMYK").save(tmp_path / "d.jpg")
    images = everything(open_images(tmp_path))
    assert images.shape == (4, 12, 16, 3) and images.dtype == np.uint8
    assert np.array_equal(images[0], np.asarray(picture.convert("L"))[..., None].repeat(3, axis=2))


def _png16(path):
    """A whole 16-bit RGB PNG of one pixel, which pillow cannot write."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b""))
    assert Image.open(path).mode == "RGB"


@pytest.mark.parametrize("write, what", [
    (lambda path: Image.new("RGBA", (4, 4)).save(path), "alpha channel"),
    (lambda path: Image.new("LA", (4, 4)).save(path), "alpha channel"),
    (lambda path: Image.new("P", (4, 4)).save(path, transparency=0), "alpha channel"),
    (lambda path: Image.new("I;16", (4, 4)).save(path), "16 bits"),
    (_png16, "16 bits"),
    (lambda path: path.write_bytes(b"not an image"), "not a readable image"),
    (lambda path: Image.new("RGB", (4, 4)).save(path, "GIF"), "not a readable image")])
def test_an_image_that_is_not_8_bit_rgb_or_grey_is_refused_by_name(tmp_path, write, what):
    write(tmp_path / "x.png")
    for crop in (None, 4):
        with pytest.raises(DataError, match=rf"x\.png: .*{what}"):
            open_images(tmp_path, crop=crop)


def test_a_truncated_image_stops_the_reading(tmp_path):
    root = save(tmp_path / "samples", *(f"{i}.png" for i in range(10)))
    (root / "5.png").write_bytes((root / "5.png").read_bytes()[:-80])
    batches = open_images(root, workers=2).batches(2)
    assert [next(batches)[0], next(batches)[0]] == [0, 2]
    with pytest.raises(DataError, match=r"samples/5\.png: not a readable image.*replace it"):
        next(batches)


def test_a_folder_that_could_be_read_in_two_ways_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        open_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no images"):
        open_images(tmp_path / "empty")
    for name, other in (("mixed", "a/0.png"), ("deep", "a/b/0.png")):
        save(tmp_path / name, "0.png", other)
        with pytest.raises(DataError, match=rf"{name}: holds .*{other}.*all images there as FILE, or all as CLASS/FILE"):
            open_images(tmp_path / name)
    save(tmp_path / "tiff", "0.png", "1.tif")
    with pytest.raises(DataError, match=r"1\.tif: not of a kind that is read"):
        open_images(tmp_path / "tiff")
