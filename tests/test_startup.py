"""Start-up: the demo's stages are short, so what they import counts."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, small_params

from restok.data.sources import DataError, open_split
from restok.generator.model import HAR
from restok.tokenizer.model import ResTok
from restok.weights import save_model

OPEN = ("import sys; from restok.data.sources import open_split; split = open_split(sys.argv[1], 'train'); split[0];"
        "sys.exit(' '.join({'datasets', 'pandas', 'torch'} & set(sys.modules)) or 0)")
LOAD = ("import sys, torch; from restok.weights import load_generator, load_tokenizer; before = torch.get_rng_state();"
        "load_tokenizer(sys.argv[1]); load_generator(sys.argv[2]); assert torch.equal(before, torch.get_rng_state());"
        "sys.exit(' '.join({'torch._dynamo', 'sympy'} & set(sys.modules)) or 0)")


def test_a_split_is_read_without_the_libraries_that_wrote_it(digits):
    done = subprocess.run([sys.executable, "-c", OPEN, digits], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_split_goes_to_another_process_as_its_address(digits):
    split = open_split(digits, "train")
    sent = pickle.dumps(split)
    there = pickle.loads(sent)
    assert len(sent) < 1000 and (there.classes, there.digest, len(there)) == (split.classes, split.digest, len(split))
    assert all(np.array_equal(there[i][0], split[i][0]) and there[i][1] == split[i][1] for i in (0, 700, 1436))


def test_a_split_saved_in_several_files_keeps_its_order(digits, tmp_path):
    import datasets
    table = datasets.load_from_disk(digits / "validation")
    table.save_to_disk(tmp_path / "validation", num_shards=7)
    (tmp_path / "manifest.json").write_bytes((digits / "manifest.json").read_bytes())
    one, seven = open_split(digits, "validation"), open_split(tmp_path, "validation")
    assert len(list((tmp_path / "validation").glob("*.arrow"))) == 7 and np.array_equal(one.labels, seven.labels)
    assert all(np.array_equal(one[i][0], seven[i][0]) for i in range(len(one)))


def test_a_split_cut_short_is_refused(digits, tmp_path):
    (tmp_path / "train").mkdir()
    for path in (digits / "train").iterdir():
        (tmp_path / "train" / path.name).write_bytes(path.read_bytes()[:100_000])
    (tmp_path / "manifest.json").write_bytes((digits / "manifest.json").read_bytes())
    with pytest.raises(DataError, match=r"train: not a prepared split.*restok prepare"):
        open_split(tmp_path, "train")


def test_models_are_loaded_without_torchs_compiler_and_without_drawing_weights(tmp_path):
    small = small_params()
    for name, model in (("tokenizer", ResTok(small.tokenizer)), ("generator", HAR(small.generator))):
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, model)
    done = subprocess.run([sys.executable, "-c", LOAD, tmp_path / "tokenizer", tmp_path / "generator"], cwd=ROOT,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
