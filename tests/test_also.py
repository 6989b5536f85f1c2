"""Several feature networks over one pass: each has its own statistics in one state, and says what it says alone."""

import json

import jsonschema
import numpy as np
import pytest
import torch
from conftest import ROOT

from restok.config.load import ConfigError, load_protocol
from restok.data.images import open_images
from restok.experiments.manifests import artifact_at
from restok.experiments.results import Result, schema
from restok.files import FileError
from restok.files.loading import load_record
from restok.metrics import features
from restok.metrics.features import JUDGES
from restok.metrics.results import ComparisonError, require_comparable
from restok.metrics.statistics import Statistics, StatisticsError
from restok.networks.inception import Features
from restok.parts import WHOLE, Shard
from restok.stages.evaluator import CHUNK, Evaluator
from restok.stages.measure import added, evaluate, write_statistics
from restok.stages.subjects import MeasureError, images_of, reconstructions_of

N, SHA = CHUNK + 88, {"inception": "1" * 64, "dinov2": "2" * 64, "dinov2-bicubic": "2" * 64}


class Projected(torch.nn.Module):
    """Random projections of the pixels: a network in a pretrained one's place."""

    spatial = classes = 0

    def __init__(self, dims, seed):
        super().__init__()
        self.dims = dims
        self.ways = torch.randn(3 * 8 * 8, dims, generator=torch.Generator().manual_seed(seed)) / 100

    def forward(self, images):
        return Features(images.flatten(1).float() @ self.ways, None, None)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for seed, (name, dims) in enumerate((("inception", 12), ("dinov2", 7), ("dinov2-bicubic", 7))):
        network = Projected(dims, seed)
        monkeypatch.setitem(features.JUDGES, name,
                            JUDGES[name]._replace(load=lambda *_, name=name, network=network: (network, SHA[name])))


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, (name, n) in enumerate((("samples", N), ("reference", 300))):
        images = np.random.default_rng(seed).integers(256, size=(n, 8, 8, 3), dtype=np.uint8)
        np.savez(f"{name}.npz", arr_0=images // (seed + 1))
    return tmp_path


def measuring(*settings):
    named = [f"evaluation.{each}" for each in ("lpips=false", *settings)]
    return Evaluator.load(load_protocol(named), None, None, 0)


def samples(files):
    return images_of(open_images(files / "samples.npz"))


BOTH, ALONE = ("also=[dinov2]",), ("features=dinov2",)


def test_each_network_says_what_it_says_alone(files):
    both = evaluate(measuring(*BOTH), samples(files), files / "reference.npz")
    first, second = (evaluate(measuring(*own), samples(files), files / "reference.npz") for own in ((), ALONE))
    for name, value in first["metrics"].items():
        assert both["metrics"][name] == value and both["intervals"][name] == first["intervals"][name]
    plain = {"precision-DINOv2": "precision", "recall-DINOv2": "recall"}
    added = both["metrics"].keys() - first["metrics"].keys()
    assert added == {"FD-DINOv2", "KD-DINOv2", "MIND-DINOv2", *plain}
    for name in added:
        assert both["metrics"][name] == second["metrics"][plain.get(name, name)] is not None
        assert both["intervals"][name] == second["intervals"][plain.get(name, name)]
    assert both["also"]["DINOv2"]["normalisation"] == "by ImageNet's mean and deviation" and "2048" in both["features"]["layer"]
    assert both["also"]["DINOv2"]["sha256"] == SHA["dinov2"] and both["features"]["sha256"] == SHA["inception"]


def test_one_state_has_them_all_in_parts_and_from_where_a_run_was_cut(files):
    evaluator = measuring(*BOTH)
    whole = evaluator.statistics(samples(files))
    for part in range(2):
        write_statistics(evaluator, samples(files), Shard(part, 2), None, files / f"{part}.safetensors")
    summed = added([files / "0.safetensors", files / "1.safetensors"], "cpu")
    evaluator.statistics(samples(files), None, Shard(0, 2)).save(files / "state.safetensors")
    resumed = evaluator.statistics(samples(files), files / "state.safetensors")
    for found in (summed, resumed):
        assert found.facts == whole.facts and found.also.keys() == {"DINOv2"}
        assert all(torch.allclose(found.tensors[name], tensor) for name, tensor in whole.tensors.items())
    assert {name.partition("/")[0] for name in whole.tensors} >= {"DINOv2", "kept", "pooled.count"}


def test_all_networks_are_inputs_of_what_they_measured(files):
    evaluator = measuring(*BOTH)
    write_statistics(evaluator, images_of(open_images(files / "reference.npz")), WHOLE, None, files / "r.safetensors")
    result = evaluate(evaluator, samples(files), files / "r.safetensors", files / "out.json")
    assert result["inputs"]["features DINOv2"] == SHA["dinov2"]
    assert artifact_at(files / "r.safetensors").facts["inputs"]["features DINOv2"] == SHA["dinov2"]
    assert load_record(files / "out.json", Result)["also"]["DINOv2"]["name"] == "dinov2-vit-l-14"


def test_the_schema_that_pages_show_knows_a_result(files):
    public = json.loads((ROOT / "docs/result.schema.json").read_text())
    assert public == json.loads(schema()), "run `make schema`"
    evaluate(measuring(*BOTH), samples(files), files / "reference.npz", files / "out.json")
    result = json.loads((files / "out.json").read_text())
    jsonschema.validate(result, public)
    for spoilt in ({"format": 2}, {"n": "many"}, {"metrics": {"FID": "low"}}, {"features": {}}, {"reference": None},
                   {"reference": {key: value for key, value in result["reference"].items() if key != "digest"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(result | spoilt, public)
    for name in ("format", "digest", "seed", "rounding"):
        with pytest.raises(jsonschema.ValidationError, match=name):
            jsonschema.validate({key: value for key, value in result.items() if key != name}, public)
    (files / "later.json").write_text(json.dumps(result | {"format": 2}))
    with pytest.raises(FileError, match=r"later\.json: format: "):
        load_record(files / "later.json", Result)


def test_a_reference_of_one_network_leaves_the_others_unmeasured_with_the_reason(files):
    write_statistics(measuring(), images_of(open_images(files / "reference.npz")), WHOLE, None, files / "r.safetensors")
    result = evaluate(measuring(*BOTH), samples(files), files / "r.safetensors")
    assert result["metrics"]["FID"] > 0 and result["metrics"]["FD-DINOv2"] is None
    for name in ("FD-DINOv2", "KD-DINOv2", "MIND-DINOv2", "precision-DINOv2"):
        assert "was not measured with DINOv2: measure it again, with the same networks" in result["refused"][name]


def test_reconstructions_have_their_own_names(files):
    originals = open_images(files / "samples.npz")
    subject = reconstructions_of(open_images(files / "samples.npz"), originals, files / "samples.npz", None)
    result = evaluate(measuring(*BOTH), subject, files / "samples.npz")
    assert result["metrics"]["rFD-DINOv2"] == pytest.approx(0, abs=1e-9) and result["metrics"]["MIND-DINOv2"] == 0
    assert "precision-DINOv2" not in result["metrics"]


def test_results_compare_where_the_networks_of_both_are_the_same(files):
    one, other = ({"path": own, "result": evaluate(measuring(*own), samples(files), files / "reference.npz")}
                  for own in (BOTH, ()))
    require_comparable([("a", one["result"]), ("b", other["result"])])
    changed = json.loads(json.dumps(one["result"]))
    changed["also"]["DINOv2"]["sha256"] = "3" * 64
    with pytest.raises(ComparisonError, match="DINOv2 sha256 differ"):
        require_comparable([("a", one["result"]), ("b", changed)])


def test_samples_that_were_measured_by_fewer_networks_than_asked_for_are_refused(files):
    write_statistics(measuring(), samples(files), WHOLE, None, files / "s.safetensors")
    with pytest.raises(MeasureError, match=r"samples\.npz: was not measured with DINOv2, which is asked for"):
        evaluate(measuring(*BOTH), Statistics.load(files / "s.safetensors"), files / "reference.npz")


def test_one_network_is_written_as_before_there_were_several(files):
    """So what was measured then still adds, resumes, and stands."""
    evaluator = measuring()
    evaluator.statistics(samples(files), None, Shard(0, 2)).save(files / "0.safetensors")
    part = Statistics.load(files / "0.safetensors")
    assert "also" not in part.facts and not part.also
    both = measuring(*BOTH).statistics(samples(files), None, Shard(1, 2))
    for one, other in ((part, both), (both, part)):
        with pytest.raises(StatisticsError, match="do not add: also differ"):
            one.require_same(other)


def test_statistics_by_other_weights_do_not_compare_or_add(files, monkeypatch):
    write_statistics(measuring(*BOTH), images_of(open_images(files / "reference.npz")), WHOLE, None, files / "r.safetensors")
    monkeypatch.setitem(features.JUDGES, "dinov2", features.JUDGES["dinov2"]._replace(
        load=lambda *_: (Projected(7, 5), "9" * 64)))
    with pytest.raises(ComparisonError, match=f"was measured with sha256 {'9' * 64} of DINOv2, reference.npz with 2222"):
        evaluate(measuring(*BOTH), samples(files), files / "r.safetensors")
    ours = Statistics.load(files / "r.safetensors")
    with pytest.raises(StatisticsError, match="also differ"):
        ours.require_same(measuring(*BOTH).begin(images_of(open_images(files / "reference.npz"))))


def test_the_networks_are_named_in_the_settings_or_on_the_command_line(files, command):
    result = command("evaluate", "--features", "inception,dinov2", "--set", "evaluation.lpips=false", "--samples",
                     "samples.npz", "--reference", "reference.npz", "--out", "out.json")
    assert result.exit_code == 0, result.output
    assert {"FID", "FD-DINOv2"} <= json.loads((files / "out.json").read_text())["metrics"].keys()
    refused = command("evaluate", "--features", "dinov2", "--weights", "w.pth", "--samples", "samples.npz")
    assert refused.exit_code == 1 and "--weights is of the Inception network" in refused.output
    (files / "my #2.pth").touch()
    odd = command("evaluate", "--features", "inception,dinov2", "--weights", "my #2.pth", "--set", "evaluation.lpips=false",
                  "--samples", "samples.npz", "--reference", "reference.npz", "--out", "odd.json")
    assert odd.exit_code == 0 and json.loads((files / "odd.json").read_text())["paths"]["features"] == "my #2.pth"
    for named, message in (("dinov2,dinov2", "name each network once"), ("dinov2,inception", r"also\.0")):
        result = command("evaluate", "--features", named, "--samples", "samples.npz", "--reference", "reference.npz")
        assert result.exit_code == 1 and "Traceback" not in result.output
        with pytest.raises(ConfigError, match=message):
            first, second = named.split(",")
            load_protocol([f"evaluation.features={first}", f"evaluation.also=[{second}]"])


def test_published_statistics_are_inceptions_alone(files):
    """Of ADM's file another network takes the images."""
    images = np.load(files / "reference.npz")["arr_0"]
    np.savez(files / "adm.npz", arr_0=images, mu=np.zeros(12), sigma=np.eye(12))
    by_images, by_adm = (evaluate(measuring(*ALONE), samples(files), files / name) for name in ("reference.npz", "adm.npz"))
    assert by_adm["metrics"] == by_images["metrics"] and by_adm["reference"]["published"] == []
    both = evaluate(measuring(*BOTH), samples(files), files / "adm.npz")
    assert both["reference"]["published"] == ["pooled"] and both["metrics"]["FD-DINOv2"] == by_images["metrics"]["FD-DINOv2"]


def test_statistics_without_images_leave_the_others_unmeasured_with_the_reason_and_no_more(files):
    np.savez(files / "theirs.npz", mu=np.zeros(12), sigma=np.eye(12))
    result = evaluate(measuring(*BOTH), samples(files), files / "theirs.npz")
    assert result["refused"]["FD-DINOv2"].endswith("has no statistics of these features; take images")
    assert not any("FD-DINOv2" in warning for warning in result["warnings"]) and result["metrics"]["FID"] is not None
    with pytest.raises(MeasureError, match=r"theirs\.npz: statistics without images, and not of DINOv2 with"):
        evaluate(measuring(*ALONE), samples(files), files / "theirs.npz")
    with pytest.raises(MeasureError, match=r"theirs\.npz: statistics without images, and not of DINOv2-bicubic with"):
        evaluate(measuring("features=dinov2-bicubic"), samples(files), files / "theirs.npz")


def test_what_torch_fidelity_keeps_of_dinov2_is_a_reference(files):
    torch.save({"mu": np.zeros(7), "sigma": np.eye(7)}, files / "theirs-dinov2-vit-l-14-stat-fid-1024.pt")
    result = evaluate(measuring(*ALONE), samples(files), files / "theirs-dinov2-vit-l-14-stat-fid-1024.pt")
    assert result["metrics"]["FD-DINOv2"] > 0 and result["reference"]["published"] == ["pooled"]


def test_published_statistics_are_part_of_what_a_reference_is(files):
    """The same images without them are another reference; in parts they are the same one."""
    np.savez(files / "adm.npz", arr_0=np.load(files / "reference.npz")["arr_0"], mu=np.zeros(12), sigma=np.eye(12))
    evaluator, out = measuring(), files / "out.json"
    subjects = images_of(open_images(files / "adm.npz")), evaluator.open_reference(files / "adm.npz")
    results = []
    for subject in subjects:
        write_statistics(evaluator, subject, WHOLE, None, files / "r.safetensors")      # at the same place
        results.append(evaluate(evaluator, samples(files), files / "r.safetensors", out))
    plain, published = results
    assert plain["metrics"]["FID"] != published["metrics"]["FID"]
    assert (plain["reference"]["published"], published["reference"]["published"]) == ([], ["pooled"])
    with pytest.raises(ComparisonError, match="reference published differ"):
        require_comparable([("a.json", plain), ("b.json", published)])
    for part in range(2):
        write_statistics(evaluator, subjects[1], Shard(part, 2), None, files / f"{part}.safetensors")
    added([files / "0.safetensors", files / "1.safetensors"], "cpu").save(files / "whole.safetensors")
    summed = evaluate(evaluator, samples(files), files / "whole.safetensors")
    assert summed["metrics"]["FID"] == published["metrics"]["FID"] and summed["reference"] == published["reference"]
