"""Nothing of anybody's is lost: what a verb is to write is held against what it reads and what is there, before any work."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from restok.files import sha256_file
from restok.files.outputs import kind_of, require_writable

DEMO = ROOT / "params/demo.yaml"


@pytest.fixture
def home(tmp_path, digits, models, classifier, monkeypatch):
    """A folder with models and data of one's own, and what is not restok's: photographs, a thesis."""
    folders = {"data": digits, "tok": models / "tokenizer", "gen": models / "generator", "classifier": classifier}
    for name, folder in folders.items():
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "photos/a.png")
    for name, value in (("thesis.tex", "mine"), ("thesis.json", '{"mine": 1}'), ("thesis.csv", "mine"),
                        ("g.json", '{"kind": "guidance"}')):
        (tmp_path / name).write_text(value)
    np.savez(tmp_path / "s.npz", arr_0=np.zeros((3, 16, 16, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def held(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ENCODE = ("encode", "--params", DEMO, "--data", "data", "--tokenizer", "tok")
GENERATE = ("train-generator", "--params", DEMO, "--codes", "data", "--tokenizer", "tok")
TOKENIZE = ("train-tokenizer", "--params", DEMO, "--data", "data", "--classifier", "classifier", "--checkpoint", "250k")
MEASURE = ("evaluate", "--params", DEMO, "--classifier", "classifier", "--samples", "s.npz", "--reference", "data")


@pytest.mark.parametrize(("words", "message"), [
    ((*ENCODE, "--out", "tok"), "--out tok: would take the place of --tokenizer tok, which is read"),
    ((*ENCODE, "--out", "data/codes"), "--out data/codes: would take the place of --data data, which is read, or lies in it"),
    ((*ENCODE, "--out", "."), "--out .: would take the place of"),
    ((*ENCODE, "--out", "photos"), "photos: holds a.png, which writing codes there would delete"),
    ((*ENCODE, "--out", "gen"), "gen: holds config.json, which writing codes there would delete"),
    ((*ENCODE, "--out", "thesis.tex"), "thesis.tex: is a file"),
    ((*GENERATE, "--run", "run", "--out", "data"), "--out data: would take the place of --codes data"),
    ((*GENERATE, "--run", "exp", "--out", "exp/model"), "--run exp: --out exp/model would be written there, too"),
    ((*GENERATE, "--run", "exp/run", "--out", "exp"), "--out exp: --run exp/run would be written there, too"),
    ((*GENERATE, "--run", ".", "--out", "new"), "--run .: would take the place of --codes data"),
    ((*TOKENIZE, "--run", "data/run", "--out", "new"), "--run data/run: would take the place of --data data, which is read"),
    (("train-classifier", "--params", DEMO, "--data", "data", "--out", "data"), "--out data: would take the place of --data"),
    ((*MEASURE, "--out", "s.npz"), "--out s.npz: would take the place of --samples s.npz"),
    ((*MEASURE, "--out", "photos"), "photos: is a folder; name a file to write"),
    ((*MEASURE, "--out", "r.json", "--statistics", "photos"), "photos: is a folder; name a file to write"),
    ((*MEASURE, "--out", "r.json", "--statistics", "r.json"), "r.json would be written there, too"),
    ((*MEASURE, "--out", "thesis.tex"), "thesis.tex: is there, and restok did not write it"),
    ((*MEASURE, "--out", "thesis.json"), "thesis.json: is there, and restok did not write it"),
    ((*MEASURE, "--out", "r.json", "--state", "tok/model.safetensors"), "tok/model.safetensors: is there, and restok did not"),
    ((*MEASURE, "--out", "thesis.tex/r.json"), "cannot be written below"),
    (("sample", "--tokenizer", "tok", "--generator", "gen", "--out", "s.npz"), "s.npz: is there, and restok did not write it"),
    (("sample", "--tokenizer", "tok", "--generator", "gen", "--out", "photos/a.png"), "photos/a.png: is there, and restok did"),
    ((*MEASURE, "--out", "g.json"), "g.json: is of kind 'guidance', which this would delete"),
    (("layout", "--params", DEMO, "--out", "g.json"), "g.json: is of kind 'guidance', which this would delete"),
    (("reconstruct", "s.npz", "--tokenizer", "tok", "--out", "photos/a.png"), "photos/a.png: is there, and restok did not"),
    (("reconstruct", "s.npz", "--tokenizer", "tok", "--out", "photos"), "photos: would be replaced whole, and holds photos"),
])
def test_what_is_read_and_what_is_not_ours_is_never_replaced(words, message, home, command):
    before = held(home)
    result = command(*words)
    assert result.exit_code == 1 and message in result.stderr.replace(f"{home}/", ""), result.stderr
    assert held(home) == before


def test_a_place_that_cannot_be_written_is_found_before_any_work(home, command):
    for place in ("/proc/nowhere/r.json", "/dev/full/r.json"):
        result = command(*MEASURE, "--out", place)
        assert result.exit_code == 1 and place in result.stderr and "95 % interval" not in result.stderr, result.stderr


def test_a_pipe_is_not_replaced_by_a_file(home, command):
    os.mkfifo("r.json")
    result = command(*MEASURE, "--out", "r.json")
    assert result.exit_code == 1 and "r.json: no regular file" in result.stderr and Path("r.json").is_fifo()


def test_what_restok_wrote_is_known_by_its_contents(home, command):
    made = {"sample": ("samples.npz", "samples.png", "samples.jpg"), "reconstruct": ("r.npz", "r.png"), "layout": ("l.npz",)}
    given = {"sample": ("--tokenizer", "tok", "--generator", "gen", "--per-class", 1), "layout": ("--params", DEMO),
             "reconstruct": ("s.npz", "--tokenizer", "tok")}
    for verb, names in made.items():
        for name in names:
            for _ in range(2):                                   # the second replaces the first
                result = command(verb, *given[verb], "--out", name)
                assert result.exit_code == 0 and kind_of(home / name), result.stderr
    for _ in range(2):
        result = command(*MEASURE, "--out", "r.json", "--statistics", "sums.safetensors", "--state", "state.safetensors")
        assert result.exit_code == 0 and (kind_of(home / "r.json"), kind_of(home / "sums.safetensors")) == (
            "evaluation", "statistics"), result.stderr
    assert json.loads((home / "r.json").read_text())["kind"] == "evaluation"
    with zipfile.ZipFile(home / "samples.npz") as archive:
        made_of = json.loads(archive.comment.decode().partition(" ")[2])
    assert made_of["kind"] == "samples" and made_of["inputs"] == {"guidance": None} | {
        name: sha256_file(home / folder / "model.safetensors") for name, folder in (("tokenizer", "tok"), ("generator", "gen"))}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"r\.json"):
        require_writable(tmp_path / "r.json", folder=False)
