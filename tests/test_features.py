"""Feature networks: what they are called, what they compute, and which weights they refuse."""

import io

import numpy as np
import pytest
import torch
from conftest import small_params

from restok.config.load import load_protocol
from restok.metrics.features import full_precision, judging, load_features, metric_names
from restok.networks.classifier import SmallClassifier, load_classifier
from restok.networks.inception import inception_network


def settings(**changes):
    changes = {"features": "digits"} | changes
    return load_protocol([f"evaluation.{key}={value}" for key, value in changes.items()])


@pytest.fixture
def classifier(tmp_path):
    torch.manual_seed(0)
    SmallClassifier(classes=4, channels=(4, 8), data="clothing").save(tmp_path / "classifier")
    return tmp_path / "classifier"


def pictures(n, seed=0, side=16):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_only_inception_may_be_called_fid():
    assert metric_names("inception") == {"distance": "FID", "spatial": "sFID", "kernel": "KID", "sliced": "MIND", "score": "IS"}
    assert metric_names("clothing") == {"distance": "FD-clothing", "kernel": "KD-clothing", "sliced": "MIND-clothing",
                                         "score": "IS-clothing"}


@pytest.mark.parametrize(("folder", "named"), [
    ("inception", "FD-inception-classifier"), ("Inception", "FD-Inception-classifier"), ("", "FD-classifier"),
    ("clothing", "FD-clothing")])
def test_a_classifier_is_never_taken_for_inception_whatever_its_images_are_called(tmp_path, folder, named):
    SmallClassifier(classes=4, channels=(4, 8), data=folder).save(tmp_path)
    network = load_features(settings(), tmp_path, "cpu")
    assert metric_names(network.kind)["distance"] == named and network.identity["kind"] == network.kind


@pytest.mark.parametrize("path", ["shoes", "shoes/", "shoes/.", "shoes/red/..", "."])
def test_images_are_called_as_their_folder(tmp_path, monkeypatch, path):
    (tmp_path / "shoes").mkdir()
    monkeypatch.chdir(tmp_path / "shoes" if path == "." else tmp_path)
    assert small_params("data.source=imagefolder", f"data.path={path}").data.name == "shoes"


def test_classifier_features_are_its_own_and_bear_its_datas_name(classifier):
    network, images = load_features(settings(), classifier, "cpu"), pictures(5)
    features = network(images)
    module, x = load_classifier(classifier), torch.tensor(images).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(features.pooled, module.pooled(x))
    torch.testing.assert_close(features.logits, module(x))
    assert features.spatial is None
    assert (network.kind, network.dims, network.classes, len(network.sha256)) == ("clothing", 8, 4, 64)


def test_features_are_computed_without_tf32_and_the_settings_come_back():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32 == before[1]
    finally:
        torch.set_float32_matmul_precision(before[0])


def test_missing_weights_are_named_with_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="restok train-classifier"):
        load_features(settings(), None)
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth: no such file; download http"):
        load_features(settings(features="inception", weights=str(tmp_path / "nowhere.pth")), None)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    message = (r"weights-inception-2015-12-05-6726825d\.pth: is not there; run `restok fetch`.*put it at .*let "
               r"evaluation\.weights name it")
    with pytest.raises(FileNotFoundError, match=message):
        load_features(settings(features="inception"), None)


def test_foreign_inception_weights_are_refused_by_name(tmp_path):
    torch.save({"features.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: not the weights of weights-inception.*missing.*1 unexpected"):
        load_features(settings(features="inception", weights=str(tmp_path / "other.pth")), None)


# The Inception network, with random weights

@pytest.fixture(scope="module")
def whole():
    torch.manual_seed(0)
    return inception_network(None).state_dict()


def test_inception_takes_weights_with_and_without_its_head(whole, tmp_path):
    torch.save(whole, tmp_path / "whole.pth")
    torch.save({name: tensor for name, tensor in whole.items() if not name.startswith("fc.")}, tmp_path / "trunk.pth")
    with_head, trunk = (load_features(settings(features="inception", weights=tmp_path / name), None, "cpu")
                        for name in ("whole.pth", "trunk.pth"))
    images = pictures(2, side=20)
    a, b = with_head(images), trunk(images)
    assert (with_head.dims, with_head.spatial, with_head.classes, trunk.classes) == (2048, 2023, 1008, 0)
    assert a.pooled.shape == (2, 2048) and a.spatial.shape == (2, 2023) and a.logits.shape == (2, 1008) and b.logits is None
    assert torch.equal(a.pooled, b.pooled) and torch.equal(a.spatial, b.spatial)
    torch.testing.assert_close(a.logits, a.pooled @ whole["fc.weight"].T)           # no bias


def test_inception_as_it_is_used_gives_what_it_gives_as_it_comes(whole):
    """With running statistics and scales as a trained one has: not 0 and 1."""
    torch.manual_seed(1)
    state = {name: tensor.uniform_(0.5, 2) if ".bn." in name and tensor.ndim else tensor for name, tensor in
             {name: tensor.clone() for name, tensor in whole.items()}.items()}
    network, images = inception_network(state), pictures(3, side=20)
    expected = network(torch.tensor(images).permute(0, 3, 1, 2))
    ours = judging("inception", network, "", torch.device("cpu"))(images)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    for found, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_spatial_features_are_seven_channels_of_mixed_6_in_the_order_of_the_places(whole):
    network, kept = inception_network(whole), []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: kept.append(output))
    images = torch.tensor(pictures(1, side=20)).permute(0, 3, 1, 2)
    spatial = network(images).spatial.view(17, 17, 7)
    assert torch.equal(spatial[3, 5], kept[0][0, :7, 3, 5]) and (spatial >= 0).all()


def test_features_do_not_depend_on_who_shares_the_batch(whole):
    images = torch.tensor(pictures(3, side=20)).permute(0, 3, 1, 2)
    network = inception_network(whole)
    torch.testing.assert_close(network(images).pooled[1:2], network(images[1:2]).pooled, rtol=1e-4, atol=1e-5)


def test_a_pickle_with_code_is_not_run(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    buffer = io.BytesIO()
    torch.save({"fc.weight": Bomb()}, buffer, pickle_module=pickle)
    (tmp_path / "bomb.pth").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"bomb.pth: not"):
        load_features(settings(features="inception", weights=tmp_path / "bomb.pth"), None)
    assert not (tmp_path / "ran").exists()
