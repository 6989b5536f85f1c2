"""Steps that several jobs share: the profile says how many, and what is made does not tell."""

import shutil

import pytest
import warm
from conftest import ROOT, held
from image_sets import as_folder

from restok.config.load import load_params
from restok.data.prepare import prepare
from restok.stages.codes import encode

CODES = "results/short/codes/main/750k"


@pytest.fixture
def workflow(tmp_path, models):
    """The workflow in a folder of its own, beside a few photographs and a tokenizer; each photograph is a batch."""
    for name in ("workflow", "profiles", "params"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("Snakefile", "run.yaml", "environment.yml"):
        shutil.copy2(ROOT / name, tmp_path)
    short = tmp_path / "params/short.yaml"
    short.write_text(short.read_text().replace("flip: false\n  batch_size: 256", "flip: false\n  batch_size: 5"))
    prepare(as_folder(tmp_path / "photographs"), 16, tmp_path / "results/short/data")
    tokenizer = tmp_path / "results/short/tokenizer/main/750k"
    shutil.copytree(models / "tokenizer", tokenizer)
    tokenizer.touch()                                           # made after the images
    return tmp_path


def snakemake(workflow, *words, target=CODES):
    done = warm.snakemake(workflow, "--cores", "1", *words, "--", target)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_images_are_packed_in_parts_and_another_number_makes_nothing_anew(workflow, digits):
    data = "results/demo/data"
    done = snakemake(workflow, "--set-scatter", "prepare=2", target=data)
    assert done.count("rule prepare_part:") == 2 and done.count("rule prepare:") == 1
    assert held(workflow / data) == held(digits) and not [*workflow.glob("runs/demo/parts/data/*/")]
    for words in ([], ["--set-scatter", "prepare=3"]):
        assert "Nothing to be done" in snakemake(workflow, "--dry-run", *words, target=data)


def test_parts_are_made_and_gathered_and_another_number_makes_nothing_anew(workflow, tmp_path):
    done = snakemake(workflow, "--set-scatter", "encode=2")
    assert done.count("rule encode_part:") == 2 and done.count("rule encode:") == 1 and "train_tokenizer" not in done
    data, tokenizer = (tmp_path / f"results/short/{name}" for name in ("data", "tokenizer/main/750k"))
    encode(load_params(tmp_path / "params/short.yaml"), data, tokenizer, tmp_path / "whole")
    assert held(tmp_path / CODES) == held(tmp_path / "whole")
    assert not [path for path in (tmp_path / "runs/short/parts").rglob("*") if path.suffix == ".npy"]
    for words in ([], ["--set-scatter", "encode=64"]):
        assert "Nothing to be done" in snakemake(workflow, "--dry-run", *words)
    shutil.rmtree(tmp_path / CODES)
    planned = snakemake(workflow, "--dry-run")
    assert "encode_part" not in planned and planned.count("rule encode:") == 1


def test_a_profile_says_how_many(workflow):
    profile = workflow / "profiles/cluster/profile.yaml"
    profile.parent.mkdir()
    profile.write_text("set-scatter: {encode: 64}\nresources: [gpu=8]\n")
    planned = snakemake(workflow, "--dry-run", "--profile", "profiles/cluster")
    assert planned.count("rule encode_part:") == 64 and "part=64-of-64" in planned
