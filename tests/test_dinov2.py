"""DINOv2 as a judge: torch-fidelity's features and distances, on networks with random weights; Meta's file, as it is read."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torch_fidelity
from conftest import ROOT
from PIL import Image
from torch_fidelity.utils import create_feature_extractor

from restok.config.load import load_protocol
from restok.data.images import open_images
from restok.metrics import features
from restok.metrics.features import JUDGES, judging, load_features, random_features
from restok.networks.dinov2 import DEVIATION, MEAN, NETWORK, DINOv2, dinov2_network, load_dinov2, positions
from restok.stages.evaluator import Evaluator
from restok.stages.measure import evaluate
from restok.stages.subjects import images_of

SMALL, THEIRS = "vit_small_patch14_dinov2", "dinov2-vit-s-14"
CPU = torch.device("cpu")


def pictures(n, seed=0, shape=(40, 48)):
    return np.random.default_rng(seed).integers(256, size=(n, *shape, 3), dtype=np.uint8)


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.fixture(scope="module")
def small():
    """A network of its kind with random weights, the smallest that there is."""
    torch.manual_seed(0)
    network = dinov2_network(None, SMALL)
    network.network.blocks = network.network.blocks[:2]
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            parameter.uniform_(0.5, 1.5)         # else a random network says nearly the same of all images
    return network


@pytest.fixture
def theirs(small, monkeypatch):
    """torch-fidelity asks Meta's repository for the network, and is given ours: the rest of the way is its own."""
    monkeypatch.setattr(torch.hub, "load", lambda repository, name: small.network)


def test_the_features_are_torch_fidelitys(small, theirs):
    images = pictures(3)
    extractor = create_feature_extractor(THEIRS, ["dinov2"], cuda=False, verbose=False)
    expected, = extractor(torch.from_numpy(images).permute(0, 3, 1, 2))
    found = judging("dinov2", small, "", CPU)(images)
    assert torch.allclose(found.pooled, expected, atol=1e-5) and found.pooled.shape == (3, 384)
    assert found.spatial is None and found.logits is None


def test_bicubic_is_the_resize_of_pillow_in_full_precision(small):
    images = pictures(2, shape=(300, 260))
    resized = np.stack([[Image.fromarray(channel.astype(np.float32)).resize((224, 224), Image.Resampling.BICUBIC)
                         for channel in image.transpose(2, 0, 1)] for image in images])
    mean, deviation = (np.float32(value)[:, None, None] for value in (MEAN, DEVIATION))
    expected = small.network(torch.from_numpy((resized / 255 - mean) / deviation))
    found = judging("dinov2-bicubic", DINOv2(small.network, bicubic=True), "", CPU)(images).pooled
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(judging("dinov2", small, "", CPU)(images).pooled, expected, atol=0.1)


def test_bicubic_has_metrics_of_its_own(small, tmp_path, monkeypatch):
    for name, network in (("dinov2", small), ("dinov2-bicubic", DINOv2(small.network, bicubic=True))):
        monkeypatch.setitem(features.JUDGES, name, JUDGES[name]._replace(load=lambda *_, network=network: (network, "ab" * 32)))
    np.savez(tmp_path / "reference.npz", arr_0=pictures(20, 2) // 2, mu=np.zeros(2048), sigma=np.eye(2048))
    np.savez(tmp_path / "samples.npz", arr_0=pictures(20, 1))
    asked = ["evaluation.features=dinov2-bicubic", "evaluation.also=[dinov2]", "evaluation.lpips=false"]
    result = evaluate(Evaluator.load(load_protocol(asked), None, None, 0), images_of(open_images(tmp_path / "samples.npz")),
                      tmp_path / "reference.npz")
    values = [result["metrics"][name] for name in ("FD-DINOv2-bicubic", "FD-DINOv2")]
    assert None not in values and values[0] != values[1]
    assert result["features"]["resize"] == "bicubic, antialiased, to 224"


def class_token(weights, x, heads=6, blocks=2):
    """DINOv2's transformer, written out: what stands after the last norm in the place of the class token."""
    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = F.conv2d(x, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=14).flatten(2).mT
    x = torch.cat([weights["cls_token"].expand(len(x), -1, -1), x], 1) + weights["pos_embed"]
    for at in (f"blocks.{number}" for number in range(blocks)):
        q, k, v = linear(f"{at}.attn.qkv", norm(f"{at}.norm1", x)).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        weighed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + weights[f"{at}.ls1.gamma"] * linear(f"{at}.attn.proj", weighed.transpose(1, 2).flatten(2))
        x = x + weights[f"{at}.ls2.gamma"] * linear(f"{at}.mlp.fc2", F.gelu(linear(f"{at}.mlp.fc1", norm(f"{at}.norm2", x))))
    return norm("norm", x)[:, 0]


def test_the_features_of_photographs_are_those_of_the_published_design_written_out(small):
    _, images = next(open_images(ROOT / "tests/photographs/validation", 96).batches(4, 0, 4))
    mean, deviation = (torch.tensor(value)[:, None, None] for value in (MEAN, DEVIATION))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    resized = F.interpolate(pixels, size=(224, 224), mode="bicubic", antialias=True) / 255
    expected = class_token(small.network.state_dict(), (resized - mean) / deviation)
    found = judging("dinov2-bicubic", DINOv2(small.network, bicubic=True), "", CPU)(images).pooled
    assert torch.allclose(found, expected, atol=1e-4) and found.std() > 0.1


def test_the_whole_evaluation_agrees_with_torch_fidelitys(small, theirs, tmp_path, monkeypatch):
    images = {"samples": pictures(60, 1), "reference": pictures(60, 2) // 2}
    for name, arrays in images.items():
        np.savez(tmp_path / f"{name}.npz", arr_0=arrays)
    monkeypatch.setitem(features.JUDGES, "dinov2", JUDGES["dinov2"]._replace(load=lambda *_: (small, "ab" * 32)))
    evaluator = Evaluator.load(load_protocol(["evaluation.features=dinov2", "evaluation.lpips=false"]), None, None, 0)
    ours = evaluate(evaluator, images_of(open_images(tmp_path / "samples.npz")), tmp_path / "reference.npz")["metrics"]
    values = torch_fidelity.calculate_metrics(
        input1=Images(images["samples"]), input2=Images(images["reference"]), cuda=False, batch_size=20, fid=True, kid=True,
        prc=True, kid_subset_size=30, feature_extractor=THEIRS, verbose=False, save_cpu_ram=True, num_workers=0, cache=False)
    assert ours["FD-DINOv2"] == pytest.approx(values["frechet_inception_distance"], rel=1e-3)
    assert ours["KD-DINOv2"] == pytest.approx(values["kernel_inception_distance_mean"], rel=1e-3)
    assert (ours["precision"], ours["recall"]) == (values["precision"], values["recall"])


def test_the_network_is_metas_large_one():
    found = random_features("dinov2", CPU)
    assert (found.dims, found.spatial, found.classes) == (1024, 0, 0)
    count = sum(parameter.numel() for parameter in found.forward.network.parameters())
    assert count == 304_368_640 - 1024 - (37**2 - 16**2) * 1024     # Meta's, less its mask token and many positions
    assert found(pictures(1)).pooled.shape == (1, 1024)


def test_a_file_as_metas_is_read_whatever_its_side(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model(SMALL, img_size=518, num_classes=0).state_dict() | {"mask_token": torch.zeros(1, 384)}
    network = dinov2_network(whole, SMALL)
    kept = network.network.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in whole.items() if name in kept and name != "pos_embed")
    assert torch.equal(kept["pos_embed"], positions(whole["pos_embed"], 16)) and kept["pos_embed"].shape == (1, 257, 384)
    assert torch.equal(positions(kept["pos_embed"], 16), kept["pos_embed"])


def test_positions_are_brought_to_fewer_by_a_scale_a_tenth_of_a_patch_too_large():
    """A wave across the grid is read at the places of Meta's scale."""
    wave = torch.sin(2 * np.pi * torch.arange(37.0) / 37)
    found = positions(torch.cat([torch.full((1, 1, 1), 7.0), wave.repeat(37, 1).flatten()[None, :, None]], 1), 16)
    places = (np.arange(1, 15) + 0.5) * 37 / 16.1 - 0.5             # but for the ends, where the grid ends
    assert found[0, 0, 0] == 7
    assert found[0, 1:, 0].unflatten(0, (16, 16))[8, 1:-1].numpy() == pytest.approx(np.sin(2 * np.pi * places / 37), abs=0.01)


@pytest.mark.parametrize("spoil", [lambda state: state.pop("norm.weight"), lambda state: state.pop("pos_embed"),
                                   lambda state: state.update(other=torch.zeros(1)),
                                   lambda state: state.update(cls_token=torch.zeros(1, 1, 2))])
def test_weights_that_do_not_fit_are_refused_by_name(spoil, tmp_path):
    state = dict(torch.nn.Module.state_dict(timm.create_model(SMALL, img_size=224, num_classes=0)))
    spoil(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: not the weights of dinov2_vitl14_pretrain\.pth"):
        load_dinov2(tmp_path / "w.pth")


def test_weights_that_are_not_there_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"dinov2_vitl14_pretrain\.pth: is not there; run `restok fetch`.*d5383ea8.*"
                       r"evaluation\.dinov2_weights name it"):
        load_features(load_protocol(["evaluation.features=dinov2"]), None, CPU)
    assert NETWORK in timm.list_models()
