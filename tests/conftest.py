"""Small configurations, models and files that the tests share, derived from the parameter files themselves."""

# ruff: noqa: E402
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import jaxtyping

ROOT = Path(__file__).parent.parent
os.environ["RESTOK_TRACKING"] = "off"              # what the tests of MLflow take back: others start no mirror of their own
# Every call of what handles tensors and arrays checks its annotations, shapes among them, where an int is a float too, as
# Python's typing has it. Of a list one element is checked, drawn from `random`, which `_repeatable` seeds.
SHAPED = ("compat", "data", "generator", "metrics", "networks", "nn", "objective", "reporting.figures", "stages", "tokenizer",
          "training")
jaxtyping.install_import_hook([f"restok.{part}" for part in SHAPED],
                              "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import numpy as np
import pytest
import slurm_cluster
import torch
import warm
from click.testing import Result
from reporting_fixtures import experiments, numbers, write_experiments, write_run
from typer.testing import CliRunner

from restok.cli import app
from restok.config import Params
from restok.config.load import load_params
from restok.data.codes import write_codes
from restok.data.prepare import prepare
from restok.files import sha256_file, write_json
from restok.generator.model import HAR
from restok.networks.classifier import SmallClassifier
from restok.tokenizer.model import ResTok
from restok.weights import save_model

SMALL = ["tokenizer.image_size=16", "tokenizer.cnn.channels=8", "tokenizer.cnn.multipliers=[1,1,2]", "tokenizer.cnn.blocks=1",
         "tokenizer.cnn.groups=4", "tokenizer.cnn.latent_channels=8", "tokenizer.width=32", "tokenizer.heads=2",
         "tokenizer.encoder_layers=4", "tokenizer.decoder_layers=2", "tokenizer.latents=16", "tokenizer.scales=3",
         "tokenizer.codebook_size=64", "tokenizer.codebook_dim=4", "tokenizer.keep_minimum=4",
         "generator.codebook_size=64", "generator.tokens=16", "generator.width=32", "generator.layers=2", "generator.heads=2",
         "generator.hidden=64", "generator.classes=10"]


def small_params(*overrides: str) -> Params:
    """The demo's parameters with models small enough for a test."""
    last = {override.partition("=")[0]: override for override in (*SMALL, *overrides)}     # of two for one key
    return load_params(ROOT / "params/demo.yaml", last.values())


def held(folder: Path) -> dict[str, bytes]:
    """What a folder holds, but for how its manifest says that it was made, and where its inputs lay."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
             if path.is_file() and path.name != ".snakemake_timestamp"}
    manifests, aside = [name for name in files if name.endswith("manifest.json")], {"made": None, "paths": None}
    return files | {name: json.dumps(json.loads(files[name]) | aside).encode() for name in manifests}


@contextmanager
def untouched(*folders: Path) -> Iterator[None]:
    """What all tests share fails where one of them writes into it."""
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for folder in folders for path in (folder, *folder.rglob("*"))}

    before = times()
    yield
    assert times() == before, "a test changed what all share"


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """The folder of `digits`, `classifier` and `models`."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def digits(shared) -> Iterator[Path]:
    """The embedded digits, prepared."""
    prepare(small_params().data, 16, shared / "data")
    with untouched(shared / "data"):
        yield shared / "data"


@pytest.fixture(scope="session")
def classifier(shared) -> Iterator[Path]:
    """A small classifier of the digits, with random weights that keep the size of what passes."""
    torch.manual_seed(0)
    network = SmallClassifier(10, (4, 8, 8))
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    network.save(shared / "classifier")
    with untouched(shared / "classifier"):
        yield shared / "classifier"


@pytest.fixture(scope="session")
def models(shared) -> Iterator[Path]:
    """The folder of a tokenizer and a generator of its codes, as training leaves them, with random weights."""
    torch.manual_seed(0)
    params = small_params()
    generator = HAR(params.generator)
    torch.nn.init.normal_(generator.head.weight)
    for name, model in (("tokenizer", ResTok(params.tokenizer)), ("generator", generator)):
        (shared / name).mkdir()
        save_model(shared / name, model)
    write_json(shared / "generator/metrics.json", {"tokenizer": sha256_file(shared / "tokenizer/model.safetensors")})
    with untouched(shared / "tokenizer", shared / "generator"):
        yield shared


@pytest.fixture(scope="session")
def codes(shared) -> Iterator[Path]:
    """A store of random codes, beside the tokenizer it says it is of: only the hash of the weights counts."""
    rng, folder = np.random.default_rng(0), shared / "codes"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    write_codes(folder / "store", [(rng.integers(64, size=(12, 2, 16)), np.arange(12) % 10)], 12, 2, 16, 64, 10,
                sha256_file(folder / "model.safetensors"), "dataset")
    with untouched(folder):
        yield folder / "store"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[None]:
    """A cluster on this machine: the one of ours that runs, or one for these tests."""
    if reason := slurm_cluster.why_not():
        pytest.skip(reason)
    with nullcontext() if slurm_cluster.running() else slurm_cluster.cluster(tmp_path_factory.mktemp("slurm") / "cluster"):
        yield


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site of docs/, made as `make docs` makes it: what MkDocs would warn of is an error."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    """All that the reports of a run with three checkpoints are made from."""
    return write_run(tmp_path / "results" / "imagenet256")


@pytest.fixture
def results(tmp_path) -> Path:
    """What the demo's run and its ablations, of two seeds each, leave."""
    return write_experiments(tmp_path / "results" / "demo", experiments(), numbers)


@pytest.fixture(scope="session")
def command() -> Callable[..., Result]:
    """Runs `restok`; the handlers that it gives the root logger go with the call."""
    def run(*words: object) -> Result:
        before = logging.getLogger().handlers[:]
        result = CliRunner().invoke(app, [str(word) for word in words])
        logging.getLogger().handlers[:] = before
        return result

    return run


@pytest.fixture
def small_files() -> Callable:
    """A block in which no file may be longer than so many bytes: to what writes one, a full disk."""
    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def workflow(tmp_path) -> Path:
    """The workflow in a folder of its own, without results."""
    folder = tmp_path / "clone"
    for name in ("workflow", "profiles", "params"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Snakefile", "run.yaml", "environment.yml"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


def dry_run(workflow: Path, *arguments: str, fails: bool = False) -> str:
    done = warm.snakemake(workflow, "--cores", "1", "--dry-run", *arguments)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(autouse=True)
def _repeatable():
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The package without the checks of its annotations: what it refuses itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def picture(mask) -> str:
    """A Bool matrix as ASCII: # attends, . does not."""
    return "\n".join("".join("#" if x else "." for x in row) for row in mask.tolist())
