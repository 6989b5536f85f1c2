"""The state of a measurement: what it counts, that it adds, that it survives a file, and what it refuses."""

import itertools
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch_fidelity.metric_fid import fid_features_to_statistics
from torch_fidelity.utils_torch import torch_atomic_save

from restok.files import FileError, sha256_file
from restok.metrics import statistics as module
from restok.metrics.features import Features
from restok.metrics.intervals import GROUPS
from restok.metrics.published import published_gaussians
from restok.metrics.statistics import Statistics, StatisticsError
from restok.networks import saved
from restok.stages.subjects import MeasureError, reference_of

FEATURES = {"kind": "digits", "name": "first", "sha256": "f" * 64, "dims": 5, "resize": "none"}
IMAGES = {"name": "set", "digest": "abc", "n": 90, "size": [16, 16], "rounding": "8 bit, as stored", "originals": None,
          "in_order": False}


def empty(n=90, **changes):
    facts = {"features": FEATURES, "batch_size": 8, "images": IMAGES | {"n": n}, "shift": 0.5, "spatial": 7, "logits": 4,
             "classes": 4, "knows_labels": True, "likeness": {"psnr": None}, "levels": [1, 2], "codebook_size": 6}
    return Statistics(facts | changes)


def seen(n=90):
    """What a network and a tokenizer say of n images."""
    rng = torch.Generator().manual_seed(0)
    logits = 50 * torch.eye(4)[torch.randint(4, (n,), generator=rng)]
    return {"features": Features(torch.randn(n, 5, generator=rng), torch.randn(n, 7, generator=rng), logits),
            "labels": np.arange(n) % 4, "likeness": {"psnr": torch.rand(n, generator=rng)},
            "codes": torch.randint(6, (n, 3), generator=rng)}


def take(state, found, start, stop):
    part = slice(start, stop)
    state.update(start, Features(*(kind[part] for kind in found["features"])), found["labels"][part],
                 {name: values[part] for name, values in found["likeness"].items()}, found["codes"][part])
    return state


def same(a, b, **tolerance):
    for name, tensor in a.tensors.items():
        torch.testing.assert_close(tensor, b.tensors[name], msg=name, **tolerance)


def test_it_counts_what_it_is_shown():
    found = seen()
    state = take(empty(), found, 0, 90)
    assert torch.equal(state.kept, found["features"].pooled) and state.seen.tolist() == [1] * 90
    right = found["features"].logits.argmax(1).numpy() == found["labels"]
    assert state.asked.tolist() == [23, 23, 22, 22]
    assert state.right.tolist() == [int(right[found["labels"] == label].sum()) for label in range(4)]
    psnr = found["likeness"]["psnr"].double()
    assert state.likeness["psnr"].tolist() == pytest.approx([90, psnr.sum().item(), psnr.square().sum().item()])
    assert state.codes.shape == (GROUPS, 2, 6) and state.codes.sum((0, 2)).tolist() == [90, 180]
    np.testing.assert_allclose(state.gaussian("spatial").mean, found["features"].spatial.double().mean(0))


def test_shards_add_to_the_whole_in_any_order():
    found, whole = seen(), take(empty(), seen(), 0, 90)
    parts = [take(empty(), found, *bounds) for bounds in ((0, 32), (32, 40), (40, 90))]
    for first, second, third in itertools.permutations(parts):
        same(first + second + third, whole, rtol=1e-12, atol=1e-12)
        same(first + (second + third), whole, rtol=1e-12, atol=1e-12)
    assert int(parts[0].seen.sum()) == 32        # adding makes a new state


def test_a_state_that_went_through_a_file_goes_on_bit_for_bit(tmp_path):
    found = seen()
    half = take(empty(), found, 0, 40)
    half.save(tmp_path / "half.safetensors")
    resumed = take(Statistics.load(tmp_path / "half.safetensors"), found, 40, 90)
    same(resumed, take(take(empty(), found, 0, 40), found, 40, 90), rtol=0, atol=0)
    assert resumed.facts == half.facts and [one["calls"] for one in resumed.made] == [1]


def test_shards_that_do_not_belong_together_are_refused():
    with pytest.raises(StatisticsError, match="images differ"):
        empty() + empty(n=91)
    with pytest.raises(StatisticsError, match="batch_size differ, 8 and 16"):
        empty() + empty(batch_size=16)


def test_missing_images_and_images_counted_twice_are_named():
    found = seen()
    first, last = take(empty(), found, 0, 40), take(empty(), found, 48, 90)
    with pytest.raises(StatisticsError, match="8 of 90 images are missing, the first is number 40"):
        (first + last).require_whole()
    with pytest.raises(StatisticsError, match="2 of 90 images are counted twice, the first is number 38"):
        (first + take(empty(), found, 38, 90)).require_whole()


def test_memory_does_not_grow_with_the_images_beyond_the_kept_features(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 30)

    def size(n):
        """Of every tensor of the state and its parts."""
        state = empty(n)
        return sum(value.nbytes for part in (state, state.pooled, state.spatial, state.score) for held in vars(part).values()
                   for value in (held.values() if isinstance(held, dict) else [held]) if isinstance(value, torch.Tensor))

    assert size(4000) - size(40) == 5 * (4000 - 40)


def test_the_kept_features_are_spread_evenly(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 30)
    found = seen()
    state = take(take(empty(), found, 0, 33), found, 33, 90)
    assert state.kept_images[[0, -1]].tolist() == [0, 89] and set(np.diff(state.kept_images)) == {3, 4}
    assert torch.equal(state.kept, found["features"].pooled[torch.from_numpy(state.kept_images)])


def test_nan_features_and_foreign_labels_are_refused_by_name():
    found = seen()
    found["features"].pooled[50, 2] = torch.nan
    with pytest.raises(ValueError, match="set, images 40 to 59, first: features hold NaN"):
        take(empty(), found, 40, 60)
    found = seen() | {"labels": np.arange(90)}
    with pytest.raises(ValueError, match="set: labels from 0 to 89, of 4 classes"):
        take(empty(), found, 0, 90)


def test_a_damaged_file_is_refused_by_name(tmp_path):
    path = tmp_path / "state.safetensors"
    take(empty(), seen(), 0, 90).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StatisticsError, match=r"state\.safetensors: not a statistics file, or cut short"):
        Statistics.load(path)
    (tmp_path / "other.safetensors").write_text("no tensors")
    with pytest.raises(StatisticsError, match=r"other\.safetensors: not a statistics file"):
        Statistics.load(tmp_path / "other.safetensors")


def altered(path, change):
    """A whole file, with other facts or tensors."""
    take(empty(), seen(), 0, 90).save(path)
    with safe_open(path, "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    facts, made = json.loads(about["facts"]), json.loads(about["made"])
    change(facts, tensors, made)
    save_file(tensors, path, {"facts": json.dumps(facts), "made": json.dumps(made)})


@pytest.mark.parametrize(("change", "message"), [
    (lambda facts, *_: facts.pop("features"), "has no 'facts.features'"),
    (lambda facts, *_: facts.update(features="digits"), "facts.features: .*found 'digits'"),
    (lambda facts, *_: facts.update(shift=float("nan")), "facts.shift: "),
    (lambda facts, *_: facts.update(classes="4"), "facts.classes: .*found '4'"),
    (lambda facts, *_: facts.update(classes=10**9), "its tensors are not those of its facts"),
    (lambda facts, *_: facts.update(codebook_size=-6), "facts.codebook_size: .*found -6"),
    (lambda facts, *_: facts["features"].update(dims=10**9), "its tensors are not those of its facts"),
    (lambda facts, *_: facts["images"].update(n=10**9), "facts.images.n: 1000000000, of other tensors"),
    (lambda facts, *_: facts["images"].update(size=[4]), "facts.images.size: "),
    (lambda facts, tensors, made: made.append("cpu"), "made.1: .*found 'cpu'"),
    (lambda facts, tensors, made: tensors.pop("seen"), "facts.images.n"),
    (lambda facts, tensors, made: tensors.update(kept=tensors["kept"].half()), "its tensors are not those of its facts"),
    (lambda facts, tensors, made: tensors["kept"].fill_(torch.inf), "kept holds NaN, infinity"),
    (lambda facts, tensors, made: tensors["pooled.outer"].fill_(torch.nan), "pooled.outer holds NaN, infinity"),
    (lambda facts, tensors, made: tensors["codes"].sub_(9), "codes holds .* a negative count"),
    (lambda facts, tensors, made: tensors["pooled.count"].add_(1), "pooled.count and seen are of other numbers"),
    (lambda facts, tensors, made: tensors.update({"published.pooled.mean": torch.zeros(5)}), "published.pooled: not a mean"),
    (lambda facts, tensors, made: tensors.update({"published.pooled.mean": torch.zeros(4), "published.pooled.covariance":
                                                  torch.eye(4)}), "published.pooled: not a mean .* of 5 features"),
    (lambda facts, tensors, made: tensors.update({"published.mean": torch.zeros(4)}), "published.mean: not known")])
def test_a_file_whose_facts_or_tensors_do_not_fit_is_refused_by_name(unchecked, tmp_path, change, message):
    altered(tmp_path / "s.safetensors", change)
    with pytest.raises(StatisticsError, match=rf"s\.safetensors: not a statistics file, or cut short \({message}"):
        Statistics.load(tmp_path / "s.safetensors")


def test_a_byte_that_changed_in_a_sum_is_seen(tmp_path):
    path = tmp_path / "s.safetensors"
    take(empty(), seen(), 0, 90).save(path)
    whole = path.read_bytes()
    for place in (len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        with pytest.raises(StatisticsError, match=r"s\.safetensors: not a statistics file.* \(its sums are not those"):
            Statistics.load(path)


def test_names_that_are_no_text_go_through_a_file(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    altered(tmp_path / "s.safetensors", lambda facts, *_: facts["images"].update(name=name))
    assert Statistics.load(tmp_path / "s.safetensors").name == name


@pytest.mark.parametrize("arrays", [{"mu": np.array(["a"] * 5)}, {"mu": np.zeros(())}, {"sigma": np.full((5, 5), np.nan)},
                                    {"sigma": np.array([None])}])
def test_published_statistics_that_are_none_are_refused_by_name(unchecked, tmp_path, arrays):
    np.savez(tmp_path / "adm.npz", **{"mu": np.zeros(5), "sigma": np.eye(5)} | arrays)
    with pytest.raises(StatisticsError, match=r"adm\.npz: 'mu', 'sigma': .*; take the published file again"):
        published_gaussians(tmp_path / "adm.npz")


def covariance(dims):
    x = np.random.default_rng(0).normal(size=(50, dims))
    return np.cov(x, rowvar=False)


def test_published_statistics_replace_those_of_the_images_and_survive_a_file(tmp_path):
    published = {"mu": np.arange(5.0), "sigma": covariance(5), "mu_s": np.ones(7), "sigma_s": covariance(7)}
    np.savez(tmp_path / "adm.npz", arr_0=np.zeros((2, 4, 4, 3), np.uint8), **published)
    state = take(empty(), seen(), 0, 90)
    state.published = published_gaussians(tmp_path / "adm.npz")
    state.save(tmp_path / "state.safetensors")
    loaded = Statistics.load(tmp_path / "state.safetensors")
    for part, mean in (("pooled", "mu"), ("spatial", "mu_s")):
        np.testing.assert_array_equal(loaded.gaussian(part).mean, published[mean])
    with pytest.raises(StatisticsError, match="published statistics do not add"):
        loaded + state


def test_half_a_pair_of_published_statistics_is_refused(unchecked, tmp_path):
    np.savez(tmp_path / "adm.npz", mu=np.zeros(5))
    with pytest.raises(StatisticsError, match=r"adm\.npz: has only one of 'mu' and 'sigma'"):
        published_gaussians(tmp_path / "adm.npz")
    np.savez(tmp_path / "adm.npz", mu=np.zeros(5), sigma=np.zeros((4, 4)))
    with pytest.raises(StatisticsError, match="'mu', 'sigma': mean of shape"):
        published_gaussians(tmp_path / "adm.npz")


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(saved, "save_file", full)
    with pytest.raises(OSError, match=r"state\.safetensors: cannot be written .*No space left.*make room"):
        empty().save(tmp_path / "state.safetensors")
    assert list(tmp_path.iterdir()) == []


# Other packages' files

def fidelity_cache(path, features):
    """As torch-fidelity writes its cache."""
    torch_atomic_save(fid_features_to_statistics(torch.from_numpy(features)), str(path))
    return path


VALUES = np.random.default_rng(3).normal(size=(40, 5)).astype(np.float32)


def test_torch_fidelitys_cache_is_read_as_it_writes_it(tmp_path):
    path = fidelity_cache(tmp_path / "mine-inception-v3-compat-stat-fid-2048.pt", VALUES)
    found = published_gaussians(path)["pooled"]
    np.testing.assert_allclose(found.mean, VALUES.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(VALUES, rowvar=False), rtol=1e-6)
    subject = reference_of(path, None, 0)
    assert subject.facts["digest"] == sha256_file(path) and subject.name == path.name and "caution" not in subject.facts
    torch.save({"mu": torch.zeros(5), "sigma": torch.eye(5)}, tmp_path / "tensors.pt")
    assert published_gaussians(tmp_path / "tensors.pt")["pooled"].covariance.equal(torch.eye(5).double())


def test_a_cache_by_numpy_1_is_read_too(tmp_path):
    """It names the function that makes an array by another module."""
    with zipfile.ZipFile(fidelity_cache(tmp_path / "new.pt", VALUES)) as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            old.writestr(name, content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"numpy.core.multiarray" in (tmp_path / "old.pt").read_bytes()
    np.testing.assert_allclose(published_gaussians(tmp_path / "old.pt")["pooled"].mean, VALUES.mean(0), rtol=1e-6)


class Code:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("content", [
    {"mu": np.zeros(5)}, {"mu": np.zeros(5), "sigma": -np.eye(5)}, {"mu": np.zeros(5), "sigma": np.full((5, 5), np.nan)},
    {"mu": np.zeros(5), "sigma": np.zeros((4, 4))}, {"mu": "a", "sigma": np.eye(5)}, {"mean": np.zeros(5)}, VALUES,
    torch.zeros(3, 5), [1], {"mu": Code(), "sigma": np.eye(5)}, {"mu": np.array([Code()]), "sigma": np.eye(5)}])
def test_a_cache_that_holds_no_statistics_is_refused_and_no_code_in_it_is_run(unchecked, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "theirs.pt")
    with pytest.raises(StatisticsError, match=r"theirs\.pt: (has only one of|'mu', 'sigma': |no statistics as torch-fidelity)"):
        published_gaussians("theirs.pt")
    assert not Path("touched").exists()
    Path("theirs.pt").write_bytes(Path("theirs.pt").read_bytes()[:-300])
    with pytest.raises(StatisticsError, match=r"theirs\.pt: no statistics as torch-fidelity keeps them, .*stat-fid-2048\.pt"):
        published_gaussians("theirs.pt")
    with pytest.raises(FileError, match=r"nowhere\.pt: cannot be read \(No such file"):
        reference_of(Path("nowhere.pt"), None, 0)


PAIR = {"mu": np.zeros(5), "sigma": np.eye(5)}


@pytest.mark.parametrize(("name", "arrays", "caution"), [
    ("adm.npz", PAIR | {"mu_s": np.zeros(7), "sigma_s": np.eye(7)}, False),
    ("pytorch_fid.npz", PAIR, True), ("ffhq_legacy_pytorch_trainval_1024.npz", PAIR, True),
    ("ffhq_legacy_tensorflow_trainval_1024.npz", PAIR, False), ("mine_clean.npz", PAIR, True)])
def test_whose_resize_may_be_another_is_said_beside_the_distance(tmp_path, name, arrays, caution):
    np.savez_compressed(tmp_path / name, **arrays)
    subject = reference_of(tmp_path / name, None, 0)
    assert ("caution" in subject.facts) is caution
    if caution:
        assert subject.facts["caution"].startswith(f"{name} does not say how its images were resized")


def test_clean_fids_own_mode_and_its_features_are_refused(tmp_path):
    for name in ("cifar10_clean_train_32.npz", "mine_clean_custom_na.npz"):
        np.savez_compressed(tmp_path / name, **PAIR)
        with pytest.raises(StatisticsError, match=rf"{name}: clean-fid's statistics in its mode 'clean'.*take clean-fid's"):
            reference_of(tmp_path / name, None, 0)
    np.savez_compressed(tmp_path / "mine_clean_custom_na_kid.npz", feats=VALUES)
    with pytest.raises(MeasureError, match=r"_kid\.npz: features, as clean-fid keeps them for KID; name its file"):
        reference_of(tmp_path / "mine_clean_custom_na_kid.npz", None, 0)
