"""Figures: what they draw is in the CSV beside them, and the CSV is what the stages wrote."""

import json
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from PIL import Image
from reporting_fixtures import (
    DISTANCES,
    candidate,
    experiments,
    inputs,
    numbers,
    run_params,
    run_sheet,
    write,
    write_evaluations,
    write_experiments,
    write_run,
    write_two_rounds,
)
from typer.testing import CliRunner

from restok.cli import app
from restok.config import Guidance
from restok.experiments import ITEMS, Sheet, Tree
from restok.files import write_json
from restok.metrics.comparison import Comparison
from restok.metrics.intervals import GROUPS
from restok.metrics.reconstruction import psnr_ceiling
from restok.metrics.results import ComparisonError
from restok.progress import CONSOLE
from restok.reporting.figures import bars, common, curves, masks, pictures, positions
from restok.reporting.inputs import Inputs, draw
from restok.reporting.measured import best, checkpoints
from restok.reporting.run import ReportError
from restok.stages.images import _panel


@pytest.fixture(scope="module")
def params():
    return run_params()


@pytest.fixture
def run(run):
    ids = np.array([(0, 0), (0, 1), (2, 2), (3, 3)])
    np.savez(run / "layout.npz", encoder_mask=np.tril(np.ones((4, 4), bool)) | (np.indices((4, 4)).max(0) < 2),
             encoder_groups=np.array([2, 1, 1]), encoder_names=np.array(["S1", "L1", "L2"]), encoder_ids=ids,
             decoder_groups=np.array([1, 1, 2]), decoder_names=np.array(["L1", "L2", "image"]), decoder_ids=ids[::-1],
             generator_mask=np.tril(np.ones((4, 4), bool)), generator_groups=np.array([1, 1, 2]),
             generator_inputs=np.array(["class", "t1", "t2", "M0"]))
    return run


def of_run(run, params, *items: str, seeds: int = 1) -> Inputs:
    return inputs(run, run_sheet(params, *items, seeds=seeds), params)


def fig7_data(params, run, seeds: int = 1) -> pd.DataFrame:
    return curves.fig7_data(of_run(run, params, "fig7", seeds=seeds), "fig7")


def guidance_data(run, params) -> pd.DataFrame:
    return curves.guidance_data(of_run(run, params, "guidance"), "guidance")


def figure(item: str, run, params, out, seeds: int = 1) -> None:
    draw(of_run(run, params, item, seeds=seeds), ITEMS[item], out)


@pytest.mark.parametrize("name", [name for name, item in ITEMS.items() if item.kind == "figure"])
def test_a_figure_is_three_files_and_is_drawn_the_same_again(name, run, params, tmp_path):
    files = [tmp_path / "out" / f"{name}{suffix}" for suffix in (".csv", ".pdf", ".png")]
    figure(name, run, params, files[2])
    assert sorted(files[0].parent.iterdir()) == files
    with Image.open(files[2]) as picture:
        assert run.as_posix() in picture.info["Source"]
        assert np.asarray(picture.convert("L")).std() > 5
    assert len(pd.read_csv(files[0])) > 1
    pdf = files[1].read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf           # fonts are within, as TrueType
    figure(name, run, params, files[2])
    assert files[1].read_bytes() == pdf


class Stub:
    """A tokenizer of two tokens: the first gives the image a grey level brighter or darker, both give it as it is."""

    config = SimpleNamespace(levels=(1, 1), latents=2)

    def encode(self, images, out):
        self.images = images
        out["scales"] = [torch.zeros(len(images), 4, 1)]
        out["attention"].append(torch.full((len(images), 1, 6, 6), 0.125))

    def decode(self, codes, keep):
        return self.images if keep == 2 else self.images + torch.where(self.images > 0.5, -1, 1) / 255


def test_a_figure_is_drawn_in_a_folder_without_the_papers_numbers(command, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command("figure", "fig8", "--params", ROOT / "params/imagenet256.yaml", "--results", run, "--out", "fig8.png")
    assert result.exit_code == 0 and (tmp_path / "fig8.png").is_file(), result.stderr


def test_a_figure_is_called_as_what_is_written(run, command, tmp_path):
    result = command("figure", "fig8", "--params", ROOT / "params/imagenet256.yaml", "--results", run, "--out",
                     tmp_path / "fig8.gif")
    assert result.exit_code == 1 and "fig8.gif: a figure is written as PNG and PDF" in result.stderr


def test_fig5_data_are_the_panels_shares_by_layer_and_their_mean_and_the_psnr_of_what_is_shown(tmp_path):
    attention = np.array([[[np.nan, 0.5]], [[0.25, 0.75]]], np.float32)
    np.savez(tmp_path / "p.npz", psnr=[[34.5, 48.25], [33.0, 47.5]], kept=np.array([1, 2]), attention=attention)
    data = pictures.fig5_data(tmp_path / "p.npz")
    shares = data[data["quantity"] == "share"]
    assert shares[["layer", "level", "scale", "value"]].to_numpy().tolist() == [
        ["mean", 1, 1, 0.25], ["mean", 1, 2, 0.625], [1, 1, 2, 0.5], [2, 1, 1, 0.25], [2, 1, 2, 0.75]]
    psnr = data[data["quantity"] == "PSNR"]
    assert psnr[["image", "tokens", "value"]].to_numpy().tolist() == [[1, 1, 34.5], [1, 2, 48.25], [2, 1, 33], [2, 2, 47.5]]


def test_a_perfect_prefix_has_the_psnr_of_the_ceiling(unchecked, run, params, tmp_path, monkeypatch):
    images = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255
    np.savez(run / "panel" / "main" / "middle.npz", **_panel(Stub(), images))
    data = pictures.fig5_data(run / "panel" / "main" / "middle.npz")
    values = data[data["quantity"] == "PSNR"].pivot(index="image", columns="tokens", values="value")
    assert values[1].tolist() == pytest.approx([20 * math.log10(255)] * 3, rel=1e-12)
    assert values[2].tolist() == pytest.approx([psnr_ceiling(768)] * 3, rel=1e-12)
    kept = []
    monkeypatch.setattr(common, "save", lambda figure, *_: kept.append(figure))
    figure("fig5", run, params, tmp_path / "fig5.png")
    names = [label.get_text() for label in kept[0].axes[0].get_xticklabels()]
    assert names == ["original\n", "1 token\n48.1 dB", "2 tokens\n77.0 dB"]


def test_fig5_names_a_file_that_is_missing(run, params, tmp_path):
    (run / "panel" / "main" / "middle.npz").unlink()
    with pytest.raises(ReportError, match=r"middle\.npz: missing"):
        figure("fig5", run, params, tmp_path / "fig5.png")


def test_fig6_puts_each_class_in_its_row(run, params, tmp_path, monkeypatch):
    samples = np.zeros((5, 16, 16, 3), np.uint8)
    samples[[0, 2], ..., 0] = 255                                  # class 0 is red, class 1 is blue
    samples[[1, 3], ..., 2] = 255
    np.savez(run / "samples" / "main" / "middle.npz", arr_0=samples, labels=np.array([0, 1, 0, 1, 0]))
    write(run / "data" / "manifest.json", {"splits": {"train": {"classes": ["red", "blue"]}}})
    monkeypatch.setattr(pictures, "PER_CLASS", 2)
    figure("fig6", run, params, tmp_path / "fig6.png")
    pixels = np.asarray(Image.open(tmp_path / "fig6.png").convert("RGB")).astype(int)
    red, blue = (pixels[..., a] - pixels[..., b] > 200 for a, b in ((0, 2), (2, 0)))
    assert np.flatnonzero(red.any(1)).max() < np.flatnonzero(blue.any(1)).min()
    assert red.sum() == pytest.approx(blue.sum(), rel=0.1)
    data = pd.read_csv(tmp_path / "fig6.csv")
    assert data[["row", "column", "class_name", "sample"]].to_numpy().tolist() == [
        [1, 1, "red", 0], [1, 2, "red", 2], [2, 1, "blue", 1], [2, 2, "blue", 3]]
    write(run / "data" / "manifest.json", {"splits": {"train": {"classes": ["red"]}}})
    with pytest.raises(ReportError, match="labels up to 1, but there are 1 class names"):
        figure("fig6", run, params, tmp_path / "fig6.png")


def test_fig7_of_one_seed_has_intervals(run, params):
    data = fig7_data(params, run)
    assert data["step"].tolist() == [10, 20, 30]
    assert data["generation_distance"].tolist() == list(DISTANCES.values())
    assert data["unguided_distance"].tolist() == [2 * distance for distance in DISTANCES.values()]
    assert data.loc[0, ["unguided_distance_low", "unguided_distance_high"]].tolist() == pytest.approx([54, 66])
    assert data.loc[0, ["generation_distance_low", "generation_distance_high"]].tolist() == pytest.approx([27, 33])
    assert data.loc[0, ["reconstruction_distance_low", "reconstruction_distance_high"]].tolist() == pytest.approx([3.6, 4.4])
    assert set(data["reconstruction_metric"] + " " + data["generation_metric"]) == {"rFD-digits FD-digits"}
    assert data["generation_distance_sd"].isna().all() and set(data["n_seeds"]) == {1}


def test_fig7_of_several_seeds_has_their_mean_and_deviation(run, params, tmp_path):
    write_run(run, "main.1")
    path = run / "evaluation" / "main.1" / "early" / "generation.json"
    found = json.loads(path.read_text())
    for part, value in (("metrics", 34.0), ("intervals", [30.0, 38.0])):
        found[part]["FD-digits"] = value
    write(path, found)
    first = fig7_data(params, run, seeds=2).iloc[0]
    assert (first["generation_distance"], first["generation_distance_sd"]) == (32.0, pytest.approx(math.sqrt(8)))   # of 30, 34
    assert pd.isna(first["generation_distance_low"]) and first["reconstruction_distance_sd"] == 0
    assert (first["n_seeds"], first["seeds"]) == (2, "0 1") and str(path) in first["source"]
    figure("fig7", run, params, tmp_path / "fig7.png", seeds=2)


def test_fig7_is_fed_by_every_seed_of_one_row_of_the_sheet(run, params):
    write_run(run, "main.1")
    both = of_run(run, params, "fig7", seeds=2).tree
    measured = checkpoints(both, "fig7")
    assert [row.first.label for row in measured] == list(DISTANCES)
    assert all([trial.seed for trial in row.trials] == [0, 1] for row in measured)
    assert measured[0].measured[1].generation.path == run / "evaluation/main.1/early/generation.json"
    trials = both.sheet.trials
    with pytest.raises(ReportError, match="rows main, mine feed fig7, which shows one"):
        checkpoints(Tree(run, Sheet("run", [*trials, replace(trials[1], id="mine")])), "fig7")


def test_every_figure_takes_the_checkpoint_that_is_best_on_average(run, params):
    write_run(run, "main.1")
    write_evaluations(run, "middle", numbers=(4.0, 11.5, 40.0), trial="main.1")
    data, both = fig7_data(params, run, seeds=2), of_run(run, params, "fig7", "codebook", seeds=2)
    assert data["generation_distance"].tolist() == [30.0, pytest.approx(29.06, abs=0.01), 19.5]
    for item in ("fig7", "codebook"):
        assert best(both.tree, item).first.label == data.loc[data["generation_distance"].idxmin(), "checkpoint"] == "late"
    assert set(bars.codebook_data(both, "codebook")["checkpoint"]) == {"late"}
    assert set(bars.codebook_data(of_run(run, params, "codebook"), "codebook")["checkpoint"]) == {"middle"}


def test_fig7_takes_only_runs_that_compare_and_have_every_checkpoint(run, params):
    write_run(run, "main.1")
    result = run / "evaluation" / "main.1" / "late" / "generation.json"
    result.unlink()
    with pytest.raises(ReportError, match=r"evaluation/main\.1/late/generation\.json: missing"):
        fig7_data(params, run, seeds=2)
    for label in DISTANCES:
        write_evaluations(run, label, trial="main.1", reference={"digest": "another", "name": "", "size": [8, 8]})
    with pytest.raises(ComparisonError, match="reference digest differ"):
        fig7_data(params, run, seeds=2)


@pytest.mark.parametrize(("item", "file", "array", "value", "message"), [
    ("fig5", "panel", "psnr", np.zeros((2, 2)), r"psnr is float64 \(2, 2\); expected floats \(m l\) with m = 2, l = 3"),
    ("fig5", "panel", "psnr", np.full((2, 3), np.nan), "psnr or attention holds no finite numbers"),
    ("fig5", "panel", "originals", np.zeros((2, 8, 8, 4), np.uint8), r"originals is uint8 \(2, 8, 8, 4\); expected"),
    ("fig5", "panel", "prefixes", np.zeros((2, 3, 8, 8, 3)), r"prefixes is float64 .*; expected bytes \(m l h w 3\)"),
    ("fig5", "panel", "attention", np.zeros((0, 3, 2)), r"attention is float64 \(0, 3, 2\); expected floats"),
    ("fig5", "panel", "attention", np.full((4, 3, 2), np.nan), "psnr or attention holds no finite numbers"),
    ("fig5", "panel", "kept", np.array(["a", "b", "c"]), "kept is <U1 .*; expected integers"),
    ("fig6", "samples", "labels", np.zeros(9), "labels is float64 .*; expected integers"),
    ("fig6", "samples", "labels", np.zeros(0, int), r"labels is int64 \(0,\); expected integers"),
    ("fig6", "samples", "labels", np.arange(9) % 2 - 1, "labels down to -1, but there are 2 class names"),
    ("fig6", "samples", "labels", np.arange(12) % 2, "has no rows 9 to 9"),
    ("fig6", "samples", "arr_0", np.zeros((9, 8, 8), np.uint8), r"arr_0 holds uint8 \(8, 8\)"),
    ("fig6", "samples", "arr_0", np.zeros((9, 8, 8, 3)), "arr_0 holds float64"),
    ("fig8", "layout", "encoder_mask", np.ones((4, 3), bool), r"encoder_mask is bool \(4, 3\); expected bools \(n n\)"),
    ("fig8", "layout", "encoder_groups", np.array([2, 1]), r"encoder_names is <U2 \(3,\); expected text \(g\) with g = 2"),
    ("fig8", "layout", "encoder_groups", np.array([2, 2, 1]), r"encoder_groups \[2, 2, 1\] do not make up 4 tokens"),
    ("fig8", "layout", "generator_groups", np.array([5, 1, -2]), r"generator_groups \[5, 1, -2\] do not make up 4 tokens"),
    ("fig9", "layout", "decoder_groups", np.array([1, 1, 1]), r"decoder_groups \[1, 1, 1\] do not make up 4 tokens"),
    ("fig9", "layout", "encoder_ids", np.zeros((4, 3), int), r"encoder_ids is int64 \(4, 3\); expected integers \(n 2\)"),
    ("fig9", "layout", "encoder_names", np.array([1, 2, 3]), "encoder_names is int64 .*; expected text"),
    ("fig9", "layout", "encoder_names", np.array([None] * 3), "encoder_ids, encoder_groups, encoder_names cannot be read")])
def test_arrays_of_another_shape_are_named_with_their_file(unchecked, run, params, tmp_path, item, file, array, value, message):
    [path] = run.glob(f"{file}/main/middle.npz" if file != "layout" else "layout.npz")
    np.savez(path, **dict(np.load(path)) | {array: value})
    with pytest.raises(ReportError, match=rf"{path.name}: .*{message}"):
        figure(item, run, params, tmp_path / "out.png")


def test_names_that_are_no_text_or_look_like_formulas_are_drawn(run, params, tmp_path, chart):
    write_json(run / "data" / "manifest.json", {"splits": {"train": {"classes": [os.fsdecode(b"caf\xe9"), "$x_{$ <b>"]}}})
    figure("fig6", run, params, tmp_path / "fig6.png")
    assert set(pd.read_csv(tmp_path / "fig6.csv")["class_name"]) == {r"caf\udce9", "$x_{$ <b>"}
    assert chart(rfid=[1, 2, 3], setting=["$x_{$", "b", "c"]).axes


def test_fig7_is_drawn_where_there_are_no_intervals(run, params, tmp_path):
    figure("fig7", run, params, tmp_path / "with.png")
    for label in DISTANCES:
        path = run / "evaluation" / "main" / label / "generation.json"
        result = json.loads(path.read_text())
        write(path, result | {"intervals": result["intervals"] | {"FD-digits": None}})
    assert fig7_data(params, run)["generation_distance_low"].isna().all()
    figure("fig7", run, params, tmp_path / "without.png")
    without, drawn = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("without", "with"))
    assert without.std() > 5 and (without.shape != drawn.shape or (without != drawn).any())


def test_guidance_data_are_all_that_was_tried(run, params):
    path = run / "guidance" / "main" / "late.json"
    found = json.loads(path.read_text())
    write(path, found | {"candidates": [*found["candidates"], candidate("linear", 3.0, 0.0, 22.0)]})
    data = guidance_data(run, params)
    late = data[data["checkpoint"] == "late"]
    assert late[["schedule", "start", "scale", "distance", "low", "high", "chosen"]].to_numpy().tolist() == [
        ["constant", 0.0, 1.0, 40.0, 38.0, 42.0, False], ["step", 0.25, 2.0, 21.0, 19.0, 23.0, True],
        ["linear", 0.0, 3.0, 22.0, 20.0, 24.0, False]]
    assert len(data) == 2 + 2 + 3


def test_finalists_stand_apart_from_the_candidates(run, params, tmp_path):
    """On more samples a distance is lower by itself."""
    write_two_rounds(run, "late")
    data = guidance_data(run, params)
    late = data[data["checkpoint"] == "late"]
    assert late["round"].tolist() == 4 * ["candidate"] + 2 * ["finalist"]
    assert late["n"].tolist() == [20, 20, 20, 20, 50, 50] and late["chosen"].tolist() == [False] * 5 + [True]
    assert late["distance"].isna().tolist() == [False, False, False, True, False, False]
    assert set(late["search_samples"]) == {180} and set(data["search_samples"]) == {40, 180}
    assert curves._search_notes(late)[1:] == [
        "Lines: candidates, over 20 samples. Diamonds: finalists, over 50, which lowers a distance on average.",
        "A checkpoint: 180 samples in all; the release's hill-climb takes 50,000 a step, so as many as 0.0036 of its steps."]
    figure("guidance", run, params, tmp_path / "two.png")
    with Image.open(tmp_path / "two.png") as picture:
        two = np.asarray(picture.convert("L"))
    path = run / "guidance" / "main" / "late.json"
    found = json.loads(path.read_text())
    write(path, found | {"finalists": [], "chosen": {"schedule": "step", "scale": 2.0, "start": 0.25}})
    figure("guidance", run, params, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as picture:
        one = np.asarray(picture.convert("L"))
    assert one.shape != two.shape or (one != two).any()


def test_a_guidance_that_the_parameters_set_has_no_search_to_draw(run, params):
    sampling = params.sampling.model_copy(update={"guidance": Guidance(schedule="constant", scale=2.0)})
    with pytest.raises(ReportError, match=r"the parameters set sampling\.guidance, so that nothing is searched"):
        guidance_data(run, params.model_copy(update={"sampling": sampling}))


def test_a_search_that_chose_no_guidance_is_drawn(run, params, tmp_path):
    for label in DISTANCES:
        write(run / "guidance" / "main" / f"{label}.json", {
            "chosen": {"schedule": "constant", "scale": 1.0, "start": 0.0}, "metric": "FD-digits",
            "candidates": [candidate("constant", 1.0, 0.0, 4.0) | {"intervals": {"FD-digits": None}}]})
    figure("guidance", run, params, tmp_path / "guidance.png")
    assert pd.read_csv(tmp_path / "guidance.csv")["chosen"].all()


def test_codebook_data_say_what_the_number_of_images_allows(run, params):
    levels = bars.codebook_data(of_run(run, params, "codebook"), "codebook")
    assert levels["checkpoint"].tolist() == ["middle", "middle"]
    assert levels["most_usage"].tolist() == [60 / 8192, 60 * 127 / 8192]   # 60 images cannot use more
    assert levels["most_entropy"][0] == math.log2(60)
    assert levels[["usage_low", "usage_high"]].to_numpy().tolist() == [[0.004, 0.006], [0.45, 0.55]]
    assert levels[["entropy_low", "entropy_high"]].to_numpy().tolist() == [[4.5, 5.5], [10.5, 11.5]]


def test_a_collapsed_codebook_is_drawn(unchecked, run, params, chart, tmp_path):
    """60 images of three tokens; all have code 7 at the level of one token, or at both."""
    for other in (9, 7):
        counts = torch.zeros(GROUPS, 2, 8192, dtype=torch.int64)
        counts[:, 0, 7], counts[:, 1, 7], counts[:, 1, other] = 6, 12, 6
        measured = Comparison(SimpleNamespace(facts={"levels": [1, 2]}, codes=counts), None)
        measured.codebook()
        path = run / "evaluation" / "main" / "middle" / "reconstruction.json"
        result = json.loads(path.read_text())
        for part, found in (("metrics", measured.metrics), ("intervals", measured.intervals)):
            result[part]["codebook"] = found["codebook"]
        write(path, result)
        data = bars.codebook_data(of_run(run, params, "codebook"), "codebook")
        assert data.loc[0, ["used", "dead", "entropy", "entropy_low", "entropy_high"]].tolist() == [1, 8191, 0, 0, 0]
        figure("codebook", run, params, tmp_path / "codebook.png")
        value, (low, high) = (found["codebook"]["entropy"] for found in (measured.metrics, measured.intervals))
        assert (value == 0) == (other == 7)
        assert texts(chart(entropy=value, entropy_low=low, entropy_high=high).axes[1])[0] == f"{value:#.4g}"


def test_the_codebook_of_one_image_is_drawn_without_intervals(unchecked, run, params, tmp_path):
    counts = torch.zeros(GROUPS, 1, 8192, dtype=torch.int64)
    counts[3, 0, 7] = 1
    measured = Comparison(SimpleNamespace(facts={"levels": [1]}, codes=counts), None)
    measured.codebook()
    for path in run.glob("evaluation/*/*/reconstruction.json"):
        result = json.loads(path.read_text())
        write(path, result | {"n": 1, "metrics": result["metrics"] | measured.metrics,
                              "intervals": result["intervals"] | measured.intervals})
    figure("codebook", run, params, tmp_path / "codebook.png")
    (drawn,) = pd.read_csv(tmp_path / "codebook.csv").itertuples()
    assert (drawn.used, drawn.entropy, drawn.most_entropy) == (1, 0, 0) and math.isnan(drawn.entropy_high)


@pytest.mark.parametrize("cells", [{"rfid_sd": -1}, {"rfid_low": 5, "rfid_high": 2}, {"rfid_low": 7, "rfid_high": 9}])
def test_a_bar_that_misses_its_value_is_refused(chart, cells):
    with pytest.raises(ReportError, match=r"table2\.csv: rfid: a value lies outside its own interval, or a deviation is neg"):
        chart(**cells)


def test_an_interval_that_misses_its_value_by_a_rounding_error_is_drawn(chart):
    value = -1.4426950427297987e-08                                # as results of earlier versions have it
    figure = chart(entropy=[value, 5, 6], entropy_low=[0, 4, 5], entropy_high=[value, 6, 7])
    assert len(figure.axes[1].patches) == 3


def test_fig8_data_are_the_groups_and_what_they_attend_to(run):
    data = masks.fig8_data(run / "layout.npz")
    assert data[["part", "group", "first", "last", "attends_to"]].to_numpy().tolist() == [
        ["tokenizer", "S1", 1, 2, "S1"], ["tokenizer", "L1", 3, 3, "S1 L1"], ["tokenizer", "L2", 4, 4, "S1 L1 L2"],
        ["generator", "class", 1, 1, "class"], ["generator", "t1", 2, 2, "class t1"],
        ["generator", "t2 M0", 3, 4, "class t1"]]                  # t2 does not see M0: this mask is token by token


@pytest.fixture
def drawn(run, params, tmp_path, monkeypatch):
    """The panels of a figure of a layout (without arrays: the run's own), as they are saved."""
    def panels(item, **arrays):
        if arrays:
            np.savez(run / "layout.npz", **arrays)
        monkeypatch.setattr(common, "save", lambda figure, *_: kept.append(figure))
        kept = []
        figure(item, run, params, tmp_path / "drawn.png")
        return kept[0].axes

    return panels


def coloured(axis):
    """The cells of a panel's picture that are not white."""
    return (np.asarray(axis.images[0].get_array()) < 1).any(axis=2)


def test_fig8_draws_every_cell_of_the_mask_and_no_other_in_the_tint_of_its_column(drawn):
    rng, sizes = np.random.default_rng(0), [2, 3, 1, 4]
    encoder, generator = (rng.random((10, 10)) < 0.6 for _ in range(2))
    axes = drawn("fig8", encoder_mask=encoder, encoder_groups=sizes, encoder_names=["S1", "S2", "L1", "L2"],
                 generator_mask=generator, generator_groups=[9, 1], generator_inputs=["class"] + ["t1"] * 9)
    assert [coloured(axis).tolist() for axis in axes] == [encoder.tolist(), generator.tolist()]
    picture, group = np.asarray(axes[0].images[0].get_array()), np.repeat(np.arange(4), sizes)
    tints = [{tuple(picture[y, x]) for y, x in np.argwhere(encoder) if group[x] == g} for g in range(4)]
    assert [len(tint) for tint in tints] == [1] * 4 and len(set.union(*tints)) == 4
    for axis in axes:                                             # a cell of the picture is a token's row and column
        assert axis.get_xlim() == (-0.5, 9.5) and axis.get_ylim() == (9.5, -0.5)
    labels = [(tick, label.get_text()) for tick, label in zip(axes[0].get_xticks(), axes[0].get_xticklabels(), strict=True)]
    assert labels == [(0.5, "S1 (2)"), (3, "S2 (3)"), (5, "L1"), (7.5, "L2 (4)")]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == [name for _, name in labels]


@pytest.mark.parametrize(("sizes", "names"), [
    ((32, 64, 128, 256, 1, 1, 2, 4, 8, 16, 32, 64), ["S1 (32)", "S2 (64)", "S3 (128)", "S4 (256)", "S5 … S10", "S11 (32)",
                                                    "S12 (64)"]),
    ((1,) * 128, [*(f"S{i} … S{i + 5}" for i in range(1, 121, 6)), "S121 … S128"]), ((5,), ["S1 (5)"])])
def test_groups_too_narrow_for_their_names_share_one(drawn, sizes, names):
    n = sum(sizes)
    axis, _ = drawn("fig8", encoder_mask=np.ones((n, n), bool), encoder_groups=sizes,
                    encoder_names=[f"S{i + 1}" for i in range(len(sizes))], generator_mask=np.ones((1, 1), bool),
                    generator_groups=[1], generator_inputs=["class"])
    assert [label.get_text() for label in axis.get_xticklabels()] == names
    assert len(names) == 1 or np.diff(axis.get_xticks()).min() >= n / masks.NAMES


def test_fig9_data_are_the_ids(run):
    data = positions.fig9_data(run / "layout.npz")
    assert data[["part", "token", "kind", "name", "row", "column"]].to_numpy().tolist() == [
        ["encoder", 1, "image", "S1", 0, 0], ["encoder", 2, "image", "S1", 0, 1], ["encoder", 3, "text", "L1", 2, 2],
        ["encoder", 4, "text", "L2", 3, 3], ["decoder", 1, "text", "L1", 3, 3], ["decoder", 2, "text", "L2", 2, 2],
        ["decoder", 3, "image", "image", 0, 1], ["decoder", 4, "image", "image", 0, 0]]


def test_fig9_draws_every_token_with_its_ids(drawn):
    """The ids of the fixture fit into their cells: an image token stands where its ids say, a latent in its level's line."""
    encoder_image, encoder_text, decoder_text, decoder_image = drawn("fig9")
    for axis, cells, texts_drawn in (
            (encoder_image, {(0, 0): "0,0", (0, 1): "0,1"}, {"S1: 1 × 2"}),
            (encoder_text, {(0, 0): "2,2", (1, 0): "3,3"}, {"L1", "L2"}),
            (decoder_text, {(0, 0): "3,3", (1, 0): "2,2"}, {"L1", "L2"}),
            (decoder_image, {(0, 0): "0,0", (0, 1): "0,1"}, {"image: 1 × 2"})):
        assert {(y, x) for y, x in np.argwhere(coloured(axis)).tolist()} == set(cells)
        ids = {(int(text.xy[1]), int(text.xy[0])): text.get_text() for text in axis.texts if "," in text.get_text()}
        assert ids == cells
        assert {text.get_text() for text in axis.texts if text.get_text() and "," not in text.get_text()} == texts_drawn


def test_fig9_names_the_first_and_last_ids_where_they_do_not_fit(drawn):
    image, text = np.indices((16, 8)).reshape(2, -1).T + 96, np.arange(480, 608)[:, None].repeat(2, 1)
    parts = {"encoder": (np.concatenate([image, text]), [128, 1, 127], ["S1", "L1", "L2"]),
             "decoder": (text, [128], ["L1"])}
    axes = drawn("fig9", **{f"{part}_{key}": value for part, values in parts.items()
                                for key, value in zip(("ids", "groups", "names"), values, strict=True)})
    assert [coloured(axis).shape for axis in axes] == [(16, 8), (2, 127), (1, 128)]
    assert [coloured(axis).sum() for axis in axes] == [128, 128, 128]
    assert [[text.get_text() for text in axis.texts] for axis in axes] == [
        ["S1: 16 × 8\n(96, 96)", "(111, 103)"], ["L1", "(480, 480)", "L2", "(481, 481) to (607, 607)"],
        ["L1", "(480, 480) to (607, 607)"]]


@pytest.fixture
def chart(tmp_path, monkeypatch):
    """chart() of a table of three rows, with some cells changed: its figure."""
    def draw(**cells):
        table = pd.DataFrame({"setting": ["#1", "#2", "both"], "description": ["a", "b" * 50 + " " + "c" * 30, ""],
                              "rfid": [4, 3, 2], "rfid_metric": "rFD-digits", "gfid": [9, "", 7], "gfid_metric": "FD-digits",
                              "n_seeds": 1} | cells)
        table.to_csv(tmp_path / "table2.csv", index=False)
        monkeypatch.setattr(common, "save", lambda figure, *_: kept.append(figure))
        kept = []
        bars.chart(tmp_path / "table2.csv", tmp_path / "out" / "table2.png")
        return kept[0]

    return draw


@pytest.mark.parametrize("cells", [{"rfid": ["inf", 3, 2]}, {"gfid_sd": [1, "-inf", 1], "n_seeds": 2}])
def test_no_bar_is_infinite(chart, cells):
    with pytest.raises(ReportError, match=r"table2\.csv: [rg]fid: infinite"):
        chart(**cells)


def texts(axis) -> list[str]:
    """The column of values beside a panel."""
    return [text.get_text() for text in axis.texts if text.get_ha() == "left"]


def legend(figure) -> list[str]:
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


def test_an_ablation_has_a_panel_for_each_quantity_that_was_measured(chart):
    figure = chart()
    assert [axis.get_xlabel().split("\n")[0] for axis in figure.axes] == ["rFD-digits", "FD-digits"]
    assert [texts(axis) for axis in figure.axes] == [["4.000", "3.000", "2.000"], ["9.000", "", "7.000"]]
    assert [axis.get_xscale() for axis in figure.axes] == ["linear", "linear"] and legend(figure) == []
    assert [axis.get_xscale() for axis in chart(rfid=[40, 3, 2]).axes] == ["log", "linear"]
    with pytest.raises(ReportError, match=r"table2\.csv: has no value of rfid, entropy, gfid to draw"):
        chart(rfid="", gfid="")
    with pytest.raises(ReportError, match=r"table2\.csv: rfid: .*four"):
        chart(rfid="four")


def test_a_row_that_looks_like_one_above_it_says_what_it_changes(chart):
    axis = chart(description=["same", "other", "same"], changes=["x=1", "y=2", "z=3"], entropy=5).axes[0]
    assert [text.get_text().strip() for text in axis.texts if text.get_ha() == "right" and "\n" in text.get_text()
            and text.get_text().startswith("\n")] == ["same", "other", "same; z=3"]
    assert {axis.get_xlabel().split("\n")[1] for axis in axis.figure.axes} == {"(lower is better)"}


def test_the_legend_of_an_ablation_says_what_its_bars_are(chart):
    figure = chart(n_seeds=3, rfid_sd=[0.2, 0.1, 0.25])
    assert legend(figure) == ["standard deviation over 3 seeds"]
    assert texts(figure.axes[0]) == ["4.00 ± 0.20", "3.00 ± 0.10", "2.00 ± 0.25"]
    assert legend(chart(rfid_low=1, rfid_high=5)) == ["95 % interval (one seed)"]


def test_the_papers_values_stand_only_beside_its_own_metric(chart):
    assert legend(chart(rfid_paper=1.28, gfid_paper=["", 2.34, ""])) == []
    figure = chart(rfid_paper=1.28, gfid_paper=["", 2.34, ""], gfid_metric="FID")
    assert legend(figure) == ["the paper"]
    marks = [line.get_xdata() for axis in figure.axes for line in axis.lines if line.get_marker() == "D"]
    assert np.isnan(marks[0]).all() and marks[1][1] == 2.34
    assert legend(chart(entropy=12, entropy_paper=11)) == ["the paper"]


def test_an_ablations_table_is_its_data(tmp_path):
    pd.DataFrame({"setting": ["x"], "description": [""], "rfid": [1.0], "n_seeds": [1]}).to_csv(tmp_path / "t.csv")
    bars.chart(tmp_path / "t.csv", tmp_path / "out" / "t.png")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["t.pdf", "t.png"]


@pytest.mark.parametrize("name", ["fig5", "fig6", "codebook"])
def test_the_verb_draws_the_best_checkpoint(name, run, tmp_path):
    sheet = experiments(seeds=1)
    results = write_experiments(tmp_path / "results" / "demo", sheet, numbers)       # 750k is best
    for folder in ("panel", "samples"):
        (results / folder / "main").mkdir(parents=True)
        (run / folder / "main" / "middle.npz").rename(results / folder / "main" / "750k.npz")
    options = ["--params", str(ROOT / "params" / "demo.yaml"), "--results", str(results), "--out", str(tmp_path / "x.png")]
    assert CliRunner().invoke(app, ["figure", name, *options]).exit_code == 0
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.info["Source"].endswith(("750k.npz", "750k/reconstruction.json"))


@pytest.mark.parametrize(("words", "message"), [
    (["fig10"], "fig10: choose one of fig7, table2, table3, table4, table5, guidance, fig5, fig6, codebook, fig8, fig9"),
    (["fig7"], "figure fig7: give --params and --results"), (["fig8", "--params", "p"], "figure fig8: give --results"),
    (["table3", "--results", "r"], "figure table3: give --table")])
def test_the_verb_says_what_it_needs(words, message, tmp_path):
    with CONSOLE.capture() as capture:
        done = CliRunner().invoke(app, ["figure", *words, "--out", str(tmp_path / "x.png")])
    assert done.exit_code == 1 and message in capture.get()
