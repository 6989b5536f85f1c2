"""The number of threads of a model is a setting: no variable of the environment, no other setting and no machine changes it."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from restok.config.load import ConfigError, canonical_json, load_params
from restok.experiments import load_sheet
from restok.experiments.places import STAGES, depends_on

DEMO = ROOT / "params/demo.yaml"
BRIEF = ("tokenizer_training.checkpoints={a: 3}", "tokenizer_training.batch_size=32", "tokenizer_training.log_every=1")


def restok(threads: str, *words: object) -> None:
    """A call of the command with these threads in the environment, as Snakemake and other launchers write them there."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    command = [sys.executable, "-c", "from restok.cli import app; app()", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_training_gives_equal_weights_whatever_the_environment_and_the_workers(digits, tmp_path, classifier):
    given = ["--params", DEMO, "--data", digits, "--classifier", classifier, "--checkpoint", "a"]
    changed = [word for setting in BRIEF for word in ("--set", setting)]
    runs = [("1", 0), ("2", 2)]
    for threads, workers in runs:
        restok(threads, "train-tokenizer", *given, *changed, "--set", f"data.workers={workers}", "--run",
               tmp_path / f"run{workers}", "--out", tmp_path / f"out{workers}")
    one, other = (load_file(tmp_path / f"out{workers}/model.safetensors") for _, workers in runs)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert [json.loads((tmp_path / f"out{workers}/metrics.json").read_text())["threads"] for _, workers in runs] == [1, 1]


def test_an_evaluation_takes_the_parameters_threads_and_says_so(digits, classifier, tmp_path):
    for threads in (1, 2):
        restok("1", "evaluate", "--params", DEMO, "--set", f"threads={threads}", "--classifier", classifier,
               "--samples", digits, "--reference", digits, "--out", tmp_path / f"{threads}.json")
        result = json.loads((tmp_path / f"{threads}.json").read_text())
        assert [made["threads"] for made in result["made"]] == [threads]


def test_what_torch_computes_depends_on_the_threads_and_not_on_the_workers():
    one, two, workers = (load_params(DEMO, [override]) for override in ("threads=1", "threads=2", "data.workers=9"))
    changed = {stage for stage in STAGES if depends_on(stage, one) != depends_on(stage, two)}
    assert changed == STAGES.keys() - {"data", "layout", "guidance"}
    assert not [stage for stage in STAGES if depends_on(stage, one) != depends_on(stage, workers)]
    assert "workers" not in canonical_json(one, *type(one).model_fields)


def test_rows_that_compare_have_one_number_of_threads(tmp_path):
    with pytest.raises(ConfigError, match=r"experiments\.ablation: threads is shared by every row"):
        load_sheet(DEMO, ["experiments.ablation={threads: 2}"])
    for wrong in ("0", "5000", "true", "null"):
        with pytest.raises(ConfigError, match=r"threads: input should be"):
            load_params(DEMO, [f"threads={wrong}"])
