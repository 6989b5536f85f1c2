"""From data to measurements on a chain of tiny, untrained models."""

import json
import logging

import numpy as np
import pytest
import torch
from conftest import small_params
from typer.testing import CliRunner

from restok.cli import app
from restok.config import Guidance
from restok.data.codes import open_codes
from restok.data.sources import open_split, prepare
from restok.files import sha256_file, write_json
from restok.generator.model import HAR
from restok.nn.classifier import SmallClassifier
from restok.stages.codes import encode
from restok.stages.images import Sampler, balanced_labels, reconstruct, sample
from restok.stages.measure import MeasureError, evaluate, score_guidance
from restok.stages.search import SearchError, read_guidance, search_guidance
from restok.tokenizer.model import ResTok
from restok.weights import WeightsError, load_tokenizer, save_model

PARAMS = small_params("evaluation.samples_per_class=3", "guidance_search.samples_per_class=2", "sampling.batch_size=7")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """data, classifier, tokenizer, generator: folders as the commands write them, with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("chain")
    prepare(PARAMS.data, PARAMS.tokenizer.image_size, folder / "data")
    SmallClassifier(10, (4, 8)).save(folder / "classifier")
    generator = HAR(PARAMS.generator)
    torch.nn.init.normal_(generator.head.weight)
    for name, model in (("tokenizer", ResTok(PARAMS.tokenizer)), ("other", ResTok(PARAMS.tokenizer)), ("generator", generator)):
        (folder / name).mkdir()
        save_model(folder / name, model)
    write_json(folder / "generator/metrics.json", {"tokenizer": sha256_file(folder / "tokenizer/model.safetensors")})
    return folder


def test_encode_stores_the_codes_of_every_crop_in_order(chain, tmp_path):
    encode(PARAMS, chain / "data", chain / "tokenizer", tmp_path / "codes", "validation")
    store = open_codes(tmp_path / "codes", sha256_file(chain / "tokenizer/model.safetensors"))
    split = open_split(chain / "data", "validation")
    assert store.codes.shape == (len(split), 5, 16) and (store.labels == split.labels).all()
    assert store.manifest["dataset"] == split.digest
    from restok.data.transforms import crops, to_tensor
    views = to_tensor(crops(split[7][0], 16, PARAMS.codes))
    assert torch.equal(load_tokenizer(chain / "tokenizer").encode(views), torch.from_numpy(store.codes[7].astype(np.int64)))


def test_reconstruct_keeps_codes_and_a_panel_with_every_prefix(chain, tmp_path):
    reconstruct(PARAMS, chain / "data", chain / "tokenizer", tmp_path / "r.npz", tmp_path / "p.npz")
    found, panel = np.load(tmp_path / "r.npz"), np.load(tmp_path / "p.npz")
    assert found["arr_0"].shape == (360, 16, 16, 3) and found["arr_0"].dtype == np.uint8 and found["codes"].shape == (360, 16)
    assert panel["kept"].tolist() == [1, 2, 4, 8, 16] and panel["prefixes"].shape == (8, 5, 16, 16, 3)
    attention = panel["attention"]                                              # layers levels scales; S1 the coarsest
    assert attention.shape == (4, 5, 3)
    assert np.isnan(attention).all(axis=1).astype(int).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    total = np.nansum(attention, axis=2)
    assert (total > 0).all() and (total < 1).all()                              # the rest is paid to latents
    result = evaluate(PARAMS, tmp_path / "r.npz", chain / "data", chain / "classifier", tmp_path / "e.json")
    assert result["protocol"] == "reconstruction" and result["n"] == 360
    assert json.loads((tmp_path / "e.json").read_text()) == result


def test_samples_do_not_depend_on_the_batch_and_are_measured(chain, tmp_path):
    guidance = Guidance(schedule="linear", scale=2.0)
    sample(PARAMS, chain / "tokenizer", chain / "generator", guidance, tmp_path / "s.npz")
    found = np.load(tmp_path / "s.npz")
    assert found["arr_0"].shape == (30, 16, 16, 3) and np.bincount(found["labels"]).tolist() == [3] * 10
    other = small_params("evaluation.samples_per_class=3", "sampling.batch_size=30")
    sample(other, chain / "tokenizer", chain / "generator", guidance, tmp_path / "whole.npz")
    apart = np.abs(np.load(tmp_path / "whole.npz")["arr_0"].astype(int) - found["arr_0"])
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01      # the same codes; a product of another shape rounds otherwise
    result = evaluate(PARAMS, tmp_path / "s.npz", chain / "data", chain / "classifier", tmp_path / "e.json")
    assert result["protocol"] == "generation" and "FD-digits" in result["metrics"] and "FID" not in result["metrics"]


def test_labels_are_balanced_in_every_stretch():
    assert balanced_labels(3, 2).tolist() == [0, 1, 2, 0, 1, 2]


def test_a_generator_refuses_another_tokenizer(chain):
    with pytest.raises(WeightsError, match="trained on codes of tokenizer"):
        Sampler(chain / "other", chain / "generator")


def test_the_search_takes_the_lowest_distance_and_refuses_what_does_not_compare(chain, tmp_path):
    paths = []
    for scale in (1.0, 3.0):
        paths.append(tmp_path / f"{scale}.json")
        score_guidance(PARAMS, Guidance(schedule="constant", scale=scale), chain / "data", chain / "classifier",
                       chain / "tokenizer", chain / "generator", paths[-1])
    rows = [json.loads(path.read_text()) for path in paths]
    result = search_guidance(paths, tmp_path / "chosen.json")
    lowest = min(rows, key=lambda row: row["FD-digits"])
    assert result["chosen"]["scale"] == lowest["scale"] and result["FD-digits"] == lowest["FD-digits"]
    assert read_guidance(tmp_path / "chosen.json").scale == lowest["scale"]
    assert [row["n"] for row in result["candidates"]] == [20, 20]
    rows[1]["reference"]["digest"] = "another"
    paths[1].write_text(json.dumps(rows[1]))
    with pytest.raises(SearchError, match=r"3\.0\.json: its reference differ"):
        search_guidance(paths, tmp_path / "chosen.json")


def test_images_that_cannot_be_measured_are_refused_by_name(chain, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(MeasureError, match=r"broken\.npz: not a readable npz"):
        evaluate(PARAMS, tmp_path / "broken.npz", chain / "data", chain / "classifier", tmp_path / "e.json")
    np.savez(tmp_path / "unnamed.npz", images=np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(MeasureError, match="has no 'arr_0'"):
        evaluate(PARAMS, tmp_path / "unnamed.npz", chain / "data", chain / "classifier", tmp_path / "e.json")
    assert not (tmp_path / "e.json").exists()


@pytest.fixture
def command():
    """Runs `restok`; the handlers that it gives the root logger go with the test."""
    before = logging.getLogger().handlers[:]
    yield lambda *words: CliRunner().invoke(app, list(words))
    logging.getLogger().handlers[:] = before


def test_errors_of_the_command_are_one_message(command, tmp_path):
    result = command("prepare", "--params", "params/demo.yaml", "--out", str(tmp_path / "d"), "--set", "tokenizer.widht=3")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "did you mean 'width'?" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "d").exists()


def test_every_verb_says_what_it_does(command):
    verbs = [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands]
    assert len(verbs) == 14
    for verb in verbs:
        result = command(verb, "--help")
        assert result.exit_code == 0 and verb in result.stdout and "--" in result.stdout
