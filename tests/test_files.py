"""Files are whole or absent, and one array of an npz is read by rows."""

import os
import signal
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from restok.config.text import read_text
from restok.data.codes import CodeStore, write_codes
from restok.errors import RestokError
from restok.files import FileError, atomic_file, atomic_folder, read_json, remove_left_over, sha256_file, write_json
from restok.files.loading import load_record
from restok.files.npz import NpzArray, npz_names, write_npz, write_npz_rows
from restok.metrics.statistics import Statistics
from restok.networks.saved import save_network
from restok.reporting.cells import write_csv
from restok.reporting.figures.common import save
from restok.stages.images import write_grid
from restok.training.state import load_state

ROWS = np.random.default_rng(0).integers(256, size=(50, 20, 30, 3), dtype=np.uint8)


@pytest.fixture(params=[np.savez, np.savez_compressed])
def npz(request, tmp_path):
    request.param(tmp_path / "a.npz", arr_0=ROWS, labels=np.arange(50))
    return tmp_path / "a.npz"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# What is no file

READERS = {"text": read_text, "a record": load_record, "JSON": read_json, "a digest": sha256_file, "an npz": npz_names,
           "a state": load_state, "statistics": Statistics.load}


@pytest.fixture
def soon():
    """Ends a test that waits for what never comes."""
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_refused_before_it_is_read(reader, tmp_path, soon):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RestokError, match="pipe: no regular file"):
        READERS[reader](tmp_path / "pipe")


@pytest.mark.parametrize("name", ["codes.npy", "labels.npy", "manifest.json"])
def test_codes_that_are_a_pipe_are_refused(name, tmp_path, soon):
    write_codes(tmp_path / "codes", [(np.zeros((3, 1, 4), int), np.zeros(3, int))], 3, 1, 4, 8, 2, "tokenizer", "dataset")
    (tmp_path / "codes" / name).unlink()
    os.mkfifo(tmp_path / "codes" / name)
    with pytest.raises(RestokError, match=rf"{name}: no regular file"):
        CodeStore(tmp_path / "codes")


def test_links_in_a_circle_are_one_message(tmp_path, command):
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    for given, out in (("a.yaml", "out.npz"), ("a.yaml", "b.yaml"), ("a.yaml", "a.yaml/out.npz")):
        result = command("layout", "--params", tmp_path / given, "--out", tmp_path / out)
        assert result.exit_code == 1 and "a.yaml" in result.stderr, (result.stderr, result.exception)


# Whole or absent

def test_a_folder_appears_whole_or_stays_as_it_was(tmp_path):
    with atomic_folder(tmp_path / "a") as partial:
        (partial / "x").write_text("old")
        assert not (tmp_path / "a").exists()
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "a") as partial:
        (partial / "x").write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "a" / "x").read_text() == "old"
    with atomic_folder(tmp_path / "a") as partial:
        (partial / "y").write_text("new")
    assert files(tmp_path / "a") == ["y"]
    assert files(tmp_path) == [".a.lock", "a"]


def test_a_reader_finds_the_old_folder_or_the_new_one(tmp_path):
    """While it is replaced again and again, a folder is always there."""
    with atomic_folder(tmp_path / "a") as partial:
        (partial / "x").touch()
    done, missing = threading.Event(), []

    def look():
        while not done.is_set():
            try:
                (tmp_path / "a").stat()
            except FileNotFoundError as error:
                missing.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(100):
        with atomic_folder(tmp_path / "a") as partial:
            (partial / "x").touch()
    done.set()
    reader.join()
    assert not missing and files(tmp_path) == [".a.lock", "a"]


def test_where_folders_cannot_be_swapped_a_kill_between_two_renames_is_undone(tmp_path, monkeypatch):
    monkeypatch.setattr("restok.files._exchange", lambda one, other: False)
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "a") as partial:
            (partial / "x").write_text(text)
    assert (tmp_path / "a/x").read_text() == "new" and files(tmp_path) == [".a.lock", "a"]
    (tmp_path / "a").rename(tmp_path / ".a.0123abcd.replaced")
    (tmp_path / ".a.0123abcd.partial").mkdir()
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "a"):
        raise KeyboardInterrupt
    assert (tmp_path / "a/x").read_text() == "new" and files(tmp_path) == [".a.lock", "a"]


def test_a_link_to_a_folder_stays_one(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "a").symlink_to("scratch")
    with atomic_folder(tmp_path / "a") as partial:
        (partial / "x").touch()
    assert (tmp_path / "a").is_symlink() and files(tmp_path / "scratch") == ["x"]


def test_two_writers_of_one_folder_are_refused_and_a_killed_one_is_cleared_away(tmp_path):
    (tmp_path / ".a.0123abcd.partial").mkdir()
    with atomic_folder(tmp_path / "a"):
        assert not (tmp_path / ".a.0123abcd.partial").exists()
        with pytest.raises(FileError, match="another process is writing it"), atomic_folder(tmp_path / "a"):
            pass
    assert (tmp_path / "a").is_dir()


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "new" / "a.csv"
    with atomic_file(path) as partial:
        partial.write_text("old")
        assert partial.suffix == ".csv" and partial.parent == path.parent and not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and files(path.parent) == ["a.csv"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    killed = "import os, sys; from restok.files import atomic_file\nwith atomic_file(sys.argv[1]) as p: p.touch(); os._exit(9)"
    for name in ("s.safetensors", "s.0of2.safetensors", "other.safetensors"):
        assert subprocess.run([sys.executable, "-c", killed, str(tmp_path / name)]).returncode == 9
    for name, left in (("s.*of*.safetensors", 2), ("s.safetensors", 1), ("*.*", 0)):
        remove_left_over(tmp_path, name)
        assert len(list(tmp_path.iterdir())) == left


def test_a_report_that_fails_while_it_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    def half(self, file, **_):
        file.write(b"half a picture")
        raise OSError("disk full")

    class Broken:
        def __str__(self):
            raise OSError("disk full")

    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_csv(pd.DataFrame({"a": [1, Broken()]}), tmp_path / "a.csv")
    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        save(Figure(), tmp_path / "fig6.png", None)
    assert files(tmp_path) == ["a.csv"] and (tmp_path / "a.csv").read_text() == "old"


def arrow(path):
    with atomic_file(path) as partial, pyarrow.OSFile(str(partial), "wb") as file:
        file.write(ROWS.tobytes())


def zipped(path):
    write_npz_rows(path, "a", ROWS.shape, np.uint8, [ROWS])


def pytorch(path):
    with atomic_file(path) as partial, partial.open("wb") as file:
        torch.save({"a": torch.zeros(5000)}, file)


def within(path):
    with atomic_folder(path) as partial:
        write_json(partial / "in" / "a.json", 2000 * [0])


@pytest.mark.parametrize(("write", "name"), [
    (lambda folder: write_json(folder / "a.json", 2000 * [0]), "a.json"),
    (lambda folder: write_npz(folder / "a.npz", a=ROWS), "a.npz"),
    (lambda folder: zipped(folder / "a.npz"), "a.npz"),
    (lambda folder: save(Figure(), folder / "a.png", None), "a.pdf"),
    (lambda folder: write_csv(pd.DataFrame({"a": range(2000)}), folder / "a.csv"), "a.csv"),
    (lambda folder: write_grid(folder / "a.png", ROWS, 5), "a.png"),
    (lambda folder: write_grid(folder / "a.jpg", ROWS, 5), "a.jpg"),
    (lambda folder: arrow(folder / "a.arrow"), "a.arrow"),
    (lambda folder: pytorch(folder / "a.pt"), "a.pt"),
    (lambda folder: within(folder / "f"), "f/in/a.json"),
    (lambda folder: save_network(folder, nn.Linear(100, 100), {}), "model.safetensors")])
def test_a_full_disk_names_the_file_whatever_its_writer_says(tmp_path, small_files, write, name):
    with small_files(500), pytest.raises(OSError, match=rf"^\[Errno 27\] File too large: '{tmp_path}/{name}'$"):
        write(tmp_path)
    assert [name for name in files(tmp_path) if not name.endswith(".lock")] == []


def test_only_a_full_disk_is_called_one(tmp_path):
    for block in (atomic_file, atomic_folder):
        with pytest.raises(ZeroDivisionError), block(tmp_path / "a"):
            raise ZeroDivisionError
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic_file(tmp_path / "a"):
        open("nowhere")


def test_json_holds_a_name_that_is_no_text_by_its_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "a.json", {name: "café"})
    assert read_json(tmp_path / "a.json") == {name: "café"} and os.fsencode(name) == b"caf\xe9"
    assert r'"caf\udce9": "café"' in (tmp_path / "a.json").read_text("utf-8")


def test_json_keeps_its_order_and_names_a_broken_file(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"z": 1, "a": [2.5, None]})
    assert list(read_json(tmp_path / "new" / "a.json")) == ["z", "a"]
    with pytest.raises(ValueError):
        write_json(tmp_path / "new" / "a.json", {"loss": float("nan")})
    assert files(tmp_path / "new") == ["a.json"]
    (tmp_path / "b.json").write_text('{"a": ')
    for name in ("b.json", "c.json"):
        with pytest.raises(FileError, match=name):
            read_json(tmp_path / name)


def test_an_npz_has_the_name_it_was_given(tmp_path):
    for name in ("a.npz", "b"):
        write_npz(tmp_path / name, x=np.arange(3))
        assert np.load(tmp_path / name)["x"].tolist() == [0, 1, 2]
    assert files(tmp_path) == ["a.npz", "b"]


# Rows of an npz

def test_rows_are_read_in_any_order(npz):
    array = NpzArray(npz, "arr_0")
    assert (array.shape, array.dtype) == ((50, 20, 30, 3), np.uint8)
    for start, stop in ((0, 7), (7, 50), (20, 21), (3, 3), (0, 50)):
        rows = array.read(start, stop)
        assert rows.flags.writeable and np.array_equal(rows, ROWS[start:stop])
    assert NpzArray(npz, "labels").read(48, 50).tolist() == [48, 49]
    assert npz_names(npz) == ["arr_0", "labels"]


def test_rows_are_read_without_the_rest(npz):
    """Reading the first rows takes in a part of the file, whatever its length."""
    with open(npz, "r+b") as file:
        file.seek(npz.stat().st_size // 2)
        file.write(b"damage" * 100)
    assert np.array_equal(NpzArray(npz, "arr_0").read(0, 2), ROWS[:2])
    with pytest.raises(FileError, match=r"a\.npz: array 'arr_0' cannot be read \(.*write or copy"):
        NpzArray(npz, "arr_0").read(0, 50)


def test_rows_that_are_not_there_are_refused(npz):
    array = NpzArray(npz, "arr_0")
    for start, stop in ((49, 51), (-1, 1), (2, 1)):
        with pytest.raises(FileError, match=r"a\.npz: array 'arr_0' of shape \(50, 20, 30, 3\) has no rows"):
            array.read(start, stop)


def test_an_array_that_has_no_rows_to_read_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", turned=np.asfortranarray(np.eye(3)[:2]), objects=np.array([None, "x"]), whole=np.eye(3))
    for name, what in (("turned", "Fortran order; save numpy.ascontiguousarray"), ("objects", "pickled objects"),
                       ("missing", "has no array 'missing', only turned, objects, whole")):
        with pytest.raises(FileError, match=rf"a\.npz.*{name}.*{what}|a\.npz: {what}"):
            NpzArray(tmp_path / "a.npz", name)


def test_a_file_that_is_no_whole_npz_is_named(npz, tmp_path):
    (tmp_path / "cut.npz").write_bytes(npz.read_bytes()[:-100])
    with zipfile.ZipFile(npz) as whole, zipfile.ZipFile(tmp_path / "short.npz", "w") as short:
        short.writestr("arr_0.npy", whole.read("arr_0.npy")[:-1])
        short.writestr("text.npy", "no array")
    for name, what in (("none.npz", "No such file"), ("cut.npz", "not a whole npz file"), ("short.npz", "too few or too many")):
        with pytest.raises(FileError, match=rf"{name}: .*{what}"):
            NpzArray(tmp_path / name, "arr_0")
    with pytest.raises(FileError, match=r"short\.npz: array 'text' cannot be read"):
        NpzArray(tmp_path / "short.npz", "text")
    with pytest.raises(FileError, match=r"none\.npz"):
        npz_names(tmp_path / "none.npz")
