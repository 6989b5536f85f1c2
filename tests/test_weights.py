"""Trained networks on disk: in files that others may read, tied to their settings, refused by name where they are not sound."""

import json
import os
import shutil

import pytest
import torch
from conftest import small_params
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from restok import compat
from restok.config import Tokenizer
from restok.config.load import ConfigError
from restok.files import FileError
from restok.generator.model import HAR
from restok.metrics.statistics import Statistics
from restok.networks.backbone import VisionTransformer
from restok.networks.classifier import load_classifier
from restok.networks.pretrained import read_tensors
from restok.networks.saved import WeightsError, load_network, write_tensors
from restok.nn.finite import NotFiniteError, not_finite
from restok.tokenizer.model import ResTok
from restok.training.state import load_state
from restok.weights import load_generator, load_tokenizer, save_model


@pytest.fixture
def saved(models, tmp_path):
    """A folder with a tokenizer, to break."""
    return shutil.copytree(models / "tokenizer", tmp_path / "tokenizer")


def change(folder, **changed):
    """The weights with some tensors changed, and what they carry."""
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file(load_file(path) | changed, path, about)


def test_files_have_the_mode_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(2)})
        save_model(tmp_path / "model", HAR(small_params().generator))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a.safetensors", *(tmp_path / "model").iterdir())}
    assert modes == {"a.safetensors": 0o640, "model.safetensors": 0o640, "config.json": 0o640}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused_by_name_where_they_are_read_and_where_they_are_saved(saved, tmp_path, value):
    table = load_file(saved / "model.safetensors")["quantizer.codebook"]
    table[3, 1] = value
    change(saved, **{"quantizer.codebook": table})
    with pytest.raises(WeightsError, match=r"tokenizer/model\.safetensors: quantizer\.codebook holds NaN or infinity; run"):
        load_tokenizer(saved)
    model = ResTok(small_params().tokenizer)
    with torch.no_grad():
        model.encoder.heads[2].bias[0] = value
    with pytest.raises(NotFiniteError, match=r"encoder\.heads\.2\.bias holds NaN or infinity, so the ResTok is not saved"):
        save_model(tmp_path / "new", model)
    assert not (tmp_path / "new").exists()


def test_the_check_sees_one_value_in_any_precision_and_nothing_where_there_is_none():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        sound, broken = torch.full((5, 3), torch.finfo(dtype).max, dtype=dtype), torch.zeros(5, 3, dtype=dtype)
        broken[4, 0] = -torch.inf
        assert not_finite({"sound": sound, "broken": broken, "none": broken[:0], "steps": torch.tensor(3)}) == ["broken"]
    assert not_finite({"a": torch.empty(2, device="meta")}) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_arrive_in_the_networks_own(saved, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(saved / "model.safetensors").items()}
    change(saved, **tensors)
    loaded = load_tokenizer(saved)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, tensors[name].float()), name
    loaded.encode(torch.rand(1, 3, 16, 16))


def test_whole_numbers_are_no_weights(saved):
    change(saved, **{"quantizer.codebook": torch.zeros(64, 4, dtype=torch.int8)})
    with pytest.raises(WeightsError, match=r"model\.safetensors: does not fit .*first at 'quantizer\.codebook'"):
        load_tokenizer(saved)


@pytest.mark.parametrize("changed", [{"rope_base": 500}, {"latent_init": "pooled"}, {"merge": "nearest"}])
def test_settings_of_another_model_of_the_same_shapes_are_refused(saved, changed):
    settings = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(settings | changed))
    message = r"tokenizer/model\.safetensors: does not belong to .*tokenizer/config\.json.*put the config\.json back.*`restok"
    with pytest.raises(WeightsError, match=message):
        load_tokenizer(saved)
    (saved / "config.json").write_text(json.dumps(dict(reversed(settings.items())), indent=7))       # laid out otherwise
    load_tokenizer(saved)


def test_weights_of_earlier_versions_carry_no_digest_and_load(saved):
    tensors = load_file(saved / "model.safetensors")
    save_file(tensors, saved / "model.safetensors")
    assert torch.equal(load_tokenizer(saved).quantizer.codebook, tensors["quantizer.codebook"])


@pytest.mark.parametrize(("content", "error", "message"), [
    (b"", FileError, r"config\.json: not valid JSON"), (b'{"image_size": 16, ', FileError, r"config\.json: not valid JSON"),
    (b"\xff\xfe{", FileError, r"config\.json: not valid JSON"), (b"[" * 100_000, FileError, r"config\.json: not valid JSON"),
    (b"[]", ConfigError, r"config\.json: .*object"), (b"null", ConfigError, r"config\.json: .*object"),
    (b"NaN", ConfigError, r"config\.json: .*object"), (b'{"width": "32"}', ConfigError, r"config\.json: width: .*'32'"),
    ({"width": 2 ** 40}, ConfigError, r"config\.json: width: .*found 1099511627776.*train-tokenizer")])
def test_settings_that_are_none_are_one_message(saved, content, error, message):
    if isinstance(content, dict):
        content = json.dumps(json.loads((saved / "config.json").read_text()) | content).encode()
    (saved / "config.json").write_bytes(content)
    with pytest.raises(error, match=message):
        load_tokenizer(saved)


def test_sizes_beyond_all_memory_are_one_message(saved):
    with pytest.raises(ConfigError, match=r"config\.json: no model of these sizes can be made \(.*; run `restok x` again"):
        load_network(saved, Tokenizer, lambda settings: torch.nn.Linear(2 ** 40, 2 ** 40), "model", "restok x")


@pytest.mark.parametrize("load", ["tokenizer", "generator", "classifier"])
@pytest.mark.parametrize("content", [b"", b"short", b"{}", b"\xff" * 99, 0.5])
def test_weights_that_are_none_or_cut_short_are_one_message(models, classifier, tmp_path, load, content):
    folder = shutil.copytree(classifier if load == "classifier" else models / load, tmp_path / load)
    weights = folder / "model.safetensors"
    if content == 0.5:
        os.truncate(weights, weights.stat().st_size // 2)
    else:
        weights.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{load}/model\.safetensors: damaged or cut short .*delete .*restok train-{load}"):
        {"tokenizer": load_tokenizer, "generator": load_generator, "classifier": load_classifier}[load](folder)


@pytest.fixture
def locked(monkeypatch):
    """Makes a file one that this user may not open, as the root user of a container always may."""
    def lock(path):
        def denied(name, *more, **others):
            if str(name) == str(path):
                raise PermissionError(13, "Permission denied", str(name))
            return opened(name, *more, **others)

        opened = open
        monkeypatch.setattr("builtins.open", denied)
        path.write_bytes(b"as good as unreadable")
        return path

    return lock


READERS = {"model.safetensors": lambda path: load_tokenizer(path.parent), "a.pth": read_tensors, "state_3.pt": load_state,
           "timm.safetensors": lambda path: VisionTransformer("vit_tiny_patch16_224", str(path)),
           "sums.safetensors": Statistics.load, "released.pt": compat.read_weights}


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_may_not_be_read_is_not_called_damaged(saved, locked, name):
    with pytest.raises(ValueError, match=rf"{name}: cannot be read \(Permission denied\)") as error:
        READERS[name](locked(saved / name))
    assert not any(word in str(error.value) for word in ("damaged", "delete", "download", "again"))


@pytest.mark.parametrize("name", [name for name in READERS if name != "timm.safetensors"])
def test_a_folder_in_the_place_of_a_file_is_not_called_damaged(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"Is a directory|no model here|no such file") as error:
        READERS[name](tmp_path / name)
    assert "damaged" not in str(error.value) and "delete" not in str(error.value)


def test_pretrained_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    torch.save({"features.0.weight": torch.ones(2), "features.0.bias": torch.tensor([1, torch.nan])}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: features\.0\.bias holds NaN or infinity; download it again"):
        read_tensors(tmp_path / "a.pth")


def test_a_vision_transformer_that_is_not_there_names_what_brings_it_address_place_and_licence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = (r"vit_small_patch16_224\.dino are not there; run `restok fetch`.*download https://huggingface\.co/timm/"
               rf"vit_small_patch16_224\.dino \(licence: apache-2\.0\).*under `weights`; they are looked for in {tmp_path}")
    with pytest.raises(FileNotFoundError, match=message):
        VisionTransformer("vit_small_patch16_224.dino", None)
