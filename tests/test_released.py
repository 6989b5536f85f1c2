"""restok convert: the authors' files, as training leaves them, become folders that every verb reads, and files again."""

import argparse
import json

import numpy as np
import pytest
import torch
from conftest import small_params
from PIL import Image
from safetensors.torch import load_file, save_file

from restok import compat
from restok.files import read_json, sha256_file
from restok.generator.model import HAR
from restok.networks.saved import WeightsError
from restok.stages.released import to_release
from restok.stages.sampler import Sampler
from restok.tokenizer.model import ResTok
from restok.weights import load_generator, load_tokenizer, save_model

SHAPED = {"codebook_size": 64, "token_size": 8, "vit_enc_model_size": "small", "vit_dec_model_size": "small",
         "merge_tokens": True, "hierarchy_stages": 2, "num_latent_tokens": 128, "latent_hierarchy": True}
TOKENIZER, _ = compat.complete_tokenizer_settings({"quantize.embedding.weight": torch.empty(64, 8),
                                                   "encoder.ln_pre.weight": torch.empty(512)}, SHAPED)
GENERATOR = {"n_layer": 2, "n_head": 2, "dim": 128, "vocab_size": 64, "block_size": 128, "num_classes": 10, "cls_token_num": 1,
             "model_type": "c2i", "resid_dropout_p": 0.1, "ffn_dropout_p": 0.1, "token_dropout_p": 0.1,
             "class_dropout_prob": 0.1, "ar_token_num": 1, "spe_token_num": 127}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A training checkpoint of a tokenizer, its configuration beside it, and a hub's folder of a generator: random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("theirs")
    tensors = compat.released_tensors(ResTok(compat.tokenizer_config(TOKENIZER)))
    trained = {f"_orig_mod.{name}": torch.empty(tensor.shape).expand(tensor.shape) for name, tensor in tensors.items()
               if name.startswith("quantize")}
    averaged = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
    averaged |= {"_orig_mod.vf_proj.weight": torch.zeros(2, 2, 1, 1), "foundation_model.norm.weight": torch.zeros(2)}
    torch.save({"model": trained, "ema": averaged, "steps": 7, "args": argparse.Namespace(lr=1e-4)}, folder / "750k.pt")
    (folder / "config.json").write_text(json.dumps({"model": {"vq_model": TOKENIZER}}))
    (folder / "hub").mkdir()
    generator = HAR(compat.generator_config(GENERATOR))
    torch.nn.init.normal_(generator.head.weight, std=0.3)
    save_file({f"module.{name}": tensor for name, tensor in compat.released_tensors(generator).items()},
              folder / "hub/model.safetensors")
    (folder / "hub/config.json").write_text(json.dumps(GENERATOR))
    return folder


@pytest.fixture(scope="module")
def ours(theirs, command, tmp_path_factory):
    """What `restok convert --from release` made of it, and what it said."""
    out = tmp_path_factory.mktemp("ours") / "out"
    result = command("convert", "--from", "release", theirs / "750k.pt", theirs / "hub", out)
    assert result.exit_code == 0, result.stderr
    return out, result.stderr


def test_a_checkpoint_and_a_hubs_folder_become_folders_of_ours(theirs, ours):
    folder, said = ours
    tokenizer, generator = (read_json(folder / kind / "metrics.json") for kind in ("tokenizer", "generator"))
    assert tokenizer["source"]["file"] == "750k.pt" and tokenizer["source"]["sha256"] == sha256_file(theirs / "750k.pt")
    assert (tokenizer["source"]["key"], tokenizer["source"]["settings"], tokenizer["step"]) == ("ema", "config.json", None)
    assert tokenizer["parameters"] == sum(p.numel() for p in load_tokenizer(folder / "tokenizer").parameters())
    assert generator["tokenizer"] == sha256_file(folder / "tokenizer/model.safetensors") and generator["sampling_steps"] == 8
    assert generator["source"]["assumed"] == {} and load_generator(folder / "generator").config.ntp == 1
    assert "from 750k.pt, ema" in said and "settings: config.json" in said
    Sampler(folder / "tokenizer", folder / "generator", small_params().sampling)


def test_every_tensor_came_along_and_goes_back(theirs, ours, command, tmp_path):
    folder, _ = ours
    result = command("convert", "--to", "release", folder / "tokenizer", folder / "generator", tmp_path / "back")
    assert result.exit_code == 0, result.stderr
    first = {"tokenizer": torch.load(theirs / "750k.pt", weights_only=False)["ema"],
             "generator": load_file(theirs / "hub/model.safetensors")}
    for kind, settings in (("tokenizer", TOKENIZER), ("generator", GENERATOR)):
        back = load_file(tmp_path / f"back/{kind}.safetensors")
        wanted = {name.partition(".")[2]: tensor for name, tensor in first[kind].items() if "vf_proj" not in name
                  and "foundation" not in name}
        assert back.keys() == wanted.keys()
        assert all(torch.equal(back[name], tensor) and back[name].shape == tensor.shape for name, tensor in wanted.items())
        written = read_json(tmp_path / f"back/{kind}.json")
        assert settings.items() <= written.items()
    result = command("convert", "--from", "release", tmp_path / "back/tokenizer.safetensors",
                     tmp_path / "back/generator.safetensors", tmp_path / "again")
    assert result.exit_code == 0, result.stderr
    for kind in ("tokenizer", "generator"):
        for name in ("model.safetensors", "config.json"):
            assert sha256_file(tmp_path / "again" / kind / name) == sha256_file(folder / kind / name), (kind, name)


def test_samples_and_reconstructions_need_no_parameter_file(ours, command, tmp_path):
    """On a CPU, at the release's size of images: an image of a class, then the image through the tokenizer."""
    models = ["--tokenizer", ours[0] / "tokenizer"]
    result = command("sample", *models, "--generator", ours[0] / "generator", "--class", 3, "--count", 1, "--out",
                     tmp_path / "a.png")
    assert result.exit_code == 0, result.stderr
    assert Image.open(tmp_path / "a.png").size == (256, 256)
    result = command("reconstruct", tmp_path / "a.png", *models, "--keep", 4, "--out", tmp_path / "r.png")
    assert result.exit_code == 0 and "a: " in result.stderr and " dB" in result.stderr
    assert Image.open(tmp_path / "r.png").size == (256 + 4, 2 * 256 + 6)                    # with 2 pixels between


def test_the_class_is_lost_where_the_parameters_say_so(ours):
    """A generator with ntp 1: its codes differ by class_cache, their first tokens do not."""
    drawn, kept = [], small_params().sampling
    for cache in ("kept", "overwritten"):
        sampler = Sampler(ours[0] / "tokenizer", ours[0] / "generator", kept.model_copy(update={"class_cache": cache}))
        sampler.tokenizer.decode = lambda codes: drawn.append(codes) or torch.zeros(len(codes), 3, 2, 2)
        list(sampler.batches(None, np.array([1, 8]), seed=0, size=2))
    assert torch.equal(drawn[0][:, 0], drawn[1][:, 0]) and not torch.equal(*drawn)


def test_a_tokenizer_alone_without_a_configuration_is_inferred_and_says_what_is_assumed(theirs, command, tmp_path):
    tensors = torch.load(theirs / "750k.pt", weights_only=False)["ema"]
    (tmp_path / "alone").mkdir()
    torch.save({"state_dict": tensors}, tmp_path / "alone/pytorch_model.bin")
    result = command("convert", "--from", "release", tmp_path / "alone", "-", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tokenizer"]
    assert "settings: none found" in result.stderr and "num_min_tokens 4, drop_prob 0.2" in result.stderr
    config = load_tokenizer(tmp_path / "out/tokenizer").config
    assert config == compat.tokenizer_config(TOKENIZER) and config.scales == 2 and config.latents == 128


def test_a_configuration_named_goes_before_the_one_beside(theirs, command, tmp_path):
    (tmp_path / "other.yaml").write_text("generator:\n  n_layer: 3\n  note: not theirs\n")
    result = command("convert", "--from", "release", theirs / "750k.pt", theirs / "hub", tmp_path / "out", "--generator-config",
                     tmp_path / "other.yaml")
    assert result.exit_code == 1 and "missing: layers.2.attention.wqkv.weight" in result.stderr
    assert "model.safetensors: released weights do not fit" in result.stderr and not (tmp_path / "out").exists()
    (tmp_path / "other.yaml").write_text("learning_rate: 1e-4")
    result = command("convert", "--from", "release", theirs / "750k.pt", theirs / "hub", tmp_path / "out", "--generator-config",
                     tmp_path / "other.yaml")
    assert result.exit_code == 1 and "other.yaml: holds no configuration of a released generator" in result.stderr


class Harmful:
    """Unpickled with code allowed, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.pt", "harmful", "not a checkpoint of tensors"), ("a.pt", {"steps": 3}, "no tensors by name"),
    ("a.safetensors", b"short", "damaged or cut short"), ("a.pth", b"short", "damaged or cut short"),
    ("a.txt", b"", "expected .safetensors"), ("a.pt", None, "cannot be read"), ("folder", None, "check the path")])
def test_files_that_hold_no_weights_are_refused_by_name(tmp_path, name, content, message):
    if content == "harmful":
        torch.save({"model": Harmful(tmp_path / "harm")}, tmp_path / name)
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(compat.ReleasedWeightsError, match=message) as error:
        compat.read_weights(tmp_path / name)
    assert name in str(error.value) and not (tmp_path / "harm").exists()


def test_a_folder_with_two_files_of_weights_is_ambiguous(tmp_path):
    for name in ("250k.pt", "750k.pt"):
        (tmp_path / name).touch()
    with pytest.raises(compat.ReleasedWeightsError, match=r"found 250k\.pt, 750k\.pt; name the file itself"):
        compat.files.weights_file(tmp_path)
    (tmp_path / "model.safetensors").touch()                                      # hubs keep both forms
    assert compat.files.weights_file(tmp_path).name == "model.safetensors"


@pytest.mark.parametrize("direction", [[], ["--from", "release", "--to", "release"], ["--from", "llamagen"],
                                       ["--to", "release", "--tokenizer-config", "c.json"],
                                       ["--from", "release", "--generator-config", "c.json"]])
def test_a_call_has_one_direction(command, tmp_path, direction):
    result = command("convert", *direction, tmp_path / "t", "-", tmp_path / "out")
    assert result.exit_code == 1 and "error: ConfigError" in result.stderr


def test_a_folder_that_holds_what_is_converted_is_not_replaced(theirs, command):
    result = command("convert", "--from", "release", theirs / "750k.pt", "-", theirs)
    assert result.exit_code == 1 and "would be replaced whole, and holds" in result.stderr and (theirs / "750k.pt").exists()


def test_settings_are_inputs_too(theirs, command, tmp_path):
    settings = tmp_path / "out/tokenizer/config.json"                              # of a name that is written there
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(TOKENIZER))
    result = command("convert", "--from", "release", theirs / "750k.pt", "-", tmp_path / "out", "--tokenizer-config", settings)
    assert result.exit_code == 1 and f"would be replaced whole, and holds {settings};" in result.stderr and settings.exists()


@pytest.mark.parametrize("held", ["thesis.tex", "tokenizer/250k/model.safetensors", "generator.safetensors", ".git/HEAD", None])
def test_a_folder_that_holds_anything_else_is_not_replaced_by_ours(theirs, command, tmp_path, held):
    """But what was written before is."""
    old = tmp_path / "out/tokenizer/model.safetensors"
    for path in (old, tmp_path / "out" / (held or "tokenizer/config.json")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    result = command("convert", "--from", "release", theirs / "750k.pt", "-", tmp_path / "out")
    if held:
        assert result.exit_code == 1 and "would be replaced whole, and holds" in result.stderr and old.read_text() == "old"
    else:
        assert result.exit_code == 0 and load_tokenizer(old.parent).config.latents == 128


def test_a_file_is_not_replaced_by_a_folder(theirs, command, tmp_path):
    (tmp_path / "g.safetensors").write_text("old")
    result = command("convert", "--from", "release", theirs / "750k.pt", "-", tmp_path / "g.safetensors")
    assert result.exit_code == 1 and "g.safetensors: is a file; name a folder" in result.stderr
    assert (tmp_path / "g.safetensors").read_text() == "old"


def test_a_folder_that_holds_anything_else_is_not_replaced_by_theirs(ours, command, tmp_path):
    arguments = ["convert", "--to", "release", ours[0] / "tokenizer", "-", tmp_path / "out"]
    for _ in range(2):
        assert command(*arguments).exit_code == 0
    (tmp_path / "out/tokenizer").mkdir()                                           # as the other direction names it
    result = command(*arguments)
    assert result.exit_code == 1 and "would be replaced whole, and holds" in result.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"tokenizer", "tokenizer.json", "tokenizer.safetensors"}


def test_a_pair_that_was_not_trained_together_is_refused(theirs, ours, command, tmp_path):
    other = HAR(compat.generator_config(GENERATOR | {"vocab_size": 32}))
    save_file(compat.released_tensors(other), tmp_path / "g.safetensors")
    result = command("convert", "--from", "release", theirs / "750k.pt", tmp_path / "g.safetensors", tmp_path / "out")
    assert result.exit_code == 1 and "draws 128 codes of 32, but" in result.stderr
    generator = tmp_path / "generator"
    generator.mkdir()
    save_model(generator, other)
    (generator / "metrics.json").write_text('{"tokenizer": "of another"}')
    with pytest.raises(WeightsError, match="trained on codes of tokenizer of another"):
        to_release(ours[0] / "tokenizer", generator, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_their_code_cannot_express_is_refused_before_anything_is_written(ours, command, tmp_path):
    model = load_tokenizer(ours[0] / "tokenizer")
    (tmp_path / "t").mkdir()
    model.config = model.config.model_copy(update={"latent_layout": "tokens"})
    save_model(tmp_path / "t", model)
    result = command("convert", "--to", "release", tmp_path / "t", "-", tmp_path / "out")
    assert result.exit_code == 1 and "latent_layout 'tokens': it always re-reads" in result.stderr
    assert not (tmp_path / "out").exists()


# Weights as hubs and trainers keep them.


def tensors_of(theirs):
    return {name.removeprefix("module."): tensor for name, tensor in load_file(theirs / "hub/model.safetensors").items()}


def write_shards(folder, tensors, suffix=".safetensors"):
    """Two files and their index, as hubs split weights."""
    name = {".safetensors": "model", ".bin": "pytorch_model"}[suffix]
    listed = {key: f"{name}-0000{1 + number % 2}-of-00002{suffix}" for number, key in enumerate(sorted(tensors))}
    for shard in set(listed.values()):
        part = {key: tensor for key, tensor in tensors.items() if listed[key] == shard}
        save_file(part, folder / shard) if suffix == ".safetensors" else torch.save(part, folder / shard)
    index = folder / f"{name}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": listed}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_in_several_files_are_read_by_their_index_and_recorded(theirs, ours, command, tmp_path, suffix):
    hub = tmp_path / "hub"
    hub.mkdir()
    index = write_shards(hub, {f"module.{name}": tensor for name, tensor in tensors_of(theirs).items()}, suffix)
    (hub / "config.json").write_text(json.dumps(GENERATOR))
    for number, named in enumerate((hub, index)):
        out = tmp_path / f"out{number}"
        result = command("convert", "--from", "release", theirs / "750k.pt", named, out)
        assert result.exit_code == 0, result.stderr
        assert sha256_file(out / "generator/model.safetensors") == sha256_file(ours[0] / "generator/model.safetensors")
        source = read_json(out / "generator/metrics.json")["source"]
        assert source["shards"] == {path.name: sha256_file(path) for path in hub.glob("*-of-*")} and len(source["shards"]) == 2
        assert (source["file"], source["settings"]) == (index.name, "config.json")


def test_a_part_of_a_model_a_part_that_is_missing_and_an_index_that_is_none_are_named(theirs, tmp_path):
    index = write_shards(tmp_path, tensors_of(theirs))
    first, second = sorted(tmp_path.glob("*-of-*"))
    with pytest.raises(compat.ReleasedWeightsError, match=r"00001-of-00002\.safetensors: holds a part of a model; name the"):
        compat.read_weights(first)
    save_file({"norm.weight": torch.ones(128)}, second)
    with pytest.raises(compat.ReleasedWeightsError, match=r"index\.json: \S+ is not in model-0000[12]-of-00002\.safetensors"):
        compat.read_weights(index)
    second.unlink()
    with pytest.raises(compat.ReleasedWeightsError, match=r"lists model-00002-of-00002\.safetensors, not .*; download all 2"):
        compat.read_weights(compat.files.weights_file(tmp_path))
    for listed in ("{}", '{"a": 3}', '{"a": "../a.safetensors"}', "[]", ""):
        index.write_text(listed and f'{{"weight_map": {listed}}}')
        with pytest.raises(compat.ReleasedWeightsError, match=r"index\.json: not an index of weights in several files"):
            compat.read_weights(index)
    index.unlink()
    save_file({"norm.weight": torch.ones(128)}, second)
    with pytest.raises(compat.ReleasedWeightsError, match=r"found model-00001-of-.*; add the \.index\.json that came with"):
        compat.files.weights_file(tmp_path)


def checkpoint(folder, tree):
    torch.save(tree, folder / "checkpoint.pt")
    return compat.read_weights(folder / "checkpoint.pt")


@pytest.mark.parametrize(("nest", "key"), [
    (lambda t: {"ema": {}, "model": t}, "model"), (lambda t: {"ema": None, "model": t}, "model"),
    (lambda t: {"ema": {"decay": 0.9}, "model": t}, "model"),
    (lambda t: {"ema": {"decay": 0.9, "shadow": t}, "model": {}}, "ema.shadow"),
    (lambda t: {"model": {}, "model_ema": t}, "model_ema"), (lambda t: {"state_dict": {1: 2} | t, 3: 4}, "state_dict"),
    (lambda t: {"ema": {f"module.{name}": x for name, x in t.items()} | {"n_averaged": torch.tensor(3)}}, "ema"),
    (lambda t: t | {"n_averaged": torch.tensor(3)}, None)])
def test_averages_are_taken_where_there_are_some(theirs, tmp_path, nest, key):
    tensors = tensors_of(theirs)
    found, taken = checkpoint(tmp_path, nest(tensors))
    assert taken == key
    model = compat.load_released_generator(found, GENERATOR)
    assert torch.equal(model.head.weight, tensors["output.weight"])


@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
def test_averages_without_names_and_tensors_without_values_are_not_passed_over(theirs, tmp_path):
    tensors = tensors_of(theirs)
    message = r"checkpoint\.pt: 'ema' holds tensors without names, as averages are kept \(shadow_params\); save the state dict"
    for average in ({"decay": 0.9, "shadow_params": list(tensors.values())}, list(tensors.values())):
        with pytest.raises(compat.ReleasedWeightsError, match=message):
            checkpoint(tmp_path, {"model": tensors, "ema": average})
    for odd in (tensors["output.weight"].to_sparse(), tensors["output.weight"].to("meta")):
        with pytest.raises(compat.ReleasedWeightsError, match=r"output\.weight is sparse, or without values; save dense"):
            checkpoint(tmp_path, tensors | {"output.weight": odd})
    loop = {"steps": 3}
    loop["ema"] = loop
    with pytest.raises(compat.ReleasedWeightsError, match="no tensors by name, neither at its top"):
        checkpoint(tmp_path, loop)


@pytest.mark.parametrize(("broken", "message"), [
    (lambda x: x * torch.nan, r"NaN or infinity in output\.weight; take those of another step"),
    (lambda x: (x + 1e5).half(), r"NaN or infinity in output\.weight"), (lambda x: x.double() * 1e300, "NaN or infinity"),
    (lambda x: x.to(torch.int8), r"type: output\.weight is torch\.int8, expected floating point"),
    (lambda x: x.to(torch.complex64), r"type: output\.weight is torch\.complex64")])
def test_released_weights_that_are_not_finite_numbers_are_refused_by_name(theirs, command, tmp_path, broken, message):
    tensors = tensors_of(theirs)
    torch.save(tensors | {"output.weight": broken(tensors["output.weight"])}, tmp_path / "g.pt")
    (tmp_path / "g.json").write_text(json.dumps(GENERATOR))
    result = command("convert", "--from", "release", theirs / "750k.pt", tmp_path / "g.pt", tmp_path / "out")
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    with pytest.raises(compat.ReleasedWeightsError, match=message):
        compat.load_released_generator(*(compat.read_weights(tmp_path / "g.pt")[:1]), GENERATOR)
    assert "g.pt: " in result.stderr and "output.weight" in result.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_to_float32(theirs, command, tmp_path, dtype):
    halves = {name: tensor.to(dtype) for name, tensor in tensors_of(theirs).items()}
    save_file(halves, tmp_path / "g.safetensors")
    (tmp_path / "g.json").write_text("# Größe\n" + json.dumps(GENERATOR), "utf-8")
    result = command("convert", "--from", "release", theirs / "750k.pt", tmp_path / "g.safetensors", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert torch.equal(load_generator(tmp_path / "out/generator").head.weight, halves["output.weight"].float())


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: &a [*a", b"{", b"[" * 5000, b"vit: &v {x: *v}"])
def test_a_configuration_that_cannot_be_read_is_named(theirs, tmp_path, content):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(compat.ReleasedWeightsError, match=r"c\.json: "):
        compat.read_settings("generator", theirs / "hub/model.safetensors", tmp_path / "c.json")
