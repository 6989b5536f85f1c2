"""Preparing in parts: any number of jobs, and the folder that one would write, to the byte."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import held
from image_sets import FORMS, as_folder, as_tars, photographs
from PIL import Image

from restok.data.prepare import gather, prepare, prepare_part
from restok.data.sources import base, open_sources
from restok.data.table import open_split
from restok.errors import RestokError
from restok.files import read_json, write_json
from restok.parts import Shard


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(base, "PIECE", 5000)             # two photographs


def in_parts(data, count, folder):
    """The folders of all parts."""
    folders = [folder / f"{i}-of-{count}" for i in range(count)]
    for i, part in enumerate(folders):
        prepare_part(data, 256, Shard(i, count), part)
    return folders


@pytest.mark.parametrize("form", FORMS)
def test_any_number_of_parts_makes_the_folder_that_one_job_makes(form, tmp_path):
    data = FORMS[form](tmp_path / "raw")
    prepare(data, 256, tmp_path / "one")
    one = held(tmp_path / "one")
    assert sum(name.endswith(".arrow") for name in one) >= 4
    for count in (1, 2, 3, 40):                          # more than there are pieces: some parts are empty
        gather(data, 256, in_parts(data, count, tmp_path / f"parts{count}")[::-1], tmp_path / f"of{count}")
        assert held(tmp_path / f"of{count}") == one, count
    arrows = [path for path in (tmp_path / "of2").rglob("*.arrow")]
    assert all(path.stat().st_nlink == 2 for path in arrows)         # a second name, and no second place on the disk


def test_parts_of_some_classes_are_gathered_and_stand(tmp_path, caplog):
    (tmp_path / "two.txt").write_text("n03000001\nn02000003\n")
    data = as_tars(tmp_path / "raw", told=True).model_copy(update={"classes": str(tmp_path / "two.txt")})
    prepare(data, 256, tmp_path / "one")
    gather(data, 256, in_parts(data, 2, tmp_path / "parts"), tmp_path / "two")
    assert held(tmp_path / "one") == held(tmp_path / "two")
    with caplog.at_level("INFO", "restok"):
        prepare(data, 256, tmp_path / "one")
    assert "one: stands already" in caplog.text
    (tmp_path / "two.txt").write_text("n03000001\n")
    with pytest.raises(RestokError, match=r"part 0/2 was made with classes \['n02000003', 'n03000001'\], not \['n03000001'\]"):
        gather(data, 256, [tmp_path / f"parts/{i}-of-2" for i in range(2)], tmp_path / "three")


def test_images_of_both_splits_are_counted(tmp_path, caplog):
    data = as_folder(tmp_path / "raw")
    assert prepare(data, 256, tmp_path / "apart")["splits"]["validation"]["in_train"] == 0 and "too:" not in caplog.text
    train, validation = (sorted(Path(data.path, split).rglob("*.JPEG")) for split in (data.train, data.validation))
    shutil.copy(validation[0], train[0].with_name("other.JPEG"))              # under other names, and of another class
    shutil.copy(validation[0], train[-1].with_name("another.JPEG"))
    assert prepare(data, 256, tmp_path / "mixed")["splits"]["validation"]["in_train"] == 1
    assert "1 of its images are in " in caplog.text


def test_a_part_is_made_again_alone_and_only_where_its_own_images_changed(tmp_path, caplog):
    data, root = as_folder(tmp_path / "raw"), tmp_path / "raw"
    parts = in_parts(data, 3, tmp_path / "parts")
    times = [(part / "manifest.json").stat().st_mtime_ns for part in parts]
    pieces = [read_json(part / "manifest.json")["pieces"] for part in parts]
    assert [sum(map(len, each.values())) for each in pieces] == [2, 2, 3]
    shutil.rmtree(parts[1])                              # as a workflow leaves a part that was killed
    os.utime(next(root.glob("validation/*/*")))
    with caplog.at_level("INFO", "restok"):
        assert in_parts(data, 3, tmp_path / "parts") == parts
    assert [f"{part}: stands already" in caplog.text for part in parts] == [True, False, False]
    again = [(part / "manifest.json").stat().st_mtime_ns for part in parts]
    assert again[0] == times[0] and again[1] != times[1] and again[2] != times[2]


@pytest.mark.parametrize("form", FORMS)
def test_a_part_looks_at_no_file_of_another(form, tmp_path):
    source = open_sources(FORMS[form](tmp_path / "raw"), 256)["train"]
    own = {found.place.partition(": ")[0] for found in source.read(1)}
    facts, images = list(source.facts(1)), [found.read() for found in source.read(1)]
    for path in (tmp_path / "raw").rglob("*"):
        if path.is_file() and str(path) not in own and path.resolve() not in [Path(file).resolve() for file in own]:
            path.unlink()
    assert list(source.facts(1)) == facts and [found.read() for found in source.read(1)] == images


def change(**settings):
    return lambda data, parts: [prepare_part(data.model_copy(update=settings), 256, Shard(0, 3), parts[0])]


def more_images(data, parts):
    root, name = parts[0].parent.parent / "raw", f"{photographs()['train'][0].id}"
    shutil.copyfile(next((root / "train" / name).iterdir()), root / "train" / name / "another.JPEG")
    prepare_part(data, 256, Shard(2, 3), parts[2])


def other_manifest(data, parts):
    write_json(parts[1] / "manifest.json", read_json(parts[1] / "manifest.json") | {"kind": "codes"})


def cut_short(data, parts):
    file = next(parts[1].glob("*/*.arrow"))
    file.write_bytes(file.read_bytes()[:-8])


SPOILT = {
    "missing": (lambda data, parts: parts.pop(1), r"part 1/3 is missing; make it \(`restok prepare --part 1/3`\)"),
    "two missing": (lambda data, parts: parts.__delitem__(slice(2)), r"part 0/3 is missing, and 1 more; make it"),
    "doubled": (lambda data, parts: parts.append(shutil.copytree(parts[1], parts[1].with_name("copy"))),
                r"parts/copy: part 1/3, as .*parts/1-of-3 is; name each part once"),
    "of other settings": (change(validation="train"), r"0-of-3: part 0/3 was made with validation 'train', not 'validation'"),
    "of another number of parts": (lambda data, parts: parts.__setitem__(2, in_parts(data, 2, parts[0].parent)[1]),
                                   r"parts/1-of-2: one of 2 parts, but .*parts/0-of-3 is one of 3"),
    "of images that changed since": (more_images, r"parts/2-of-3: part 2/3 saw other images in .*raw/train than .*0-of-3 did"),
    "of another kind": (other_manifest, r"parts/1-of-3: is of kind 'codes', not a part"),
    "no part": (lambda data, parts: (parts[1] / "manifest.json").unlink(), r"parts/1-of-3/manifest\.json: cannot be read"),
    "cut short": (cut_short, r"parts/1-of-3/train/0000\d\.arrow: missing or cut short; make part 1/3 again"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_part_that_does_not_belong_is_named(what, tmp_path):
    data, (spoil, message) = as_folder(tmp_path / "raw"), SPOILT[what]
    parts = in_parts(data, 3, tmp_path / "parts")
    spoil(data, parts)
    with pytest.raises(RestokError, match=message):
        gather(data, 256, parts, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, small_files):
    data = as_folder(tmp_path / "raw")
    parts = in_parts(data, 2, tmp_path / "parts")
    for make in (lambda: prepare(data, 256, tmp_path / "data"), lambda: gather(data, 256, parts, tmp_path / "data"),
                 lambda: prepare_part(data, 256, Shard(0, 2), tmp_path / "data")):
        with small_files(200), pytest.raises(OSError, match=r"File too large: '.*/data"):
            make()
        assert not (tmp_path / "data").exists() and not list(tmp_path.glob(".data*.partial"))


def test_the_verb_makes_a_part_or_gathers_them(tmp_path, command):
    as_folder(tmp_path / "raw")
    given = ("--params", "params/demo.yaml", "--set", "data.source=imagefolder", "--set", f"data.path={tmp_path / 'raw'}")
    for i in range(2):
        made = command("prepare", *given, "--part", f"{i}/2", "--out", tmp_path / f"part{i}")
        assert made.exit_code == 0, made.stderr
    done = command("prepare", *(tmp_path / f"part{i}" for i in range(2)), *given, "--run", tmp_path / "r",
                   "--out", tmp_path / "data")
    assert done.exit_code == 0 and len(open_split(tmp_path / "data", "train")) == 9, done.stderr
    for words, message in ((("--part", "2/2"), "part '2/2': expected PART/PARTS"),
                           (("--part", "0/2", "--run", tmp_path / "r"), "leave out --run"),
                           ((tmp_path / "part0", "--part", "0/2"), "leave out --run and the parts' folders")):
        failed = command("prepare", *words, *given, "--out", tmp_path / "x")
        assert failed.exit_code == 1 and message in failed.stderr, failed.stderr


def test_an_index_of_imagenets_size_is_opened_in_no_time(tmp_path):
    """What opening reads grows with the index alone, not with the files of images."""
    data = as_tars(tmp_path / "raw")
    prepare(data, 256, tmp_path / "data")
    manifest, split = read_json(tmp_path / "data/manifest.json"), open_split(tmp_path / "data", "train")
    count, packed = 1_281_167, sum(file["images"] for file in manifest["splits"]["train"]["files"])
    rows = np.arange(count) % packed
    np.save(tmp_path / "data/train/index.npy", np.stack([rows, np.arange(count) * 3 // count]))
    manifest["splits"]["train"]["count"] = count
    write_json(tmp_path / "data/manifest.json", manifest)
    opened = open_split(tmp_path / "data", "train")
    assert len(opened) == count and not opened._columns and opened.labels[-1] == 2
    assert np.array_equal(opened[count - 1][0], Image.open(io.BytesIO(split._encoded(int(rows[-1])))))
    assert list(opened._columns) == [int(np.searchsorted(opened._ends, rows[-1], side="right"))]
