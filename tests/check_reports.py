"""The reports of a run are whole and sane. Not one of the tests, which need no run: `make short` calls it on its own reports,
and `RESTOK_PARAMS=params/demo.yaml python -m pytest tests/check_reports.py` on another run's."""

import json
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from html import unescape
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from restok.config.load import load_params
from restok.config.text import read_yaml
from restok.experiments import ITEMS, load_sheet
from restok.reporting.cells import read_csv
from restok.reporting.provenance import Walk
from restok.reporting.published import Published
from restok.reporting.sources import UI

ROOT = Path(__file__).parent.parent
PARAMS = ROOT / os.environ["RESTOK_PARAMS"]
REPORTS = ROOT / "reports" / PARAMS.stem
PAGE = REPORTS / "index.html"
PICTURES = [f"{name}.png" for name, item in ITEMS.items() if item.kind != "table"]
SHEET = load_sheet(PARAMS)
LABEL = next(iter(load_params(PARAMS).tokenizer_training.checkpoints))


@pytest.fixture
def params():
    return load_params(PARAMS)


def numbers(name: str, columns: list[str]) -> pd.DataFrame:
    """The named columns of a table as finite numbers."""
    found = pd.read_csv(REPORTS / name)[columns].astype(float)
    assert np.isfinite(found.to_numpy()).all(), f"{name}:\n{found}"
    return found


def test_table1_adds_this_run_to_the_published_systems():
    table = read_csv(REPORTS / "table1.csv")
    assert list(table["method"][:-1]) == list(Published(ROOT / "params/published.csv").rows("table1"))
    last = table.iloc[-1]
    assert PARAMS.stem in last["method"]
    for column in ("reconstruction_distance", "generation_distance", "unguided_distance", "score", "precision", "recall"):
        assert np.isfinite(float(last[column])), f"{column}: {last[column]!r}"
    assert float(last["reconstruction_distance"]) > 0 and float(last["generation_distance"]) > 0
    assert 0 <= float(last["precision"]) <= 1 and 0 <= float(last["recall"]) <= 1


def test_table6_has_a_guidance_for_every_checkpoint(params):
    table = pd.read_csv(REPORTS / "table6.csv")
    assert list(table["checkpoint"]) == list(params.tokenizer_training.checkpoints)
    assert (table["candidates"] == len(params.guidance_search.candidates())).all()
    assert (numbers("table6.csv", ["max_scale", "distance", "n"]) > 0).all(axis=None)


def test_table9_is_a_distribution(params):
    table = read_csv(REPORTS / "table9.csv")
    assert sum(map(Fraction, table["probability"])) == 1
    assert int(table["tokens"].iloc[-1]) == params.tokenizer.latents


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table5"])
def test_an_ablation_has_every_row_of_the_sheet_and_every_seed(name):
    table, entries = read_csv(REPORTS / f"{name}.csv"), list(SHEET.feeding(name))
    assert list(table["setting"]) == list(dict.fromkeys(entry.name for entry in entries))
    assert (numbers(f"{name}.csv", ["rfid", "gfid", "entropy", "reconstruction_n", "generation_n"]) > 0).all(axis=None)
    assert {len(seeds.split()) for seeds in table["seeds"]} == {load_params(PARAMS).experiments.ablation_seeds}
    assert len(set(table["gfid"])) == len(table)                   # no run stands for another
    assert table["agrees"].str.contains(r": (?:yes|no|undecided)\b").any()


def test_table10_compares_both_ways_to_generate_on_one_tokenizer():
    table = read_csv(REPORTS / "table10.csv").set_index("setting")
    assert list(table.index) == ["HAR", "vanilla"] and set(table["gfid_paper"]) == {"2.34", "2.18"}
    assert int(table.loc["HAR", "steps"]) < int(table.loc["vanilla", "steps"])
    assert (numbers("table10.csv", ["gfid", "gfid_unguided"]) > 0).all(axis=None)


def test_every_choice_of_the_release_is_measured():
    table = read_csv(REPORTS / "release_switches.csv")
    assert len(table) == len(read_csv(ROOT / "params/release_switches.csv")) == 6
    assert (table[["paper", "release", "default"]] != "").all(axis=None)
    changed = table[[column for column in table if column.endswith("_effect")]]
    assert (changed != "").any(axis=1).all()


def test_the_markdown_page_has_every_table():
    text = (REPORTS / "tables.md").read_text()
    assert [item.title for item in ITEMS.values() if item.kind != "figure" and f"## {item.title}" not in text] == []
    assert "Not made yet" not in text


def test_fig7_has_every_checkpoint(params):
    table = pd.read_csv(REPORTS / "fig7.csv")
    assert dict(zip(table["checkpoint"], table["step"], strict=True)) == params.tokenizer_training.checkpoints
    assert (numbers("fig7.csv", ["reconstruction_distance", "generation_distance", "unguided_distance"]) > 0).all(axis=None)


def test_the_codebook_has_every_level(params):
    assert tuple(pd.read_csv(REPORTS / "codebook.csv")["tokens"]) == params.tokenizer.levels
    usage = numbers("codebook.csv", ["usage", "entropy"])
    assert (usage["usage"] > 0).all() and (usage["usage"] <= 1).all()
    assert (usage["entropy"] <= np.log2(params.tokenizer.codebook_size)).all()


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_not_blank(name):
    with Image.open(REPORTS / name) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) >= 300
    assert pixels.std() > 5


def test_the_page_holds_every_item_and_needs_nothing_else():
    page = unescape(PAGE.read_text())
    assert [name for name in ITEMS if f'id="{name}"' not in page] == [] and "Not made yet" not in page
    assert page.count("data:image/png;base64,") == len(PICTURES)
    assert re.findall(r"<(?:script \w|iframe\b|object\b|embed\b)|@import|url\(", page) == []
    assert [url for url in re.findall(r'\bsrc(?:set)?="([^"]*)', page) if not url.startswith("data:")] == []
    assert [url for url in re.findall(r'\bhref="([^"]*)', page) if not url.startswith(("data:", "#", f"{UI}/"))] == []


def test_every_report_leads_back_to_the_images_and_all_of_it_matches():
    for file in [*REPORTS.glob("*.*"), *(ROOT / "reports").glob("*.csv")]:
        walk = Walk(file, full=True)
        assert (walk.faults, [node.path for node in walk.nodes.values() if not node.here]) == ([], []), file
        fed = ITEMS[file.stem].rows if file.stem in ITEMS else "any"
        assert not fed or any(node.artifact and node.artifact.kind == "data" for node in walk.nodes.values()), file
    page = PAGE.read_text()
    links = set(re.findall(r'href="#(from-\d+)"', page))
    assert "What it cost" in page and "unknown" not in page.partition('<h2 id="cost">')[2].partition("</table>")[0].partition(
        "<tbody>")[2]
    assert links and links == set(re.findall(r'<details class="source" id="([^"]*)"', page))


def test_every_result_fits_the_schema_that_pages_show():
    public = json.loads((ROOT / "docs/result.schema.json").read_text())
    results = list((ROOT / "results" / PARAMS.stem / "evaluation").glob("*/*/*.json"))
    assert {path.stem for path in results} >= {"generation", "unguided", "reconstruction"}
    for path in results:
        jsonschema.validate(json.loads(path.read_text()), public)


def test_the_workflow_has_nothing_left_to_do():
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", PAGE.relative_to(ROOT).as_posix()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr, done.stdout + done.stderr


def test_results_copied_without_their_times_are_not_trained_again(tmp_path):
    """The workflow plans every step and deletes its output; the step finds what it made in runs/."""
    folder, run = tmp_path / "copy", PARAMS.stem
    for name in ("workflow", "profiles", "params", ".snakemake/metadata", f"results/{run}/data", f"results/{run}/classifier",
                 f"results/{run}/tokenizer/main/{LABEL}", f"runs/{run}/classifier", f"runs/{run}/tokenizer/main/{LABEL}"):
        shutil.copytree(ROOT / name, folder / name, copy_function=shutil.copyfile)
    for name in ("Snakefile", "run.yaml", "environment.yml"):
        shutil.copyfile(ROOT / name, folder / name)
    target = f"results/{run}/tokenizer/main/{LABEL}"
    forced = "--forcerun", "train_classifier", "train_tokenizer"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *forced, "--", target]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for log in ("train_classifier", f"main/train_tokenizer.{LABEL}"):
        assert "was finished before; taken from" in (folder / f"results/{run}/logs/{log}.log").read_text()
    weights = f"{target}/model.safetensors"
    assert (folder / weights).read_bytes() == (ROOT / weights).read_bytes()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The workflow beside this run's results, for a look at what a changed parameter would run again."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("Snakefile", "run.yaml", "workflow", "profiles", "params", "environment.yml", ".snakemake/metadata",
                 f"results/{PARAMS.stem}", f"reports/{PARAMS.stem}"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)    # both keep the times of change
    return folder


ABLATION = read_yaml(PARAMS.read_text())["experiments"]["ablation"]
TRAINING = {"train_tokenizer", "train_generator"}
MEASURING = {"score_guidance", "search_guidance", "sample", "evaluate_generation"}
MEASURING |= {"score_finalist"} if load_params(PARAMS).guidance_search.coarse else set()


@pytest.mark.parametrize(("section", "changed", "runs", "stays"), [
    ("codes", {"five_crops": not load_params(PARAMS).codes.five_crops}, MEASURING | {"encode", "train_generator"},
     {"prepare", "train_tokenizer", "evaluate_reconstruction"}),
    ("evaluation", {"neighbours": 5}, {"evaluate_generation", "evaluate_unguided", "table"},
     TRAINING | {"encode", "evaluate_reconstruction", "reference", "score_guidance", "sample"}),
    ("guidance_search", {"scales": [1.5]}, MEASURING, TRAINING | {"encode", "evaluate_reconstruction", "evaluate_unguided"}),
    ("evaluation", {"lpips_weights": "alexnet.pth"}, {"evaluate_reconstruction"}, TRAINING | MEASURING - {"sample"}),
    ("generator", {"class_dropout": 0.2}, MEASURING | {"train_generator"},
     {"train_tokenizer", "encode", "evaluate_reconstruction", "reference"}),
    ("tokenizer", {"drop_probability": 0.3}, MEASURING | TRAINING | {"encode", "evaluate_reconstruction"},
     {"prepare", "train_classifier", "reference"}),
    ("tokenizer_training", {"save_every": 7, "log_every": 7}, set(), TRAINING | MEASURING),
    ("experiments", {"ablation": ABLATION | {"generator_training.steps": 7}},
     {"train_generator", "evaluate_generation", "table"}, {"train_tokenizer", "encode", "score_guidance"}),
])
def test_a_changed_parameter_runs_again_what_depends_on_it_alone(section, changed, runs, stays, copy):
    path, original = copy / "params" / PARAMS.name, PARAMS.read_text()
    tree = read_yaml(original)
    tree[section] |= changed
    path.write_text(json.dumps(tree))               # JSON is YAML
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", PAGE.relative_to(ROOT).as_posix()]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    path.write_text(original)
    assert done.returncode == 0, done.stdout + done.stderr
    rules = set(re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, flags=re.M))
    assert runs <= rules and not stays & rules, rules
