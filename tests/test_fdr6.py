"""FDr6: its networks' inputs and features on small networks of their kinds; the mean of six ratios, its interval, and each
reason why it is not given."""

import logging

import numpy as np
import pytest
import scipy
import timm
import torch
import torch.nn.functional as F
from conftest import ROOT

from restok.cli.measuring import NetworkOptions
from restok.config import FDR6
from restok.config.load import ConfigError, load_params, load_protocol
from restok.data.images import open_images
from restok.experiments import operations as counted
from restok.experiments.demand import judges, memory_mb
from restok.experiments.results import Result
from restok.files.loading import load_record
from restok.metrics import fdr6, features
from restok.metrics.comparison import Comparison
from restok.metrics.features import JUDGES, described, judging, load_features, metric_names
from restok.metrics.intervals import group_of
from restok.metrics.statistics import Statistics
from restok.networks.inception import Features
from restok.networks.timm_judge import SIDES, TimmJudge, load_timm_judge, random_timm_judge
from restok.stages.bench.peaks import operations
from restok.stages.evaluator import Evaluator
from restok.stages.measure import evaluate
from restok.stages.subjects import images_of, reconstructions_of

N, CPU, ALL, REAL = 60, torch.device("cpu"), "also=[fdr6]", dict(JUDGES)
SMALL = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 0, "dynamic_img_size": True, "dynamic_img_pad": True}


def pictures(n, seed=0, shape=(40, 48)):
    return np.random.default_rng(seed).integers(256, size=(n, *shape, 3), dtype=np.uint8)


def class_token(network, x):
    """Patches of 14, padded; the positions of 2 x 2 brought to as many."""
    x = F.conv2d(F.pad(x, (0, -x.shape[3] % 14, 0, -x.shape[2] % 14)), network.patch_embed.proj.weight,
                 network.patch_embed.proj.bias, stride=14)
    grid = network.pos_embed[:, 1:].unflatten(1, (2, 2)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=x.shape[2:], mode="bicubic", antialias=True)
    first = (network.cls_token + network.pos_embed[:, :1]).expand(len(x), -1, -1)
    return network.norm(network.blocks(torch.cat([first, (x + grid).flatten(2).mT], 1)))[:, 0]


def attention_pooled(network, x):
    return network.attn_pool(network.forward_features(x))


def mean_of_the_map(network, x):
    return network.stages(network.stem(x)).mean((2, 3))


@pytest.mark.parametrize(("name", "options", "side", "expected"), [
    ("vit_tiny_patch16_224", SMALL | {"img_size": 28, "patch_size": 14}, 32, class_token),
    ("vit_base_patch16_siglip_256", SMALL | {"img_size": 32}, 48, attention_pooled),
    ("convnextv2_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}, 48, mean_of_the_map)])
def test_features_are_of_antialiased_normalised_images_in_bfloat16(name, options, side, expected):
    torch.manual_seed(0)
    network = timm.create_model(name, **options)
    images = pictures(3)
    found = judging("mae", TimmJudge(network, side), "", CPU)(images).pooled
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    x = F.interpolate(x, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    mean, deviation = (torch.tensor(network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        exact = expected(network, (x - mean) / deviation)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = expected(network, (x - mean) / deviation).float()
    assert torch.allclose(found, coarse, atol=1e-5) and found.dtype == torch.float32
    assert not torch.allclose(found, exact, atol=1e-5) and torch.allclose(found, exact, atol=0.1)
    assert found.shape == (3, network.num_features) and found.std(0).max() > 0.01


@pytest.mark.parametrize("key", FDR6)
def test_the_networks_are_timms_with_as_many_features_and_operations(key):
    with torch.device("meta"):
        judge = random_timm_judge(key)
        pixels = torch.rand(1, 3, SIDES[key], SIDES[key])
    network, about = judge.network, described({"name": FDR6[key]})
    tokens = network.forward_features(pixels).shape[1:]
    assert tokens == {"convnextv2": (1024, 7, 7), "mae": (197, 1024), "siglip2": (196, 1152)}.get(key, (19 * 19 + 1, 1024))
    pooling = "attention" if key == "siglip2" else "mean over" if len(tokens) == 3 else "class token"
    assert about["layer"].startswith(pooling) and about["layer"].endswith(f", {judge.dims}")
    assert (getattr(network, "attn_pool", None) is not None) == (key == "siglip2")
    assert about["precision"] == "bfloat16 autocast" and ("padded to 266" in JUDGES[key].resize) == (tokens[0] == 362)
    assert operations(lambda: network.forward_features(pixels)) == pytest.approx(counted.JUDGES[key], rel=0.02)
    cfg = timm.get_pretrained_cfg(FDR6[key])
    assert cfg.hf_hub_id == f"timm/{FDR6[key]}"
    assert ("ImageNet's" in about["normalisation"]) == (cfg.mean == timm.data.IMAGENET_DEFAULT_MEAN)


def test_the_units_are_of_inception_and_of_each_network():
    names = [metric_names(JUDGES[key].kind)["distance"] for key in ("inception", *FDR6)]
    assert list(fdr6.NORMALISERS) == names and list(SIDES) == list(FDR6)


def test_a_file_of_weights_is_read_and_one_that_is_missing_is_named(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setitem(FDR6, "mae", "vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    whole = timm.create_model(FDR6["mae"])
    torch.save(whole.state_dict(), tmp_path / "mae.pth")
    settings = load_protocol([f"evaluation.fdr6_weights.mae={tmp_path}/mae.pth", "evaluation.also=[mae]"])
    network = load_features(settings, None, CPU, "mae")
    images = pictures(2)
    assert torch.equal(network(images).pooled, judging("mae", TimmJudge(whole, 224), "", CPU)(images).pooled)
    assert network.forward.network.dynamic_img_size and len(network.sha256) == 64
    assert judges(settings)[1] == (FDR6["mae"], "evaluation.fdr6_weights.mae", f"{tmp_path}/mae.pth")
    with pytest.raises(FileNotFoundError, match=r"evaluation\.fdr6_weights\.mae: none\.pth is not a file"):
        load_timm_judge("mae", "none.pth", "evaluation.fdr6_weights.mae")


def test_the_shorthand_is_inception_and_the_five():
    for settings in (load_protocol([f"evaluation.{ALL}"]), NetworkOptions(features="fdr6").read()[1]):
        assert settings.networks == ("inception", *FDR6)
    assert NetworkOptions(features="fdr6,dinov2").read()[1].networks == ("inception", *FDR6, "dinov2")
    for also, message in (("[fdr6, mae]", "name each network once"), ("[other]", r"evaluation: also\.0")):
        with pytest.raises(ConfigError, match=message):
            load_protocol([f"evaluation.also={also}"])
    with pytest.raises(ConfigError, match="fdr6 is of FID, too, and features is dinov2"):
        NetworkOptions(features="dinov2,fdr6").read()
    paper = [load_params(ROOT / "params/imagenet256.yaml", [f"evaluation.also={also}"]) for also in ("[]", "[fdr6]")]
    assert memory_mb(paper[1]) - memory_mb(paper[0]) == 5 * 1500
    assert counted.operations("judge", paper[1]) == sum(counted.JUDGES.values())


class Projected(torch.nn.Module):
    """A random projection of the pixels: a network in a pretrained one's place."""

    spatial, classes, dims = 0, 0, 5

    def __init__(self, seed):
        super().__init__()
        self.ways = torch.randn(3 * 8 * 8, 5, generator=torch.Generator().manual_seed(seed)) / 100

    def forward(self, images):
        return Features(images.flatten(1).float() @ self.ways, None, None)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The protocol's numbers of images and pixels are small. What takes long, and is not part of it, is left out."""
    for name in ("kernel_distance", "sliced_distance"):
        monkeypatch.setattr(Comparison, name, lambda self, name: None)
    for number, key in enumerate(("inception", *FDR6)):
        found = Projected(number), str(number) * 64
        monkeypatch.setitem(features.JUDGES, key, JUDGES[key]._replace(load=lambda *_, found=found: found))
    for name, value in (("IMAGES", N), ("SIDE", 8), ("TRAINING", 80)):
        monkeypatch.setattr(fdr6, name, value)
    for seed, (name, n, side) in enumerate((("samples", N, 8), ("training", 80, 8), ("few", 50, 8))):
        np.savez(tmp_path / f"{name}.npz", arr_0=pictures(n, seed, (side, side)) // (seed + 1))
    return tmp_path


def measuring(*settings, paired=False, spare=False):
    named = [f"evaluation.{each}" for each in ("lpips=false", *settings)]
    return Evaluator.load(load_protocol(named), None, None, 0, paired, spare)


def samples(files, name="samples"):
    return images_of(open_images(files / f"{name}.npz"))


def distance(a, b):
    cross = np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real.clip(0)
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * np.sqrt(cross).sum()


def test_it_is_the_mean_of_six_distances_each_in_its_unit(files):
    result = evaluate(measuring(ALL), samples(files), files / "training.npz", files / "out.json")
    ours, theirs = (np.load(files / f"{name}.npz")["arr_0"].transpose(0, 3, 1, 2).reshape(-1, 192).astype(np.float64)
                    for name in ("samples", "training"))
    units = (1.68, 56.87, 14.19, 0.04, 0.60, 5.60)
    ways = [Projected(seed).ways.double().numpy() for seed in range(6)]

    def mean(kept):
        return np.mean([distance(ours[kept] @ way, theirs @ way) / unit for way, unit in zip(ways, units, strict=True)])

    others = np.array([mean(group_of(N, 10) != group) for group in range(10)])
    half = scipy.stats.t.ppf(0.975, 9) * np.sqrt(0.9 * np.square(others - others.mean()).sum())
    value, (low, high) = result["metrics"]["FDr6"], result["intervals"]["FDr6"]
    assert value == pytest.approx(mean(slice(None)), rel=1e-4)
    assert (high - value, value - low) == pytest.approx((half, half), rel=1e-3) and half > 0
    assert list(result["FDr6"]["normalisers"].values()) == list(units)
    (said,) = [warning for warning in result["warnings"] if "has one digit" in warning]
    term = result["metrics"]["FD-MAE"] / 6
    assert "may be {:.4g} to {:.4g}".format(*(value - term / 0.04 + term / unit for unit in (0.045, 0.035))) in said
    record = load_record(files / "out.json", Result)
    assert record["metrics"]["FDr6"] == value and record["also"]["MAE"]["precision"] == "bfloat16 autocast"
    by_name = evaluate(measuring(f"also=[{', '.join(FDR6)}]"), samples(files), files / "training.npz", files / "out.json")
    assert "FDr6" not in by_name["metrics"] and by_name["metrics"]["FD-CLIP"] == result["metrics"]["FD-CLIP"]


def test_without_all_weights_it_is_not_measured_and_the_rest_is(files, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    for key in ("mae", "clip"):
        monkeypatch.setitem(features.JUDGES, key, REAL[key])
    with caplog.at_level(logging.WARNING, "restok"):
        result = evaluate(measuring(ALL, spare=True), samples(files), files / "training.npz")
    for key in ("mae", "clip"):
        assert f"the weights of {FDR6[key]} are not there; run `restok fetch`" in caplog.text
    assert result["metrics"]["FID"] > 0 and result["also"] == {}
    assert {name for name in fdr6.NORMALISERS if result["metrics"][name] is None} == set(fdr6.NORMALISERS) - {"FID"}
    assert result["refused"]["FD-SigLIP2"].startswith("samples.npz was not measured with SigLIP2: measure")
    assert result["refused"]["FDr6"] == (
        f"samples.npz was not measured with ConvNeXt-V2, DINOv2-256, MAE, SigLIP2, CLIP: bring the weights of "
        f"{', '.join(FDR6.values())} by `restok fetch --features fdr6`, and measure it again")
    for settings, spare in ((ALL, False), ("also=[mae]", True)):
        with pytest.raises(FileNotFoundError, match=r"vit_large_patch16_224\.mae.*under `evaluation\.fdr6_weights\.mae`"):
            measuring(settings, spare=spare)


def test_processes_leave_them_out_together(files, monkeypatch):
    """One that has all weights, beside one that has not."""
    monkeypatch.setattr("restok.stages.evaluator.gathered", lambda lacking: [lacking, ["the weights of CLIP are not there"]])
    assert measuring("also=[fdr6]", spare=True).also == ()


def test_other_images_and_references_are_refused_each_with_its_reason(files, monkeypatch):
    few = evaluate(measuring(ALL), samples(files, "few"), files / "samples.npz")["refused"]["FDr6"]
    assert "few.npz has 50 images, not 60" in few and "samples.npz is of 60 images: take statistics of ImageNet's 80" in few
    measuring("also=[mae]").reference(files / "training.npz").save(files / "r.safetensors")
    lacking = evaluate(measuring(ALL), samples(files), files / "r.safetensors")
    assert lacking["refused"]["FDr6"].count("was not measured with") == 4 and lacking["metrics"]["FD-MAE"] > 0
    measuring("also=[mae]").statistics(samples(files)).save(files / "s.safetensors")
    lacking = evaluate(measuring(ALL), Statistics.load(files / "s.safetensors"), files / "training.npz")
    assert "was not measured with ConvNeXt-V2, DINOv2-256, SigLIP2, CLIP: bring" in lacking["refused"]["FDr6"]
    monkeypatch.setattr(fdr6, "SIDE", 256)
    large = evaluate(measuring(ALL), samples(files), files / "training.npz")
    assert large["refused"]["FDr6"] == "samples.npz has images of 8x8, not 256x256" and large["metrics"]["FD-CLIP"] > 0


def test_reconstructions_have_its_distances_alone(files, caplog):
    originals = open_images(files / "samples.npz")
    subject = reconstructions_of(open_images(files / "samples.npz"), originals, files / "samples.npz", None)
    with caplog.at_level(logging.WARNING, "restok"):
        result = evaluate(measuring(ALL, paired=True), subject, files / "samples.npz")
    assert "rFD-MAE" in result["metrics"] and not any("FDr6" in name for name in result["metrics"])
    assert "FDr6 is of samples" in caplog.text
