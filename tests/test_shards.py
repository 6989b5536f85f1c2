"""Samples in tar shards and parquet files are measured as the same images in a folder are, whoever reads which of them."""

import io
import json
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import small_params
from image_sets import write_tar
from PIL import Image
from test_compare_files import Few
from test_distributed import together

from restok.config.load import load_protocol
from restok.data.images import open_images
from restok.data.reading import DataError
from restok.data.sources.parquet import HELD, Rows
from restok.metrics import features
from restok.metrics.features import JUDGES
from restok.parts import Shard
from restok.reporting.provenance import Walk
from restok.stages.evaluator import CHUNK, Evaluator
from restok.stages.measure import added, evaluate, write_statistics
from restok.stages.reconstruct import reconstruct
from restok.stages.subjects import images_of, reconstructions_of
from restok.tokenizer.model import ResTok
from restok.weights import save_model

PICTURES = np.random.default_rng(0).integers(256, size=(10, 12, 16, 3), dtype=np.uint8)
STRUCT = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})


def encoded(picture, kind="PNG", **more):
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **more)
    return buffer.getvalue()


PNGS = [encoded(picture) for picture in PICTURES]


def samples(images=PNGS, labels=None, first=0):
    """As webdataset's writer puts them: 000000.png, and 000000.cls where there are labels."""
    return [{f"{i:06}.png": data} | ({} if labels is None else {f"{i:06}.cls": str(labels[i - first]).encode()})
            for i, data in enumerate(images, first)]


def write_parquet(path, images=PNGS, labels=None, rows=3, kind=STRUCT, names=None):
    """As Hugging Face's datasets do, or of raw bytes, in row groups of so many."""
    if kind is STRUCT:
        images = [{"bytes": data, "path": names[i] if names else f"{i:06}.png"} for i, data in enumerate(images)]
    columns = {"image": pyarrow.array(images, kind), "prompt": ["a cat"] * len(images)}
    table = pyarrow.table(columns if labels is None else columns | {"label": labels})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=rows)


def folder(root, labels=None, images=PNGS):
    for i, data in enumerate(images):
        path = root / ("" if labels is None else str(labels[i])) / f"{i:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def in_shards(root, form, labels=None, images=PNGS):
    """One file, or four and six images in two."""
    cut = [(0, images[:4]), (4, images[4:])]
    for number, (first, part) in enumerate(cut):
        own = None if labels is None else labels[first:first + len(part)]
        if form == "tars":
            write_tar(root / "set" / f"{number:05}.tar", samples(part, own, first))
        elif form == "parquets":
            names = [f"{i:06}.png" for i in range(first, first + len(part))]
            write_parquet(root / f"set/train-{number:05}-of-00002.parquet", part, own, names=names)
    if form == "tar":
        write_tar(root / "set.tar", samples(images, labels))
        return root / "set.tar"
    if form in ("parquet", "bytes", "one group"):
        write_parquet(root / "set.parquet", images, labels, kind=pyarrow.large_binary() if form == "bytes" else STRUCT,
                      rows=9999 if form == "one group" else 3)
        return root / "set.parquet"
    return root / "set"


FORMS = "tar", "tars", "parquet", "parquets", "bytes", "one group"


def everything(source, batch_size=4):
    return np.concatenate([images for _, images in source.batches(batch_size)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [0, 3])
def test_the_same_images_are_the_same_whatever_they_come_in(tmp_path, form, workers):
    source, plain = open_images(in_shards(tmp_path, form), workers=workers), open_images(folder(tmp_path / "plain"))
    assert (source.n, source.size, source.rounding, source.labels) == (10, (12, 16), "8 bit, as stored", None)
    assert np.array_equal(everything(source), PICTURES)
    if form != "bytes":                                         # which have no names
        assert source.digest == plain.digest and source.names == plain.names
    assert source.name == {"tar": "set.tar", "tars": "folder set", "parquets": "folder set"}.get(form, "set.parquet")
    for start, stop in ((8, 10), (4, 8), (0, 4), (4, 10), (8, 9)):      # back, too, as another part begins
        assert np.array_equal(np.concatenate([images for _, images in source.batches(4, start, stop)]), PICTURES[start:stop])
    cropped = open_images(in_shards(tmp_path, form), 8, workers)
    assert np.array_equal(everything(cropped), everything(open_images(tmp_path / "plain", 8)))
    assert (cropped.name, cropped.rounding) == (f"{source.name}, centre crops of 8", "8 bit, rounded")


@pytest.mark.parametrize("form", FORMS)
def test_labels_stand_beside_the_images_and_count_in_the_digest(tmp_path, form):
    labels = [3, 0, 1, 1, 0, 7, 7, 7, 2, 2]
    source = open_images(in_shards(tmp_path, form, labels))
    assert source.labels.tolist() == labels and source.labels.dtype == np.int64
    other = open_images(in_shards(tmp_path, form, [3, 0, 1, 1, 0, 7, 7, 7, 2, 1]))
    assert len({source.digest, other.digest, open_images(in_shards(tmp_path, form)).digest}) == 3


@pytest.mark.parametrize("form", FORMS)
def test_a_digest_tells_contents_and_order_apart(tmp_path, form):
    changed = PICTURES.copy()
    changed[7, 3, 3, 1] ^= 1
    digests = {open_images(in_shards(tmp_path, form, images=[encoded(picture) for picture in pictures])).digest
               for pictures in (PICTURES, changed, PICTURES[::-1])}
    assert len(digests) == 3


def test_labels_of_a_tar_may_stand_in_json(tmp_path):
    write_tar(tmp_path / "s.tar", [{f"{i}.jpg": encoded(picture, "JPEG"), f"{i}.json": json.dumps({"label": i % 3}).encode()}
                                   for i, picture in enumerate(PICTURES)])
    assert open_images(tmp_path / "s.tar").labels.tolist() == [i % 3 for i in range(10)]


def test_rows_are_read_in_turn_once_and_in_any_order_rightly(tmp_path, monkeypatch):
    images = [b"%d" % i for i in range(3 * HELD)]
    write_parquet(tmp_path / "s.parquet", images, rows=2 * HELD)
    at = [(tmp_path / "s.parquet", i // (2 * HELD), i % (2 * HELD)) for i in range(len(images))]
    begun, begin = [], pyarrow.parquet.ParquetFile.iter_batches
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches",
                        lambda *words, **more: begun.append(threading.get_ident()) or begin(*words, **more))
    rows = Rows()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda where: rows(*where), at)) == images
    assert 2 <= len(begun) <= 4                                 # each group once, but for what threads mix up at its end
    order = np.random.default_rng(0).permutation(len(images))[:50]
    assert [rows(*at[i]) for i in order] == [images[i] for i in order]
    assert len(rows._held) == HELD


def test_reconstructions_in_shards_go_with_the_originals_of_their_names(tmp_path):
    originals = open_images(folder(tmp_path / "plain", labels=[0, 1] * 5))         # 0/000000, 0/000002, ..., 1/000001, ...
    for form in FORMS[:4]:
        subject = reconstructions_of(open_images(in_shards(tmp_path / form, form)), originals, tmp_path, None)
        for batch in subject.batches(4, 0, 10):
            assert np.array_equal(batch.images, batch.originals)
    with pytest.raises(DataError, match=r"5 of 10 names have no other in folder few, such as '00000[13579]'"):
        reconstructions_of(open_images(in_shards(tmp_path, "tar")), open_images(folder(tmp_path / "few", images=PNGS[:5])),
                           tmp_path, None)


def test_images_of_shards_are_reconstructed_under_their_names(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    save_model(tmp_path / "tokenizer", ResTok(small_params().tokenizer))
    shards = [in_shards(tmp_path, "tar"), in_shards(tmp_path, "bytes")]
    known = reconstruct(shards, tmp_path / "tokenizer", tmp_path / "r")
    assert [name for name, _ in known] == [f"{i:06}" for i in range(10)] + [f"set-{i:06}" for i in range(10)]
    assert len(list((tmp_path / "r").glob("*.png"))) == 20


def test_two_processes_list_shards_once_and_check_each_image_once(tmp_path):
    path = in_shards(tmp_path, "tars", list(range(10)))
    alone = open_images(path)

    def work():
        source = open_images(path)
        return source.digest, source.labels.tolist(), everything(source).tolist()

    assert together(work) == [(alone.digest, list(range(10)), PICTURES.tolist())] * 2


@pytest.mark.parametrize("form", ["tars", "parquets", "one group"])
def test_samples_in_shards_are_measured_as_those_of_an_npz_in_parts_and_after_a_kill(tmp_path, monkeypatch, form):
    monkeypatch.setitem(features.JUDGES, "inception", JUDGES["inception"]._replace(load=lambda *_: (Few(), "1" * 64)))
    pictures = np.random.default_rng(1).integers(256, size=(2 * CHUNK + 1, 4, 4, 3), dtype=np.uint8)
    pngs, labels = [encoded(picture) for picture in pictures], [i % 7 for i in range(len(pictures))]
    np.savez(tmp_path / "s.npz", arr_0=pictures, labels=labels)
    path = in_shards(tmp_path, form, labels, pngs)
    source = open_images(path, workers=2)
    evaluator = Evaluator.load(load_protocol(["evaluation.save_every=1"]), None, None, 2)
    whole, npz = (evaluator.statistics(images_of(one)) for one in (source, open_images(tmp_path / "s.npz")))
    for name, tensor in npz.tensors.items():
        assert whole.tensors[name].equal(tensor), name
    parts = [tmp_path / f"{part}.safetensors" for part in range(3)]
    for part, out in enumerate(parts):
        write_statistics(evaluator, images_of(source), Shard(part, 3), None, out)
    total = added(parts, "cpu").tensors
    assert all(total[name].allclose(tensor) for name, tensor in whole.tensors.items())
    taken, take = [], Evaluator._take
    monkeypatch.setattr(Evaluator, "_take", lambda self, sums, subject, batch: taken.append(batch.start) or (
        take(self, sums, subject, batch) if len(taken) != 2 else 1 / 0))
    for _ in range(2):
        try:
            resumed = evaluator.statistics(images_of(source), tmp_path / "state.safetensors")
        except ZeroDivisionError:
            pass
    assert taken == [0, CHUNK, CHUNK, 2 * CHUNK]
    assert all(resumed.tensors[name].equal(tensor) for name, tensor in whole.tensors.items())
    result = evaluate(evaluator, images_of(source, path), path, tmp_path / "e.json")
    Walk(tmp_path / "e.json").require_matching()
    assert result["metrics"]["FID"] == pytest.approx(0, abs=1e-9)
    assert result["reference"]["digest"] == result["samples"]["digest"] == source.digest


# What is refused

def spoilt_tar(change):
    def spoil(root):
        items = samples(labels=list(range(10)))
        changed = change(items)
        write_tar(root / "s.tar", changed if isinstance(changed, list) else items)
        return root / "s.tar"

    return spoil


def cut_tar(root):
    path = in_shards(root, "tar")
    path.write_bytes(path.read_bytes()[:-9000])
    return path


def compressed(root):
    with tarfile.open(root / "s.tar", "w:gz") as archive:
        archive.add(folder(root / "plain") / "000000.png", "a.png")
    return root / "s.tar"


TARS = {
    "a damaged image": (lambda items: items[6].update({"000006.png": PNGS[6][:100]}), r"s\.tar: 000006: not a readable image"),
    "no image at all": (lambda items: items[6].update({"000006.png": b"text"}), r"s\.tar: 000006: not a readable image"),
    "an alpha channel": (lambda items: items[2].update({"000002.png": encoded(Image.new("RGBA", (16, 12)))}),
                         r"s\.tar: 000002: has an alpha channel"),
    "another size": (lambda items: items[2].update({"000002.png": encoded(Image.new("RGB", (12, 16)))}),
                     r"s\.tar: 000002: 16 x 12 pixels.*s\.tar: 000000 has 12 x 16.*`--crop SIZE`"),
    "a sample without an image": (lambda items: items[4].pop("000004.png"), r"s\.tar: 000004 has no image"),
    "a sample of two images": (lambda items: items[4].update({"000004.jpg": b""}), r"000004 has 2 images, png and jpg"),
    "a class of some alone": (lambda items: items[4].pop("000004.cls"), r"s\.tar: 000004 has no class, and .*000000 has"),
    "a class that is a word": (lambda items: items[4].update({"000004.cls": b"cat"}), r"000004 has a class that is no number"),
    "a class below 0": (lambda items: items[4].update({"000004.cls": b"-1"}), r"000004 has label -1"),
    "a class beyond all": (lambda items: items[4].update({"000004.cls": b"1000000"}), r"000004 has label 1000000"),
    "a name that leads out": (lambda items: [{"../a.png": PNGS[0]}], r"s\.tar: \.\./a: a name that leads out of its folder"),
    "a key twice": (lambda items: [items[0], {"000000.png": PNGS[1]}], r"s\.tar: holds 000000\.png twice"),
    "nothing": (lambda items: [{"LICENSE": b"CC0"}], r"s\.tar: holds no images"),
}
def blotted(root):
    """Some of its pages are lost, which the threads meet together."""
    path = in_shards(root, "one group", images=[encoded(picture) for picture in np.repeat(PICTURES, 40, axis=0)])
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 3] + bytes(len(data) // 3) + data[2 * len(data) // 3:])
    return path


WHOLE = {
    "a parquet file with lost pages": (blotted, r"set\.parquet: "),
    "a tar that is cut": (cut_tar, r"set\.tar: not a whole tar file"),
    "a compressed tar": (compressed, r"s\.tar: not a whole tar file .*must be unpacked"),
    "a file of another kind": (lambda root: folder(root / "plain") and (root / "plain/000000.png").rename(root / "s.parquet"),
                               r"s\.parquet: not a whole parquet file"),
}


@pytest.mark.parametrize("what", [*TARS, *WHOLE])
def test_what_is_wrong_in_a_shard_is_refused_by_name(tmp_path, what):
    spoil, message = WHOLE[what] if what in WHOLE else (spoilt_tar(TARS[what][0]), TARS[what][1])
    path = spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        everything(open_images(path, workers=8))


@pytest.mark.parametrize(("columns", "message"), [
    ({"img": PNGS}, r"columns img binary; expected image binary"),
    ({"image": PICTURES.reshape(10, -1).tolist()}, r"columns image list<element: int64>; expected image binary"),
    ({"image": [{"path": "a.png"}] * 10}, r"columns image struct<path: string>"),
    ({"image": PNGS, "label": ["cat"] * 10}, r"columns image binary, label string; expected .*label int64"),
    ({"image": [{"bytes": b"text", "path": 7}]}, r"row 0 of row group 0: not a readable image"),
    ({"image": PNGS, "label": [-1] * 10}, r"row 0 of row group 0 has label -1.*leave out the column"),
    ({"image": PNGS, "label": [0] * 9 + [None]}, r"row 9 of row group 0 has no class, and .*row 0 of row group 0 has"),
    ({"image": [*PNGS[:9], None]}, r"row 9 of row group 0 holds no bytes"),
    ({"image": [*PNGS[:9], b"text"]}, r"row 9 of row group 0: not a readable image"),
    ({"image": PNGS[:0]}, r"s\.parquet: (holds no images|columns image null)")])
def test_what_is_wrong_in_a_parquet_file_is_refused_by_name(tmp_path, columns, message):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=message):
        open_images(tmp_path / "s.parquet")


def missing(root):
    path = in_shards(root, "parquets")
    (path / "train-00001-of-00002.parquet").unlink()
    return path


def unlisted(root):
    path = in_shards(root, "tars")
    about = {"filenames": ["00000.tar", "00001.tar", "00002.tar"], "shard_lengths": [4, 6, 1]}
    (path / "_info.json").write_text(json.dumps({"splits": {"train": about}}))
    return path


def fewer(root):
    path = in_shards(root, "tars")
    about = {"filenames": ["00000.tar", "00001.tar"], "shard_lengths": [4, 7]}
    (path / "_info.json").write_text(json.dumps({"splits": {"train": about}}))
    return path


def emptied(root):
    path = in_shards(root, "tars")
    write_tar(path / "00002.tar", [])
    return path


def beside(name, of="tars"):
    def spoil(root):
        path = in_shards(root, of)
        (path / name).write_bytes(PNGS[0])
        return path

    return spoil


@pytest.mark.parametrize(("spoil", "message"), [
    (missing, r"train-00001-of-00002\.parquet: is missing"), (unlisted, r"lists 1 shard\(s\) that are not there"),
    (fewer, r"00001\.tar: 6 samples, but _info\.json promises 7"), (emptied, r"00002\.tar: holds no samples"),
    (beside("0.png"), r"set: holds 00001\.tar and 0\.png; name the file that is meant"),
    (beside("0.parquet"), r"set: holds .*00001\.tar.*; name the file that is meant"),
    (beside("validation-00000.tar"), r"set: holds 00001\.tar and validation-00000\.tar; .*into a folder of their own")])
def test_a_folder_that_is_no_whole_set_of_shards_is_refused(tmp_path, spoil, message):
    with pytest.raises(DataError, match=message):
        open_images(spoil(tmp_path))
