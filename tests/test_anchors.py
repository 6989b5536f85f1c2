"""Published and documented values, on the real Inception trunk. RESTOK_WEIGHTS names a folder with
fid_inception_2015_trunk.pth (torch-fidelity's file, whose classifier may be missing) and cifar10.npz (x_train, x_test)."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from restok.config.load import load_protocol
from restok.data.images import open_images
from restok.metrics.frechet import Frechet, Moments
from restok.stages.evaluator import Evaluator
from restok.stages.measure import evaluate
from restok.stages.subjects import images_of

FOLDER = Path(os.environ.get("RESTOK_WEIGHTS", "unset"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="RESTOK_WEIGHTS names no folder of real weights")
TRUNK = FOLDER / "fid_inception_2015_trunk.pth"


@pytest.fixture
def threads():
    torch.set_num_threads(os.cpu_count())


@pytest.fixture(scope="module")
def with_head(tmp_path_factory):
    """The trunk with a head of zeros, which torch-fidelity asks for."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    head = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(torch.load(TRUNK, weights_only=True) | head, path)
    return path


def test_torchmetrics_documented_fid_to_every_printed_digit(with_head, threads):
    """torchmetrics prints 12.6388 for FrechetInceptionDistance(feature=64) on its example of two times 100 random images,
    seeded with 42 before the network is built, whose initialisation draws too."""
    torch.manual_seed(42)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["64"], str(with_head))
    images = [torch.randint(*bounds, (100, 3, 299, 299), dtype=torch.uint8) for bounds in ((0, 200), (100, 255))]
    features = [torch.cat([network(part)[0] for part in one.split(20)]) for one in images]
    moments = [Moments(*one.shape, shift=one.double().mean().item()) for one in features]
    for sums, one in zip(moments, features, strict=True):
        sums.update(0, one)
    distance = Frechet(moments[1].gaussian())(moments[0].gaussian())
    assert f"{distance:.4f}" == "12.6388"


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """300 images of each of CIFAR-10's halves, as npz files."""
    folder, paths = tmp_path_factory.mktemp("cifar"), []
    with np.load(FOLDER / "cifar10.npz") as data:
        for name in ("x_train", "x_test"):
            paths.append(folder / f"{name}.npz")
            np.savez(paths[-1], arr_0=data[name][:300])
    return paths


class Tensors(torch.utils.data.Dataset):
    def __init__(self, path):
        self.images = torch.from_numpy(np.load(path)["arr_0"]).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_the_whole_evaluation_agrees_with_torch_fidelity_on_real_images(cifar, with_head, threads):
    theirs = calculate_metrics(
        input1=Tensors(cifar[0]), input2=Tensors(cifar[1]), cuda=False, batch_size=50, fid=True, kid=True, prc=True,
        kid_subset_size=150, feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(with_head),
        feature_layer_prc="2048", verbose=False, save_cpu_ram=True, num_workers=0, cache=False)
    evaluator = Evaluator.load(load_protocol([f"evaluation.weights={TRUNK}", "evaluation.lpips=false"]), None, None, 0)
    ours = evaluate(evaluator, images_of(open_images(cifar[0])), cifar[1])["metrics"]
    assert ours["FID"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours["KID"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert (ours["precision"], ours["recall"]) == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-3)
    assert ours["sFID"] > 0 and ours["IS"] is None
