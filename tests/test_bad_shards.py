"""Bad tar shards and parquet files: what is wrong is named, with its remedy, and nothing is left."""

import io
import json
import os
import shutil
import tarfile

import pyarrow
import pyarrow.parquet
import pytest
from image_sets import as_parquet, as_tars, photographs, sample, settings, write_tar

from restok.data import classes
from restok.data.prepare import prepare
from restok.data.reading import DataError
from restok.data.sources import open_sources
from restok.errors import RestokError

SHARD, HELD = "imagenet1k-train-0001.tar", "imagenet1k-validation-0000.tar"


def shard(change, name=SHARD):
    """The samples of a shard, changed: a list of {name: bytes}, the first of which is of a dress, label 2."""
    def spoil(root):
        split = "train" if name == SHARD else "validation"
        samples = [sample(photo) for photo in photographs()[split][1::3]] if name == SHARD else [
            sample(photo) for photo in photographs()[split]]
        write_tar(root / name, change(samples))

    return spoil


def altered(kind, value):
    """The first sample's cls or json is another; None: it has none, nor any other."""
    def change(samples):
        first = {name: data for name, data in samples[0].items() if value is not None or not name.endswith(("cls", "json"))}
        return [{name: value if name.endswith(kind) else data for name, data in first.items()}, *samples[1:]]

    return shard(change)


def cut_at(part):
    def spoil(root):
        with tarfile.open(root / SHARD) as archive:
            member = archive.getmembers()[4]
        place = {"an image": member.offset_data + 100, "a header": member.offset + 100, "a file's end": member.offset}[part]
        (root / SHARD).write_bytes((root / SHARD).read_bytes()[:place])

    return spoil


def doubled(path):
    """The first sample stands twice in a row."""
    with tarfile.open(path) as archive:
        items = [(member, archive.extractfile(member).read()) for member in archive]
    with tarfile.open(path, "w") as archive:
        for member, data in [*items[:3], *items]:
            archive.addfile(member, io.BytesIO(data))


def again(root):
    shutil.copyfile(root / SHARD, root / "imagenet1k-train-0002.tar")


def no_hats(samples):
    return [one for one in samples if b"0" not in [data for name, data in one.items() if name.endswith("cls")]]


TARS = {
    "cut short in an image": (cut_at("an image"), rf"{SHARD}: not a whole tar file"),
    "cut short in a header": (cut_at("a header"), rf"{SHARD}: not a whole tar file"),
    "cut short between two files": (cut_at("a file's end"), rf"{SHARD}: not a whole tar file .no end mark"),
    "empty": (lambda root: (root / SHARD).write_bytes(b""), rf"{SHARD}: not a whole tar file"),
    "no tar": (lambda root: (root / SHARD).write_bytes(b"text" * 1000), rf"{SHARD}: not a whole tar file"),
    "no samples": (shard(lambda samples: []), rf"{SHARD}: holds no samples"),
    "a sample without a class": (altered("cls", None), rf"{SHARD}: \w+ has no class: write its number into \w+\.cls"),
    "a class in words": (altered("cls", b"dress"), rf"{SHARD}: \w+ has a class that is no number"),
    "cls and json that differ": (altered("cls", b"1"), rf"{SHARD}: \w+ has a class that is no number .cls is 1, json says"),
    "a label below 0": (altered(("cls", "json"), b"-1"), rf"{SHARD}: \w+ has label -1; classes are"),
    "a sample without an image": (shard(lambda samples: [{"a.cls": b"0"}, *samples]), rf"{SHARD}: a has no image"),
    "a label of no class": (shard(lambda samples: [{"a.cls": b"7", "a.jpg": photographs()["train"][0].data}, *samples]),
                            r"raw/train: class '3' \(label 3\) has no readable image"),
    "a label beyond all": (shard(lambda samples: [{"a.cls": b"7" * 9, "a.jpg": photographs()["train"][0].data}, *samples]),
                           "label 777777777; classes are numbered from 0 on, without gaps"),
    "a label beyond 64 bits": (altered(("cls", "json"), b"9" * 30), rf"{SHARD}: \w+: label 9+; classes are numbered"),
    "a json without end": (altered("json", b"[" * 100_000), rf"{SHARD}: \w+ has a class that is no number .*recursion"),
    "two neighbours of one name": (lambda root: doubled(root / SHARD), rf"{SHARD}: holds n03000001_\d+\.cls twice; leave one"),
    "two shards with the same names": (again, rf"raw/train: two images are named n0\d+/n0\w+: one in {SHARD}, "
                                              r"one in imagenet1k-train-0002\.tar; leave one of them out"),
    "a class missing from one split": (shard(no_hats, HELD), r"raw/validation: class 'n01000002' \(label 0\) has no readable"),
    "a missing shard": (lambda root: (root / SHARD).unlink(), rf"{SHARD}: no such file; copy it there, or set data\.path"),
    "a pipe": (lambda root: (root / SHARD).unlink() or os.mkfifo(root / SHARD), rf"{SHARD}: no regular file"),
    "no shards": (lambda root: (root / HELD).unlink(), r"imagenet1k-validation-\*\.tar: no such files; set data\.path and"),
    "another order": (shard(lambda samples: [{name.replace("n03000001", "n00000001"): data.replace(b"n03000001", b"n00000001")
                                              for name, data in one.items()} for one in samples]),
                      r"raw/train: label 2 stands for n00000001 and for n03000001; timm/imagenet-1k-wds.*folders named by"),
}


@pytest.mark.parametrize("what", TARS)
def test_bad_tar_shards_are_named_and_leave_nothing(what, tmp_path, small_files):
    data, (spoil, message) = as_tars(tmp_path / "raw"), TARS[what]
    spoil(tmp_path / "raw")
    with pytest.raises(RestokError, match=message):
        prepare(data, 256, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_two_labels_of_one_wordnet_id_and_a_split_without_the_classes_that_are_taken(tmp_path):
    seen = {0: {"n01440764"}, 1: {"n01443537"}, 2: {"n01443537"}}
    with pytest.raises(DataError, match="data/train: labels 1 and 2 are both n01443537; timm/imagenet-1k-wds"):
        classes.ordered("data/train", seen, None)
    data = as_tars(tmp_path / "raw", told=True).model_copy(update={"classes": str(tmp_path / "one.txt")})
    write_tar(tmp_path / "raw" / HELD, no_hats([sample(photo, told=True) for photo in photographs()["validation"]]))
    (tmp_path / "one.txt").write_text("n01000002\n")
    with pytest.raises(DataError, match="raw/validation: has no image of the classes that are taken"):
        prepare(data, 256, tmp_path / "data")


def test_labels_in_another_order_than_wordnets_are_refused(tmp_path):
    data, other = as_tars(tmp_path / "raw"), {b"0": b"1", b"1": b"0", b"2": b"2"}
    for path in (tmp_path / "raw").glob("*.tar"):
        with tarfile.open(path) as archive:
            samples = [{member.name: archive.extractfile(member).read()} for member in archive]
        write_tar(path, [{name: other[data] if name.endswith("cls") else data for name, data in one.items()
                          if not name.endswith("json")} for one in samples])
    with pytest.raises(DataError, match="label 0 is n02000003, where the order of WordNet ids has n01000002; timm/imagenet"):
        prepare(data, 256, tmp_path / "data")


def test_timms_list_of_shards_is_a_promise(tmp_path):
    data, root = as_tars(tmp_path / "raw", info=True), tmp_path / "raw"
    assert open_sources(data, 256)["train"].count == 9 == prepare(data, 256, tmp_path / "data")["splits"]["train"]["count"]
    info = json.loads((root / "_info.json").read_text())
    info["splits"]["train"]["shard_lengths"][1] = 4
    (root / "_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=rf"{SHARD}: 3 samples, but _info\.json promises 4; copy the shard again"):
        prepare(data, 256, tmp_path / "again")
    info["splits"]["validation"]["filenames"].append("imagenet1k-validation-0001.tar")
    info["splits"]["validation"]["shard_lengths"].append(1)
    (root / "_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"lists 1 shard\(s\) that are not there, such as imagenet1k-validation-0001\.tar"):
        prepare(data, 256, tmp_path / "again")
    info["splits"]["train"]["shard_lengths"][1] = -3
    for text in (json.dumps(info), "{}"):
        (root / "_info.json").write_text(text)
        with pytest.raises(DataError, match=r"_info\.json: not as timm writes it"):
            prepare(data, 256, tmp_path / "again")


def many_tars(root, validation=2):
    """101 images a class, of which one is cut short, and in validation another."""
    samples = {split: [{f"{label}_{i}.cls": str(label).encode(), f"{label}_{i}.jpg": photographs()["train"][i % 9].data}
                       for label in range(2) for i in range(101 if split == "train" else validation)]
               for split in ("train", "validation")}
    for split, own in samples.items():
        name = "1_0.jpg"
        (one,) = (one for one in own if name in one)
        one[name] = one[name][:300]
        write_tar(root / f"{split}.tar", own)
    return settings("webdataset", root, "train.tar", "validation.tar"), samples


def test_images_that_are_not_read_are_skipped_but_not_where_a_number_was_promised(tmp_path, caplog):
    data, samples = many_tars(tmp_path / "raw", validation=200)
    facts = prepare(data, 256, tmp_path / "data")["splits"]
    for split in ("train", "validation"):
        assert facts[split]["skipped"].keys() == {"1/1_0"} and "not a readable image" in facts[split]["skipped"]["1/1_0"]
        assert f"{split}.tar: 1_0: not a readable image" in caplog.text
    assert facts["train"]["count"] == 201 and facts["train"]["class_order"].startswith("not checked")
    info = {split: {"filenames": [f"{split}.tar"], "shard_lengths": [len(own)]} for split, own in samples.items()}
    (tmp_path / "raw/_info.json").write_text(json.dumps({"splits": info}))
    with pytest.raises(DataError, match=r"1 of the 400 images that _info\.json promises are not read, such as 1/1_0"):
        prepare(data, 256, tmp_path / "again")


def parquet_file(change):
    """The second file for training, changed: a table."""
    def spoil(root):
        path = root / "blobs/train1"
        pyarrow.parquet.write_table(change(pyarrow.parquet.read_table(path)), path)

    return spoil


def labels(*values):
    return parquet_file(lambda table: table.set_column(1, "label", pyarrow.array([*values, *table["label"].to_pylist()][:4],
                                                                                pyarrow.int64())))


def no_class(table):
    return table.set_column(1, "label", pyarrow.array([None] * len(table), pyarrow.int64()))


FILE = r"data/train-00001-of-00002\.parquet"
PARQUET = {
    "other columns": (parquet_file(lambda table: table.rename_columns(["img", "label"])),
                      rf"{FILE}: columns img .*expected image struct"),
    "plain bytes": (parquet_file(lambda table: table.set_column(0, "image", table["image"].combine_chunks().field("bytes"))),
                    rf"{FILE}: columns image binary.*expected image struct"),
    "labels in words": (parquet_file(lambda table: table.set_column(1, "label", table["label"].cast("string"))),
                        rf"{FILE}: columns .*label string"),
    "a label outside the classes": (labels(3), rf"{FILE}: row 0 of row group 0 has label 3, but there are 3 classes"),
    "a label below 0": (labels(-1), rf"{FILE}: row 0 of row group 0 has no class \(label -1\)"),
    "no label": (parquet_file(no_class), rf"{FILE}: row 0 of row group 0 has no class \(label None\)"),
    "paths without bytes": (parquet_file(lambda table: table.set_column(0, "image", pyarrow.array(
        [{"bytes": None, "path": "a.jpg"}] * len(table), table.schema.field("image").type))), rf"{FILE}: .* holds no bytes"),
    "a row without an image": (parquet_file(lambda table: table.set_column(0, "image", pyarrow.array(
        [None] * len(table), table.schema.field("image").type))), rf"{FILE}: .* holds no bytes"),
    "paths that are numbers": (parquet_file(lambda table: table.set_column(0, "image", pyarrow.array(
        [{"bytes": b"", "path": 1}] * len(table)))), rf"{FILE}: columns image struct<bytes: binary, path: int64>"),
    "two columns of labels": (parquet_file(lambda table: table.append_column("label", table["label"])),
                              rf"{FILE}: columns image struct<.*>, label int64, label int64; expected"),
    "other class names": (parquet_file(lambda table: table.replace_schema_metadata({"huggingface": json.dumps(
        {"info": {"features": {"label": {"names": ["a", "b", "c"]}}}})})), rf"{FILE}: other class names"),
    "a file cut short": (lambda root: (root / "blobs/train1").write_bytes((root / "blobs/train1").read_bytes()[:-9]),
                         rf"{FILE}: not a whole parquet file"),
    "a missing file": (lambda root: next(root.glob("snapshots/*/data/train-00000*")).unlink(),
                       r"train-00000-of-00002\.parquet: is missing, of the 2 files that"),
    "a link to nothing": (lambda root: (root / "blobs/train1").unlink(), rf"{FILE}: no such file"),
    "other images than the card counts": (lambda root: next(root.glob("snapshots/*")).joinpath("README.md").write_text(
        "---\ndataset_info:\n  splits:\n  - name: train\n    num_examples: 10\n---\n"),
        "9 images of 'train', but .*README.md says 10"),
    "two snapshots": (lambda root: (shutil.rmtree(root / "refs"), (root / "snapshots/other").mkdir()),
                      "holds 2 snapshots and no refs/main"),
    "two files with the same names": (lambda root: shutil.copyfile(root / "blobs/train0", root / "blobs/train1"),
                                      rf"train: two images are named n0\d+/n0\w+: one in data/train-00000.*, one in {FILE}"),
}


def test_files_that_are_named_one_by_one_need_not_be_all(tmp_path):
    data = as_parquet(tmp_path / "raw").model_copy(update={"train": "data/train-{00001..00001}-of-00002.parquet"})
    assert prepare(data, 256, tmp_path / "data")["splits"]["train"]["count"] == 4
    tars = as_tars(tmp_path / "tars", info=True)
    for name, count in (("{0000,0002}", 6), ("{0002..0001}", None)):
        named = tars.model_copy(update={"train": f"imagenet1k-train-{name}.tar"})
        if count:
            assert prepare(named, 256, tmp_path / f"of{count}")["splits"]["train"]["count"] == count
        else:
            with pytest.raises(DataError, match=r"imagenet1k-train-\{0002\.\.0001\}\.tar: no such files"):
                prepare(named, 256, tmp_path / "none")


@pytest.mark.parametrize("what", PARQUET)
def test_bad_parquet_files_are_named_and_leave_nothing(what, tmp_path):
    data, (spoil, message) = as_parquet(tmp_path / "raw"), PARQUET[what]
    spoil(tmp_path / "raw")
    with pytest.raises(RestokError, match=message):
        prepare(data, 256, tmp_path / "data")
    assert not (tmp_path / "data").exists()
