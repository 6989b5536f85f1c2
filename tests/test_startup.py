"""Start-up: the demo's stages are short, so what they import counts."""

import pickle
import subprocess
import sys

import numpy as np
import pyarrow
import pytest
from conftest import ROOT, small_params

from restok.data import table
from restok.data.prepare import prepare
from restok.data.reading import DataError
from restok.data.sources import base
from restok.data.table import open_split
from restok.files import read_json
from restok.generator.model import HAR
from restok.tokenizer.model import ResTok
from restok.weights import save_model

OPEN = ("import sys; from restok.data.table import open_split; split = open_split(sys.argv[1], 'train'); split[0];"
        "sys.exit(' '.join({'datasets', 'pandas', 'sklearn', 'torch'} & set(sys.modules)) or 0)")
LOAD = ("import sys, torch; from restok.weights import load_generator, load_tokenizer; before = torch.get_rng_state();"
        "load_tokenizer(sys.argv[1]); generator = load_generator(sys.argv[2]);"
        "assert torch.equal(before, torch.get_rng_state());"
        "from restok import config; from restok.training.optim import Updater;"
        "settings = config.Optimizer(learning_rate=1, final_learning_rate=0, warmup_steps=0, betas=(.9, .95), weight_decay=0);"
        "loss = generator.loss(torch.zeros(1, generator.config.tokens, dtype=int), torch.zeros(1, dtype=int));"
        "update = Updater([generator], settings, 1.0, 'fp32', 9); update.backward(loss); update.step(0);"
        "update.load_state_dict(update.state_dict()); assert generator.head.weight.any();"
        "sys.exit(' '.join({'torch._dynamo', 'sympy'} & set(sys.modules)) or 0)")


def test_a_split_is_read_without_what_made_its_images(digits):
    done = subprocess.run([sys.executable, "-c", OPEN, digits], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_split_goes_to_another_process_as_its_address(digits):
    split = open_split(digits, "train")
    sent = pickle.dumps(split)
    there = pickle.loads(sent)
    assert len(sent) < 1000 and (there.classes, there.digest, len(there)) == (split.classes, split.digest, len(split))
    assert all(np.array_equal(there[i][0], split[i][0]) and there[i][1] == split[i][1] for i in (0, 700, 1436))


@pytest.fixture
def several(digits, tmp_path, monkeypatch):
    """The digits again, in files of about 100 kB, in batches of half that."""
    monkeypatch.setattr(table, "BATCH", 50_000)
    monkeypatch.setattr(base, "PIECE", 150_000)
    prepare(small_params().data, 16, tmp_path / "several")
    return tmp_path / "several"


def same(one, other):
    return np.array_equal(one.labels, other.labels) and all(
        np.array_equal(one[i][0], other[i][0]) for i in range(len(one)))


def test_a_split_saved_in_several_files_keeps_its_order_and_its_digest(digits, several):
    one, other = (read_json(folder / "manifest.json")["splits"]["train"] for folder in (digits, several))
    assert one | {"files": None} == other | {"files": None} and (len(one["files"]), len(other["files"])) == (1, 6)
    assert all(pyarrow.ipc.open_stream(file).read_next_batch().nbytes < 70_000 for file in several.glob("*/*.arrow"))
    assert same(open_split(digits, "train"), open_split(several, "train"))
    sorted((several / "train").glob("*.arrow"))[3].unlink()
    with pytest.raises(DataError, match=r"train: not a prepared split.*00003\.arrow.*; run `restok prepare`"):
        open_split(several, "train")


def test_a_split_cut_short_is_refused(digits, tmp_path):
    (tmp_path / "train").mkdir()
    for path in (digits / "train").iterdir():
        (tmp_path / "train" / path.name).write_bytes(path.read_bytes()[:100_000])
    (tmp_path / "manifest.json").write_bytes((digits / "manifest.json").read_bytes())
    with pytest.raises(DataError, match=r"train: not a prepared split.*restok prepare"):
        open_split(tmp_path, "train")


def test_models_are_loaded_and_updated_without_torchs_compiler_and_loaded_without_drawing_weights(tmp_path):
    small = small_params()
    for name, model in (("tokenizer", ResTok(small.tokenizer)), ("generator", HAR(small.generator))):
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, model)
    done = subprocess.run([sys.executable, "-c", LOAD, tmp_path / "tokenizer", tmp_path / "generator"], cwd=ROOT,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
