"""LPIPS's network: from a file of weights, never from anything else, and the package's own values."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from restok.metrics.reconstruction import similarity
from restok.networks.lpips import load_lpips
from restok.networks.pretrained import PRETRAINED


def trunk(network, seed=0):
    """Random weights in the names and shapes of torchvision's network, whole."""
    import torchvision
    with torch.device("meta"):
        shapes = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}[network]().features.state_dict()
    generator = torch.Generator().manual_seed(seed)
    state = {f"features.{name}": torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5
             for name, tensor in shapes.items()}
    return state | {"classifier.1.weight": torch.zeros(2, 2)}


def save(state, path):
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    return save(trunk("alex"), tmp_path_factory.mktemp("trunk") / "alexnet.pth")


def test_lpips_holds_the_files_trunk_is_frozen_and_is_known_by_the_files_hash(stand_in):
    network, sha256 = load_lpips("alex", stand_in)
    layers = [layer for layer in network.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(layers) == 5
    for layer, number in zip(layers, (0, 3, 6, 8, 10), strict=True):
        torch.testing.assert_close(layer.weight.data, trunk("alex")[f"features.{number}.weight"], rtol=0, atol=0)
        torch.testing.assert_close(layer.bias.data, trunk("alex")[f"features.{number}.bias"], rtol=0, atol=0)
    assert sha256 == hashlib.sha256(stand_in.read_bytes()).hexdigest()
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert all((head.model[1].weight >= 0).all() for head in network.lins)      # the learned heads; random ones have both signs


def test_a_trunk_that_does_not_fit_is_named_with_its_tensors_and_the_remedy(stand_in, tmp_path):
    state = trunk("alex") | {"features.8.weight": torch.zeros(4, 5)}
    del state["features.3.bias"]
    with pytest.raises(ValueError, match=r"broken.pth: .* 2 of 10 tensors .*features.3.bias \(missing, not \(192,\)\), "
                                         r"features.8.weight \(\(4, 5\), not \(256, 384, 3, 3\)\);.*/alexnet-owt-7be5be79.pth"):
        load_lpips("alex", save(state, tmp_path / "broken.pth"))
    with pytest.raises(ValueError, match=r"vgg16-397923af.pth, 24 of 26 tensors .* \.\.\.; download"):
        load_lpips("vgg", stand_in)


def test_a_file_that_holds_more_than_tensors_is_refused_and_never_run(tmp_path):
    torch.save({"features.0.weight": Path("x")}, tmp_path / "code.pth")
    (tmp_path / "damaged.pth").write_bytes(b"PK no archive")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    for name, message in (("code", "not a PyTorch file of tensors"), ("damaged", "damaged"), ("list", "not a state dict")):
        with pytest.raises(ValueError, match=rf"{name}.pth: .*{message}"):
            load_lpips("alex", tmp_path / f"{name}.pth")


def test_missing_weights_name_the_file_its_source_its_hash_and_its_place(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"absent.pth: no such file.*/alexnet-owt-7be5be79.pth.* begins with 7be5be79"):
        load_lpips("alex", tmp_path / "absent.pth")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = re.escape(str(tmp_path / "checkpoints" / "vgg16-397923af.pth"))
    with pytest.raises(FileNotFoundError, match=rf"run `restok fetch`.* begins with 397923af.* put it at {place}"):
        load_lpips("vgg", None)


def test_the_list_of_pretrained_files_is_what_their_packages_download():
    from timm import get_pretrained_cfg
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torchvision.models import AlexNet_Weights, VGG16_Weights
    urls = {"dinov2": get_pretrained_cfg("vit_large_patch14_dinov2.lvd142m").url, "inception": URL_INCEPTION_V3,
            "alex": AlexNet_Weights.IMAGENET1K_V1.url, "vgg": VGG16_Weights.IMAGENET1K_V1.url}
    assert {name: source.url for name, source in PRETRAINED.items()} == urls
    assert all(source.name.split(".")[0].endswith(f"-{source.sha256[:8]}")           # Meta's name says nothing of it
               for name, source in PRETRAINED.items() if name != "dinov2")


def test_lpips_of_equal_images_is_zero_and_of_others_is_not(stand_in):
    network, _ = load_lpips("alex", stand_in)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert similarity(images, images, network, "cpu")["lpips"].tolist() == [0, 0]
    assert (similarity(images, images[::-1].copy(), network, "cpu")["lpips"] > 0).all()


@pytest.mark.parametrize("network, name", [("alex", "alexnet_trunk.pth"), ("vgg", "vgg16_trunk.pth")])
@pytest.mark.skipif("RESTOK_WEIGHTS" not in os.environ, reason="needs RESTOK_WEIGHTS, a folder with the real trunks")
def test_lpips_of_the_real_network_grows_with_distortion_and_is_the_packages_own(network, name, monkeypatch):
    import lpips
    import torchvision
    path = Path(os.environ["RESTOK_WEIGHTS"], name)
    ours, _ = load_lpips(network, path)
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(30, 226, (2, 12, 12, 3)), np.ones((1, 8, 8, 1)))           # coarse patches
    noise = rng.normal(size=images.shape)
    images, *distorted = ((images + strength * noise).round().clip(0, 255).astype(np.uint8) for strength in (0, 4, 16, 64))
    values = torch.stack([similarity(images, other, ours, "cpu")["lpips"] for other in distorted])
    assert (values[0] > 0).all() and (values.diff(dim=0) > 0).all()

    function = {"alex": "alexnet", "vgg": "vgg16"}[network]
    build, state = getattr(torchvision.models, function), torch.load(path, weights_only=True)

    def pretrained(pretrained):
        model = build(weights=None)
        model.load_state_dict(state, strict=False)
        return model
    monkeypatch.setattr(torchvision.models, function, pretrained)
    theirs = lpips.LPIPS(net=network, verbose=False)
    a, b = (torch.tensor(x).permute(0, 3, 1, 2) / 127.5 - 1 for x in (images, distorted[1]))
    assert values[1].tolist() == pytest.approx(theirs(a, b).flatten().tolist(), rel=1e-4)
