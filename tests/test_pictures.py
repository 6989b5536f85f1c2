"""restok sample and restok reconstruct: pictures, folders and npz files from tiny, untrained models."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import ROOT, small_params
from PIL import Image

from restok.config import Sampling
from restok.config.load import load_params
from restok.data.transforms import center_crop, to_tensor, to_uint8
from restok.files import write_json
from restok.stages.images import SAMPLING, reconstruction
from restok.stages.sampler import Sampler
from restok.weights import load_tokenizer

PARAMS = small_params()


@pytest.fixture
def sample(models, command):
    return partial(command, "sample", "--tokenizer", models / "tokenizer", "--generator", models / "generator")


@pytest.fixture
def reconstruct(models, command):
    return partial(command, "reconstruct", "--tokenizer", models / "tokenizer")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three pictures of their own sizes, in two classes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, size in (("cats/tom.png", (20, 31)), ("cats/kit.bmp", (16, 16)), ("dogs/rex.png", (40, 18))):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def expected(models, paths, keep=None):
    """Originals and reconstructions, by hand."""
    model = load_tokenizer(models / "tokenizer")
    views = np.stack([center_crop(Image.open(path).convert("RGB"), 16) for path in paths])
    return views, to_uint8(model.decode(model.encode(to_tensor(views)), keep=keep))


# Samples.

def test_a_picture_has_a_class_a_row_of_the_very_images_of_the_npz(sample, tmp_path):
    classes = ["--class", 7, "--class", 2, "--count", 3, "--seed", 5]
    for name in ("s.png", "s.npz"):
        assert sample(*classes, "--out", tmp_path / name).exit_code == 0
    grid, found = pixels(tmp_path / "s.png"), np.load(tmp_path / "s.npz")
    assert found["labels"].tolist() == [7, 2, 7, 2, 7, 2]
    assert grid.shape == (2 * 18 + 2, 3 * 18 + 2, 3)
    for row, label in enumerate((7, 2)):
        for column, image in enumerate(found["arr_0"][found["labels"] == label]):
            assert np.array_equal(grid[2 + 18 * row:18 + 18 * row, 2 + 18 * column:18 + 18 * column], image)


@pytest.mark.parametrize(("options", "rows", "columns"), [
    (["--class", "4"], 4, 4), (["--class", "4", "--count", "5"], 2, 3), (["--classes", "3", "--per-class", "2"], 3, 2),
    ([], 10, 16)])
def test_how_many_are_shown_unasked(sample, tmp_path, options, rows, columns):
    """One class squarely; every class of few, 16 each."""
    assert sample(*options, "--out", tmp_path / "s.jpg").exit_code == 0
    assert pixels(tmp_path / "s.jpg").shape == (18 * rows + 2, 18 * columns + 2, 3)


def test_without_a_parameter_file_the_published_settings_hold(models):
    published = load_params(ROOT / "params/imagenet256.yaml").sampling
    ours = Sampling.model_validate(SAMPLING)
    assert (ours.temperature, ours.top_k, ours.top_p, ours.class_cache) == (
        published.temperature, published.top_k, published.top_p, published.class_cache)
    assert ours.guidance is None and ours.rounding == "round"


@pytest.mark.parametrize(("options", "guidance"), [
    ([], None), (["--schedule", "step", "--scale", "3", "--start", "0.25"], ("step", 3.0, 0.25)),
    (["--params", "params/demo.yaml", "--set", "sampling.guidance={schedule: linear, scale: 2.0}"], ("linear", 2.0, 0.0)),
    (["--params", "params/demo.yaml", "--set", "sampling.guidance={schedule: linear, scale: 2.0}", "--guidance", "{file}"],
     ("cosine", 4.0, 0.0))])
def test_guidance_comes_from_a_file_or_the_options_or_the_parameters_or_there_is_none(sample, tmp_path, monkeypatch, options,
                                                                                     guidance):
    write_json(tmp_path / "g.json", {"chosen": {"schedule": "cosine", "scale": 4.0, "start": 0.0}})
    seen, call = [], Sampler.batches
    monkeypatch.setattr(Sampler, "batches", lambda self, *words: seen.append(words[0]) or call(self, *words))
    options = [option.format(file=tmp_path / "g.json") if option == "{file}" else option for option in options]
    result = sample(*options, "--class", 1, "--count", 1, "--out", tmp_path / "s.npz")
    assert result.exit_code == 0, result.stderr
    assert (seen[0] and (seen[0].schedule, seen[0].scale, seen[0].start)) == guidance


def test_options_go_before_the_parameter_file(sample, tmp_path, monkeypatch):
    seen, call = [], Sampler.batches
    monkeypatch.setattr(Sampler, "batches", lambda self, *words: seen.append((self.sampling, words[2])) or call(self, *words))
    arguments = ["--params", "params/demo.yaml", "--set", "sampling.batch_size=2", "--set", "evaluation.samples_per_class=4",
                 "--set", "sampling.rounding=truncate", "--set", "sampling.guidance={schedule: constant, scale: 1}",
                 "--set", "seed=9", "--class", 1, "--out", tmp_path / "s.npz"]
    assert sample(*arguments).exit_code == 0
    sampling, seed = seen[0]
    assert (sampling.top_p, sampling.batch_size, seed, sampling.rounding) == (0.95, 2, 9, "truncate")
    assert len(np.load(tmp_path / "s.npz")["arr_0"]) == 4                          # as many as are evaluated
    seen.clear()
    assert sample(*arguments, "--top-p", 0.5, "--top-k", 3, "--temperature", 0.7, "--seed", 0, "--count", 1).exit_code == 0
    sampling, seed = seen[0]
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.batch_size, seed) == (0.7, 3, 0.5, 2, 0)


@pytest.mark.parametrize(("options", "message"), [
    (["--class", "10"], "class 10: {models}/generator has the classes 0 to 9"), (["--class", "-1"], "the classes 0 to 9"),
    (["--class", "1", "--classes", "2"], "leave one of them out"), (["--scale", "2"], "name --schedule and --scale"),
    (["--start", "0.5"], "name --schedule and --scale"), (["--set", "seed=1"], "name one with --params"),
    (["--top-p", "1.5"], "sampling: top_p"), (["--count", "26"], "260 images, but a picture shows 256 at most"),
    (["--schedule", "step", "--scale", "2", "--guidance", "g.json"], "name --schedule and --scale"),
    (["--out", "s.tif"], "s.tif: expected a name that ends in .npz, .png"),
    (["--params", "params/demo.yaml"],
     "demo.yaml: sampling.guidance is null; name --guidance, or --schedule constant --scale 1 for none")])
def test_calls_that_cannot_be_sampled_say_why(sample, models, tmp_path, options, message):
    result = sample("--out", tmp_path / "s.png", *options)
    assert result.exit_code == 1 and message.format(models=models) in result.stderr.replace("\n", "")
    assert not (tmp_path / "s.png").exists()


# Reconstructions.

def test_a_picture_has_the_originals_above(reconstruct, models, photos, tmp_path):
    paths = [photos / "dogs/rex.png", photos / "cats/tom.png"]
    result = reconstruct(*paths, "--out", tmp_path / "r.png")
    assert result.exit_code == 0 and "rex: " in result.stderr and "PSNR, mean of 2: " in result.stderr
    grid = pixels(tmp_path / "r.png")
    assert grid.shape == (2 * 18 + 2, 2 * 18 + 2, 3)
    for row, images in enumerate(expected(models, paths)):
        for column, image in enumerate(images):
            assert np.array_equal(grid[2 + 18 * row:18 + 18 * row, 2 + 18 * column:18 + 18 * column], image)


def test_more_images_than_a_row_wrap_in_pairs_of_rows(reconstruct, photos, tmp_path):
    many = [photos / "cats/tom.png"] * 11
    assert reconstruct(*many, "--out", tmp_path / "r.png").exit_code == 0
    grid = pixels(tmp_path / "r.png")
    assert grid.shape == (4 * 18 + 2, 8 * 18 + 2, 3)
    assert np.array_equal(grid[2:18, 2:18], grid[38:54, 2:18]) and np.array_equal(grid[20:36, 2:18], grid[56:72, 38:54])
    assert (grid[38:, 2 + 3 * 18:] == 255)[0:16, 0:16].all()                      # nothing after the eleventh


def test_a_folder_gets_a_png_an_image_under_its_own_name(reconstruct, models, photos, tmp_path):
    assert reconstruct(photos, "--keep", 4, "--out", tmp_path / "r").exit_code == 0
    names = ["cats/kit", "cats/tom", "dogs/rex"]
    assert sorted(path.relative_to(tmp_path / "r").as_posix() for path in (tmp_path / "r").rglob("*.png")) == [
        f"{name}.png" for name in names]
    _, wanted = expected(models, [next(photos.glob(f"{name}.*")) for name in names], keep=4)
    for name, image in zip(names, wanted, strict=True):
        assert np.array_equal(pixels(tmp_path / f"r/{name}.png"), image)
    assert reconstruct(photos / "dogs/rex.png", "--out", tmp_path / "r").exit_code == 0       # replaced whole
    assert [path.name for path in (tmp_path / "r").rglob("*.png")] == ["rex.png"]


def test_an_npz_keeps_codes_and_labels(reconstruct, models, photos, tmp_path):
    assert reconstruct(photos, "--batch-size", 2, "--out", tmp_path / "r.npz").exit_code == 0
    found = np.load(tmp_path / "r.npz")
    views, pictures = expected(models, [photos / "cats/kit.bmp", photos / "cats/tom.png", photos / "dogs/rex.png"])
    assert found["labels"].tolist() == [0, 0, 1] and np.abs(found["arr_0"].astype(int) - pictures).max() <= 1
    codes = load_tokenizer(models / "tokenizer").encode(to_tensor(views))
    assert np.array_equal(found["codes"], codes.numpy())
    np.savez(tmp_path / "views.npz", arr_0=views)
    assert reconstruct(tmp_path / "views.npz", photos / "dogs/rex.png", "--out", tmp_path / "both.npz").exit_code == 0
    both = np.load(tmp_path / "both.npz")                                          # a file has no label, so there are none
    assert len(both["arr_0"]) == 4 and "labels" not in both and np.array_equal(both["codes"][:3], codes.numpy())


def test_a_prepared_folder_is_its_validation_split(reconstruct, digits, tmp_path):
    result = reconstruct(digits, "--batch-size", 100, "--out", tmp_path / "r.npz")
    assert result.exit_code == 0 and "PSNR, mean of 360: " in result.stderr and "data-000007" not in result.stderr
    found = np.load(tmp_path / "r.npz")
    assert found["arr_0"].shape == (360, 16, 16, 3) and len(np.unique(found["labels"])) == 10


def test_samples_are_rounded_or_truncated_to_8_bits(models):
    drawn = []
    for how in ("round", "truncate"):
        sampler = Sampler(models / "tokenizer", models / "generator", Sampling.model_validate(SAMPLING | {"rounding": how}))
        drawn += [images.astype(int) for _, images in sampler.batches(None, np.arange(3), 0, 3)]
    rounded, darker = drawn
    assert set(np.unique(rounded - darker)) == {0, 1}


def test_the_batch_is_no_part_of_a_reconstruction(models):
    model, images = load_tokenizer(models / "tokenizer"), np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), np.uint8)
    (whole, codes), (parts, same) = reconstruction(model, images, 5), reconstruction(model, images, 2)
    assert torch.equal(codes, same) and np.abs(whole.astype(int) - parts).max() <= 1


@pytest.mark.parametrize(("name", "options", "message"), [
    ("broken.png", [], "broken.png: not a readable image"), ("absent.png", [], "absent.png: no such file or folder"),
    ("fine.png", ["--keep", "17"], "makes 16 codes; keep 1 to 16"), ("fine.png", ["--keep", "0"], "keep 1 to 16"),
    ("fine.png", ["--out", "r.tiff"], "r.tiff: expected .png, .jpg, .jpeg, .npz, or a folder"),
    ("wide.npz", [], "images of 16 x 20 pixels (height x width), but 16 x 16 were asked for"),
    ("clear.png", [], "clear.png: has an alpha channel"), ("deep.png", [], "deep.png: has 16 bits a channel")])
def test_what_cannot_be_reconstructed_is_named(reconstruct, tmp_path, name, options, message):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Image.new("RGB", (16, 16)).save(tmp_path / "fine.png")
    Image.new("RGBA", (16, 16)).save(tmp_path / "clear.png")
    Image.new("I;16", (16, 16)).save(tmp_path / "deep.png")
    np.savez(tmp_path / "wide.npz", arr_0=np.zeros((1, 16, 20, 3), np.uint8))
    result = reconstruct(tmp_path / name, "--out", tmp_path / "r.png", *options)
    assert result.exit_code == 1 and message in result.stderr.replace("\n", "") and not (tmp_path / "r.png").exists()
    assert "--crop" not in result.stderr                                           # which this verb does not take


def test_folders_that_hold_anything_else_are_not_replaced(reconstruct, photos, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/mine.txt").write_text("kept")
    for out, message in (("letters", "would be replaced whole, and holds"), ("letters/mine.txt", "is a file; name a folder")):
        result = reconstruct(photos / "dogs/rex.png", "--out", tmp_path / out)
        assert result.exit_code == 1 and message in result.stderr
    assert (tmp_path / "letters/mine.txt").read_text() == "kept"


@pytest.mark.parametrize(("images", "out"), [
    ("a.png", "a.png"), ("cats/../a.png", "link.png"), ("cats", "cats/tom.png"), ("cats", "cats/new.png"),
    ("cats", "cats/r.npz"), ("cats", "cats/r"), ("views.npz", "views.npz"),
    ("cats/tom.png", "cats"), ("cats", "."), ("cats", "cats")])
def test_nothing_is_written_over_what_is_read_or_among_it(reconstruct, tmp_path, images, out):
    """As a picture, an npz and a folder; by any name of the place."""
    (tmp_path / "cats").mkdir()
    for name in ("a.png", "cats/tom.png"):
        Image.new("RGB", (16, 16), "red").save(tmp_path / name)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    np.savez(tmp_path / "views.npz", arr_0=np.zeros((1, 16, 16, 3), np.uint8))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = reconstruct(tmp_path / images, "--out", tmp_path / out)
    assert result.exit_code == 1 and "would be written over" in result.stderr and f"{tmp_path / images}, which" in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_two_images_of_one_name_are_refused_in_a_folder(reconstruct, photos, tmp_path):
    result = reconstruct(photos / "dogs/rex.png", photos / "dogs/rex.png", "--out", tmp_path / "r")
    assert result.exit_code == 1 and "two images are named rex" in result.stderr and not (tmp_path / "r").exists()
