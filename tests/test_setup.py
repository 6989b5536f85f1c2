"""What `make` installs, and the parameter files that come with the repository."""

import re
import subprocess
import sys
import tomllib
from zipfile import ZipFile

import pytest
import torch
from conftest import ROOT
from jaxtyping import TypeCheckError

from restok.config.load import load_params
from restok.config.text import read_yaml
from restok.nn.rope import rotate

LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEMO = ROOT / "params/demo.yaml"
SHORTER = {   # what params/short.yaml may change: how long everything takes, and nothing that is built
    "classifier.steps", "codes.five_crops", "tokenizer_training.batch_size", "tokenizer_training.checkpoints",
    "tokenizer_training.optimizer.warmup_steps", "tokenizer_training.log_every", "tokenizer_training.save_every",
    "objective.discriminator.start", "generator_training.batch_size",
    "objective.discriminator.optimizer.warmup_steps", "generator_training.steps", "generator_training.optimizer.warmup_steps",
    "generator_training.log_every", "generator_training.save_every", "guidance_search.samples_per_class",
    "guidance_search.coarse", "guidance_search.schedules", "guidance_search.scales", "evaluation.samples_per_class",
    "experiments.ablation", "experiments.ablation_seeds"}


def locked() -> dict[str, str]:
    """Each pinned package and its entry."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE).strip())
    return {re.match(r"([\w.-]+)==", entry)[1]: entry for entry in entries}


def flat(tree: dict, prefix: str = "") -> dict:
    """Settings by their path; the labels of checkpoints, what ablations change, and the rounds of a search are values."""
    found = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and key not in ("checkpoints", "ablation", "coarse")
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def settings(name: str) -> dict:
    return flat(load_params(ROOT / "params" / name).model_dump())


def test_every_pin_has_a_hash():
    assert len(locked()) > 50
    assert [name for name, entry in locked().items() if "--hash=sha256:" not in entry] == []


def test_the_lock_names_no_host():
    assert re.findall(r".*(?:://|@ |--index-url|--extra-index-url|--find-links|file:).*", LOCK) == []
    assert not (ROOT / "uv.lock").exists()


def test_every_dependency_is_in_the_lock():
    groups = [PROJECT["project"]["dependencies"], PROJECT["dependency-groups"]["dev"], PROJECT["build-system"]["requires"]]
    names = {re.match(r"[\w.-]+", requirement)[0] for group in groups for requirement in group}
    assert names - set(locked()) == set()


def test_an_older_snakemake_than_the_package_asks_for_is_refused():
    [asked] = re.findall(r'"snakemake>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert f'min_version("{asked}")' in (ROOT / "Snakefile").read_text()


def test_conda_installs_the_lock_and_the_same_pythons():
    environment = read_yaml((ROOT / "environment.yml").read_text())
    *plain, pip = environment["dependencies"]
    assert pip == {"pip": ["--requirement requirements.lock"]}
    assert f"python {PROJECT['project']['requires-python']}" in plain
    assert environment["channels"] == ["conda-forge"]


def test_make_refuses_an_unsupported_python_and_says_what_to_do(tmp_path):
    old = tmp_path / "python3.10"
    pretend = "import sys; sys.version_info = (3, 10, 0); exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.0 || exec {sys.executable} -c "{pretend}" "$2"\n')
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(["make", "test", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr and "is Python 3.10.0; name another: make PYTHON=" in done.stderr


def test_the_wheel_carries_the_reports_template_and_style(tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True,
                   capture_output=True)
    names = ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    page = {f"restok/reporting/page.{suffix}" for suffix in ("html.j2", "css", "js")}
    assert {"restok/cli/base.py", "restok/reporting/style.mplstyle", *page} <= set(names)
    assert [name for name in names if not name.startswith(("restok/", "restok-"))] == []


def test_shapes_are_checked_while_the_tests_run():
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        rotate(torch.zeros(4), (torch.zeros(2, 2), torch.zeros(2, 2)))


def test_short_is_the_demo_with_fewer_steps():
    demo, short = settings("demo.yaml"), settings("short.yaml")
    assert {key for key in demo if demo[key] != short[key]} <= SHORTER
    last, start = max(short["tokenizer_training.checkpoints"].values()), short["objective.discriminator.start"]
    assert start < last <= 100 < max(demo["tokenizer_training.checkpoints"].values())


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda path: path.name)
def test_a_parameter_file_writes_every_setting_out_in_the_demos_order(path):
    raw, demo = read_yaml(path.read_text()), read_yaml(DEMO.read_text())
    load_params(path)
    if raw["classifier"] is None:
        del raw["classifier"], demo["classifier"]
    assert list(flat(raw)) == list(flat(demo))


def test_the_default_profile_sets_nothing_that_a_machines_own_does():
    """It is read by every call, and stronger than --profile."""
    profiles = {path.parent.name: read_yaml(path.read_text()) for path in (ROOT / "profiles").glob("*/profile.yaml")}
    default = profiles.pop("default")
    assert "workstation" in profiles and not {"resources", "jobs", "cores", "executor", "default-resources"} & default.keys()
    assert not [name for name, profile in profiles.items() if profile.keys() & default.keys()]
