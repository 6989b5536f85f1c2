"""encode in parts, and in pieces: killed, stopped, resumed, gathered, it writes what one undisturbed job writes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SMALL, held, small_params

from restok.data.codes import CodesError, CodeStore
from restok.data.parts import part_origin
from restok.data.table import open_split
from restok.files import read_json, write_json
from restok.files.artifact import Origin
from restok.parts import WHOLE, Shard
from restok.signals import Interrupted, answered
from restok.stages.codes import encode, gather
from restok.tokenizer.model import ResTok

PARAMS = small_params("codes.batch_size=50")             # 36 batches of 10 images of the 360 for validation


@pytest.fixture(scope="module")
def inputs(digits, models):
    return digits, models / "tokenizer"


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """What one job writes."""
    folder = tmp_path_factory.mktemp("whole") / "codes"
    encode(PARAMS, *inputs, folder, "validation")
    return folder


@pytest.fixture(scope="module")
def three(inputs, tmp_path_factory):
    """Three parts of it."""
    folder = tmp_path_factory.mktemp("parts")
    for number in range(3):
        encode(PARAMS, *inputs, folder / str(number), "validation", part=Shard(number, 3))
    return [folder / str(number) for number in range(3)]


@pytest.fixture
def parts(three, tmp_path):
    """A copy of the three, to spoil."""
    return [Path(shutil.copytree(part, tmp_path / "parts" / part.name)) for part in three]


@pytest.fixture
def encoded(monkeypatch):
    """How many views went through the tokenizer, a number for each batch; `at` the batch of a number, something happens."""
    class Encoded(list):
        at, act = None, None

    calls, original = Encoded(), ResTok.encode

    def counted(self, images, **more):
        calls.append(len(images))
        if len(calls) == calls.at:
            calls.act()
        return original(self, images, **more)

    monkeypatch.setattr(ResTok, "encode", counted)
    return calls


# Parts

def test_parts_gathered_in_any_order_are_the_store_to_the_byte(inputs, three, whole, encoded, tmp_path):
    gather(PARAMS, *inputs, [three[1], three[2], three[0]], tmp_path / "codes", "validation")
    assert held(tmp_path / "codes") == held(whole) and encoded == []
    rows = [read_json(part / "manifest.json")["rows"] for part in three]
    assert rows == [[0, 120], [120, 240], [240, 360]]


def test_more_parts_than_batches_leave_some_empty_and_change_nothing(inputs, tmp_path):
    params, parts = small_params("codes.batch_size=500"), [tmp_path / str(number) for number in range(6)]
    for number, part in enumerate(parts):
        encode(params, *inputs, part, "validation", part=Shard(number, 6))
    encode(params, *inputs, tmp_path / "whole", "validation")
    gather(params, *inputs, parts, tmp_path / "codes", "validation")
    assert held(tmp_path / "codes") == held(tmp_path / "whole")
    assert sorted(np.load(part / "labels.npy").size for part in parts) == [0, 0, 60, 100, 100, 100]


def test_the_only_part_is_the_store_itself():
    store = Origin("codes", {"seed": 1}, {"data": "a"})
    assert part_origin(store, WHOLE, 5) is store


def test_a_part_is_no_store(three):
    with pytest.raises(CodesError, match="input should be 'codes', found 'codes_part'"):
        CodeStore(three[0])


@pytest.mark.parametrize(("chosen", "message"), [
    ([0, 2], r"part 1/3 is missing.*restok encode --part 1/3"), ([1], r"part 0/3, 2/3 is missing"),
    ([0, 1, 2, 1], r"parts/1: part 1/3, and so is \S+parts/1; name each part once")])
def test_missing_and_doubled_parts_are_named(inputs, parts, chosen, message, tmp_path):
    with pytest.raises(CodesError, match=message):
        gather(PARAMS, *inputs, [parts[number] for number in chosen], tmp_path / "codes", "validation")
    assert not (tmp_path / "codes").exists()


def change(part, **changes):
    manifest = read_json(part / "manifest.json")
    for key, value in changes.items():
        section, _, name = key.partition("__")
        (manifest[section] if name else manifest)[name.replace("__", ".") or key] = value
    write_json(part / "manifest.json", manifest)


@pytest.mark.parametrize(("changes", "message"), [
    ({"inputs__tokenizer": "b2"}, r"parts/1: part of another code store: tokenizer is b2, not \w{64}"),
    ({"inputs__data": "d2"}, "another code store: data is d2"),
    ({"settings__codes__scales": [1.05]}, r"codes\.scales is \[1\.05\], not \[1\.1\]; encode every part"),
    ({"settings__images_a_batch": 5}, "images_a_batch is 5, not 10"),
    ({"settings__codes__more": 5}, r"codes\.more is 5, not None"),
    ({"settings__parts": 4}, r"parts/1: one of 4 parts, but \S+parts/0 is one of 3"),
    ({"rows": [120, 250]}, r"parts/1: rows \[120, 250\], but part 1/3 of 360 images are \[120, 240\]; delete \S+parts/1 and"),
    ({"tokens": 8}, r"parts/1: tokens is 8, but \S+parts/0 has 16; delete the one")])
def test_foreign_parts_are_named_with_what_differs(inputs, parts, changes, message, tmp_path):
    change(parts[1], **changes)
    with pytest.raises(CodesError, match=message):
        gather(PARAMS, *inputs, parts, tmp_path / "codes", "validation")


def test_other_data_is_no_part_of_it(inputs, parts, whole, tmp_path):
    with pytest.raises(CodesError, match="parts/0: part of another code store: data is"):
        gather(PARAMS, *inputs, parts, tmp_path / "codes")                      # of the training images
    for strange in (whole, inputs[0], tmp_path / "nothing"):
        with pytest.raises(CodesError, match=f"{strange}: no part of a code store"):
            gather(PARAMS, *inputs, [parts[0], strange], tmp_path / "codes", "validation")


def cut(path):
    path.write_bytes(path.read_bytes()[:-16])


def altered(path):
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


@pytest.mark.parametrize("name", ["codes.npy", "labels.npy"])
@pytest.mark.parametrize("spoil", [cut, altered, Path.unlink])
def test_a_part_that_is_not_whole_is_named_with_its_file(inputs, parts, spoil, name, tmp_path):
    spoil(parts[2] / name)
    with pytest.raises(CodesError, match=rf"parts/2/{name}.*part 2/3 is not whole: .*restok encode --part 2/3` again"):
        gather(PARAMS, *inputs, parts, tmp_path / "codes", "validation")
    assert not (tmp_path / "codes").exists()


def test_a_part_is_made_once_and_what_was_kept_of_it_goes_when_they_are_gathered(inputs, whole, encoded, tmp_path):
    parts, run = [tmp_path / f"part{number}" for number in range(2)], tmp_path / "run"
    for number, part in enumerate(parts):
        encode(PARAMS, *inputs, part, "validation", run, Shard(number, 2))
        shutil.rmtree(part)                                     # as the workflow does that was killed before it took note
        encode(PARAMS, *inputs, part, "validation", run, Shard(number, 2))
    assert len(encoded) == 36 and len(list(tmp_path.glob("run.part*/*/finished/codes.npy"))) == 2
    for _ in range(2):
        gather(PARAMS, *inputs, parts, tmp_path / "codes", "validation", run)
        assert held(tmp_path / "codes") == held(whole)
        assert list(tmp_path.glob("run.part*")) == [] and len(list(run.glob("*/finished/codes.npy"))) == 1


# In pieces

def test_a_crash_costs_the_batch_that_was_under_work(inputs, whole, encoded, tmp_path, caplog):
    def crash():
        raise RuntimeError("crash")

    caplog.set_level("INFO")
    given = (PARAMS, *inputs, tmp_path / "codes", "validation", tmp_path / "run")
    encoded.at, encoded.act = 5, crash
    with pytest.raises(RuntimeError, match="crash"):
        encode(*given)
    (journal,) = tmp_path.glob("run/*/*.journal")
    cut(journal)                                                # and of the fourth something was lost, as when power fails
    encode(*given)
    assert held(tmp_path / "codes") == held(whole) and len(encoded) == 5 + 33 and set(encoded) == {50}
    assert "resuming after image 30 of 360" in caplog.text and not journal.exists()


def test_batches_of_another_size_are_not_taken_up(inputs, encoded, tmp_path):
    def crash():
        raise RuntimeError("crash")

    encoded.at, encoded.act = 5, crash
    with pytest.raises(RuntimeError, match="crash"):
        encode(PARAMS, *inputs, tmp_path / "codes", "validation", tmp_path / "run")
    encode(small_params("codes.batch_size=500"), *inputs, tmp_path / "codes", "validation", tmp_path / "run")
    assert encoded[5:] == [500, 500, 500, 300] and not list(tmp_path.glob("run/*/*.journal"))


def test_a_signal_ends_it_after_the_batch_and_the_same_call_goes_on(inputs, whole, encoded, tmp_path):
    given = (PARAMS, *inputs, tmp_path / "codes", "validation", tmp_path / "run")
    encoded.at, encoded.act = 7, lambda: os.kill(os.getpid(), signal.SIGUSR1)
    with answered(), pytest.raises(Interrupted, match=f"by SIGUSR1 after image 70 of 360, which are kept in {tmp_path}/run"):
        encode(*given)
    assert len(encoded) == 7 and not (tmp_path / "codes").exists() and not list(tmp_path.glob("run/*/.*.partial"))
    with answered():
        encode(*given)
    assert len(encoded) == 36 and held(tmp_path / "codes") == held(whole)


def test_without_a_run_a_signal_ends_it_at_once(inputs, encoded, tmp_path):
    encoded.at, encoded.act = 2, lambda: os.kill(os.getpid(), signal.SIGTERM)
    with answered(), pytest.raises(Interrupted, match="what is finished stays"):
        encode(PARAMS, *inputs, tmp_path / "codes", "validation")
    assert [path.name for path in tmp_path.iterdir()] == [".codes.lock"]


def test_a_full_disk_is_one_error_and_costs_nothing_that_was_finished(inputs, whole, encoded, tmp_path, small_files):
    given = (PARAMS, *inputs, tmp_path / "codes", "validation", tmp_path / "run")
    with small_files(50_000), pytest.raises(OSError, match=r"codes\.npy"):      # the store has 58 kB, the journal more
        encode(*given)
    assert encoded == []
    with small_files(58_500), pytest.raises(OSError, match=r"run/\w+/finished"):
        encode(*given)
    finished = len(encoded) - 1
    encode(*given)
    assert len(encoded) == 36 + 1 and finished > 30 and held(tmp_path / "codes") == held(whole)


SETTINGS = ["--params", ROOT / "params/demo.yaml", *(word for one in SMALL for word in ("--set", one))]


def test_the_command_killed_again_and_again_writes_the_same_bytes(command, inputs, tmp_path):
    data, tokenizer = inputs
    common = ["encode", *SETTINGS, "--set", "codes.batch_size=5", "--data", data, "--tokenizer", tokenizer, "--part", "1/12"]
    words = [str(word) for word in (*common, "--run", tmp_path / "run", "--out", tmp_path / "killed")]
    sizes = [0]                                                 # of the journal: 120 batches of one image, 200 bytes each
    for _ in range(3):
        process = subprocess.Popen([Path(sys.executable).with_name("restok"), *words], stderr=subprocess.PIPE)
        while process.poll() is None and size(tmp_path) <= sizes[-1] + 2000:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
        sizes.append(size(tmp_path))
    assert sizes == sorted(set(sizes)) and not (tmp_path / "killed").exists()
    assert command(*words).exit_code == command(*common, "--out", tmp_path / "whole").exit_code == 0
    assert held(tmp_path / "killed") == held(tmp_path / "whole")
    split = open_split(data, "train")
    assert np.load(tmp_path / "killed/labels.npy").tolist() == split.labels[119:239].tolist()
    left = {path.name for path in tmp_path.rglob("*.partial*")} | {path.name for path in tmp_path.rglob("*.journal")}
    assert left == set()


def size(folder):
    return sum(path.stat().st_size for path in folder.glob("run.part1of12/*/*.journal"))


# The command

@pytest.mark.parametrize("part", ["4/4", "1", "-1/4", "1/0", "a/b", ""])
def test_a_part_has_two_numbers(command, inputs, part, tmp_path):
    result = command("encode", *SETTINGS, "--data", inputs[0], "--tokenizer", inputs[1], "--part", part, "--out",
                     tmp_path / "codes")
    assert result.exit_code == 1 and f"part {part!r}: expected PART/PARTS" in result.stderr


def test_the_command_encodes_parts_or_gathers_them(command, inputs, tmp_path):
    given = ["encode", *SETTINGS, "--set", "codes.batch_size=1000", "--data", inputs[0], "--tokenizer", inputs[1]]
    for words in (["--part", "0/2", "--out", tmp_path / "0"], ["--part", "1/2", "--out", tmp_path / "1"],
                  [tmp_path / "0", tmp_path / "1", "--out", tmp_path / "codes"]):
        result = command(*given, *words)
        assert result.exit_code == 0, result.stderr
    assert len(CodeStore(tmp_path / "codes")) == 1437
    result = command(*given, tmp_path / "0", "--part", "0/2", "--out", tmp_path / "2")
    assert result.exit_code == 1 and "--part 0/2: encodes, and" in result.stderr
    result = command(*given, tmp_path / "0", tmp_path / "1", "--out", tmp_path / "1")
    assert result.exit_code == 1 and "would take the place of --parts" in result.stderr
