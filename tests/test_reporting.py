"""Reports: published numbers stay as printed, our own carry their features' name, every number has its file."""

import base64
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restok.metrics.results import ComparisonError
from restok.params import load_params
from restok.reporting import figures, page, tables
from restok.reporting.run import ReportError, array_rows, best

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "params" / "published.csv"
CHECKPOINTS = {"early": 10, "middle": 20, "late": 30}
DISTANCES = {"early": 30.0, "middle": 18.123456, "late": 19.5}     # of generation: the middle one is best


@pytest.fixture(scope="module")
def params():
    checkpoints = "tokenizer_training.checkpoints={early: 10, middle: 20, late: 30}"
    return load_params(ROOT / "params" / "imagenet256.yaml", [checkpoints])


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def result(protocol: str, names: dict, metrics: dict, refused: dict, **changes) -> dict:
    """What `restok evaluate` writes. A number's interval is 10 % about it; `refused` takes metrics away, with the reason."""
    plain = {name: [0.9 * found, 1.1 * found] for name, found in metrics.items() if isinstance(found, float)}
    nothing = dict.fromkeys(refused)
    return {
        "protocol": protocol, "n": 80, "metrics": metrics | nothing, "intervals": plain | nothing, "refused": refused,
        "names": names, "interval": "95 %, for the chance of these n images", "seed": 0, "warnings": [],
        "features": {"kind": "digits", "name": "digits classifier", "sha256": "ab", "dims": 64, "resize": "none",
                     "batch_size": 8},
        "samples": {"name": "ours", "digest": "ef", "size": [8, 8], "classes": 2, "balanced": True, "kept": 80},
        "rounding": "rounded to 8 bits", "originals": None, "likeness": {}, "neighbours": 3, "made": [], "score": "one split",
        "reference": {"name": "training split", "digest": "cd", "n": 90, "size": [8, 8], "rounding": "as stored",
                      "published": []}} | changes


def write_evaluations(run: Path, label: str, kind: str = "digits", refused: dict | None = None, **changes) -> None:
    """Both results of a checkpoint; `refused` and `changes` are those of the generation."""
    names = {"distance": "FID", "spatial": "sFID", "kernel": "KID", "score": "IS"} if kind == "inception" else {
        "distance": f"FD-{kind}", "kernel": f"KD-{kind}", "score": f"IS-{kind}"}
    levels = [{"level": 1, "tokens": 1, "used": 40, "usage": 40 / 8192, "entropy": 5.0, "dead": 8152},
              {"level": 2, "tokens": 127, "used": 4096, "usage": 0.5, "entropy": 11.0, "dead": 4096}]
    reconstruction = result(
        "reconstruction", names | {"distance": f"r{names['distance']}"},
        {f"r{names['distance']}": 4.0, names["kernel"]: 0.03, names["score"]: 8.0, "class_accuracy": 0.875, "psnr": 20.0,
         "ssim": 0.5, "codebook": {"used": 4096, "usage": 0.5, "dead": 4096, "entropy": 11.5, "perplexity": 2**11.5,
                                   "levels": levels}},
        {"ms_ssim": "the images are smaller than its five scales", "lpips": "evaluation.lpips is false"},
        n=60, warnings=["few images"])
    reconstruction["intervals"]["codebook"] = {
        "usage": [0.4, 0.6], "entropy": [11.25, 11.75], "perplexity": [2435, 3444],
        "levels": [{"usage": [0.004, 0.006], "entropy": [4.5, 5.5]}, {"usage": [0.45, 0.55], "entropy": [10.5, 11.5]}]}
    write(run / "evaluation" / label / "reconstruction.json", reconstruction)
    others = {"spatial": 6.0, "kernel": 0.02, "score": 7.5}
    metrics = {names["distance"]: DISTANCES[label], **{names[role]: found for role, found in others.items() if role in names},
               "precision": 0.71, "recall": 0.6, "class_accuracy": 0.625}
    write(run / "evaluation" / label / "generation.json", result("generation", names, metrics, refused or {}, **changes))


def candidate(schedule: str, scale: float, start: float, distance: float) -> dict:
    """One of a search's candidates, as `restok search-guidance` writes them."""
    return {"schedule": schedule, "scale": scale, "start": start, "n": 20, "metrics": {"FD-digits": distance},
            "intervals": {"FD-digits": [distance - 2, distance + 2]}, "refused": {}, "warnings": [f"a {schedule} warning"]}


@pytest.fixture
def run(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "results" / "demo"
    write(folder / "data" / "manifest.json", {"splits": {"train": {"classes": ["zero", "one"]}}})
    for label, step in CHECKPOINTS.items():
        write(folder / "tokenizer" / label / "metrics.json", {"step": step, "parameters": 1_234_567})
        write(folder / "generator" / label / "metrics.json", {"parameters": 84_512, "sampling_steps": 6})
        candidates = [candidate("constant", 1.0, 0.0, 40.0), candidate("step", 2.0, 0.25, 21.0)]
        write(folder / "guidance" / f"{label}.json", {
            "chosen": {"schedule": "step", "scale": 2.0, "start": 0.25}, "top_k": 0, "top_p": 0.95, "metric": "FD-digits",
            "candidates": candidates})
        write_evaluations(folder, label)
    (folder / "panel").mkdir()
    (folder / "samples").mkdir()
    attention = rng.random((4, 3, 2), dtype=np.float32)
    attention[:2, :, 0] = np.nan                                   # the coarse scale comes with the third layer
    np.savez(folder / "panel" / "middle.npz", originals=rng.integers(0, 256, (2, 8, 8, 3), np.uint8),
             prefixes=rng.integers(0, 256, (2, 3, 8, 8, 3), np.uint8), kept=np.array([1, 2, 4]), attention=attention)
    np.savez(folder / "samples" / "middle.npz", arr_0=rng.integers(0, 256, (9, 8, 8, 3), np.uint8), labels=np.arange(9) % 2)
    return folder


def write_reports(run: Path, params, out: Path) -> None:
    figures.fig5(run / "panel" / "middle.npz", out / "fig5.png")
    figures.fig6(run / "samples" / "middle.npz", ["zero", "one"], out / "fig6.png")
    for name in ("fig7", "codebook"):
        data = getattr(figures, f"{name}_data")(run, params)
        tables.write_csv(data, out / f"{name}.csv")
        getattr(figures, name)(data, out / f"{name}.png")
    tables.write_csv(tables.table1(PUBLISHED, run, params, "demo"), out / "table1.csv")
    tables.write_csv(tables.table6(run, params), out / "table6.csv")
    tables.write_csv(tables.table9(params), out / "table9.csv")


def test_published_numbers_are_the_papers():
    published = tables.read_csv(PUBLISHED).set_index("method")
    assert published["family"].value_counts().to_dict() == {"continuous": 5, "grid": 7, "query": 8}
    numbers = ["tokenizer_params", "tokens", "rfid", "generator_type", "generator_params", "steps", "gfid", "is", "precision",
               "recall"]
    assert ",".join(published.loc["ResTok", numbers]) == "662M,128,1.28,HAR,326M,9,2.34,257.8,0.79,0.60"
    assert ",".join(published.loc["FlexTok d18-d18", numbers]) == "950M,1-256,1.61,AR+Flow,1.33B,26-281,2.02,,,"
    assert published.loc["LDM-4-G", "gfid"] == "3.60"              # as printed, not 3.6
    assert (published["source"] != "").all()


def test_table1_adds_the_best_checkpoint_under_its_own_features(run, params):
    table = tables.table1(PUBLISHED, run, params, "demo")
    assert len(table) == 21
    assert set(table["features"][:20]) == {"Inception (rFID, FID, IS)"}
    own = table.iloc[-1]
    assert own["features"] == "digits classifier (rFD-digits, FD-digits, IS-digits)"
    assert not any("FID" in cell for cell in own)
    assert own[["tokenizer_params", "generator_params", "steps", "generation_distance", "n"]].tolist() == [
        "1.23M", "84.5K", "6", "18.12", "80"]
    assert "middle/generation.json" in own["source"]


def test_table1_gives_the_intervals_of_this_run_alone(run, params):
    table = tables.table1(PUBLISHED, run, params, "demo")
    assert set(table["intervals"][:20]) == {""}
    assert table["intervals"].iloc[-1] == (
        "rFD-digits 3.600 to 4.400; FD-digits 16.31 to 19.94; IS-digits 6.750 to 8.250; precision 0.6390 to 0.7810; "
        "recall 0.5400 to 0.6600")


def test_what_was_refused_is_blank_in_table1(run, params):
    write_evaluations(run, "middle", refused={"IS-digits": "no classifier", "recall": "no images"})
    own = tables.table1(PUBLISHED, run, params, "demo").iloc[-1]
    assert own[["score", "precision", "recall"]].tolist() == ["", "0.7100", ""]
    assert own["intervals"] == "rFD-digits 3.600 to 4.400; FD-digits 16.31 to 19.94; precision 0.6390 to 0.7810"


def test_count_prints_three_digits():
    assert [tables.count(n) for n in (661_791_947, 326_263_808, 1_330_000_000, 999)] == ["662M", "326M", "1.33B", "999"]


def test_table6_reports_the_chosen_candidate(run, params):
    table = tables.table6(run, params)
    assert table["checkpoint"].tolist() == list(CHECKPOINTS)
    row = table.iloc[1]
    assert (row["schedule"], row["start_ratio"], row["max_scale"], row["top_k"], row["top_p"]) == ("step", 0.25, 2.0, 0, 0.95)
    assert (row["metric"], row["distance"], row["n"], row["candidates"]) == ("FD-digits", 21.0, 20, 2)
    assert row["interval"] == "19.00 to 23.00"


def test_a_choice_that_is_not_among_the_candidates_is_refused(run, params):
    path = run / "guidance" / "late.json"
    path.write_text(path.read_text().replace('"scale": 2.0', '"scale": 3.0', 1))
    with pytest.raises(ReportError, match=r"late\.json: the chosen setting is not among the candidates"):
        tables.table6(run, params)


def test_table9_is_exact(params):
    table = tables.table9(params)
    assert dict(zip(table["tokens"], table["probability"], strict=True)) == {
        4: "1/155", 8: "2/155", 16: "4/155", 32: "8/155", 64: "16/155", 128: "4/5"}
    assert table["decimal"].sum() == pytest.approx(1)


def test_fig7_and_codebook_data(run, params):
    data = figures.fig7_data(run, params)
    assert data["step"].tolist() == [10, 20, 30]
    assert data["generation_distance"].tolist() == list(DISTANCES.values())
    assert data.loc[0, ["generation_distance_low", "generation_distance_high"]].tolist() == pytest.approx([27, 33])
    assert data.loc[0, ["reconstruction_distance_low", "reconstruction_distance_high"]].tolist() == pytest.approx([3.6, 4.4])
    assert set(data["reconstruction_metric"] + " " + data["generation_metric"]) == {"rFD-digits FD-digits"}
    levels = figures.codebook_data(run, params)
    assert levels["checkpoint"].tolist() == ["middle", "middle"]
    assert levels["most_usage"].tolist() == [60 / 8192, 60 * 127 / 8192]   # 60 images cannot use more
    assert levels["most_entropy"][0] == math.log2(60)
    assert levels[["usage_low", "usage_high"]].to_numpy().tolist() == [[0.004, 0.006], [0.45, 0.55]]
    assert levels[["entropy_low", "entropy_high"]].to_numpy().tolist() == [[4.5, 5.5], [10.5, 11.5]]


def test_a_missing_file_is_named_with_its_remedy(run, params):
    missing = run / "evaluation" / "late" / "generation.json"
    missing.unlink()
    with pytest.raises(ReportError, match=r"late/generation\.json: missing; .*snakemake .*generation\.json.*restok evaluate"):
        tables.table1(PUBLISHED, run, params, "demo")
    with pytest.raises(ReportError, match=r"nowhere\.npz: missing"):
        figures.fig5(run / "panel" / "nowhere.npz", run / "fig5.png")


def test_a_missing_key_is_named_with_its_file(run, params):
    write(run / "generator" / "middle" / "metrics.json", {"parameters": 1})
    with pytest.raises(ReportError, match=r"metrics\.json: has no 'sampling_steps'; remove \S+generator/middle and make it"):
        tables.table1(PUBLISHED, run, params, "demo")


@pytest.mark.parametrize(("part", "changes", "message"), [
    ("features", {"sha256": "another"}, "features sha256 differ, ab and another"),
    ("reference", {"digest": "another"}, "reference digest differ, cd and another"),
    ("samples", {"size": [9, 9]}, r"samples size differ, \[8, 8\] and \[9, 9\]")])
@pytest.mark.parametrize("protocol", ["reconstruction", "generation"])
def test_distances_that_were_not_measured_alike_are_not_ranked(run, params, protocol, part, changes, message):
    for other in ("reconstruction", "generation") if part == "features" else (protocol,):
        path = run / "evaluation" / "late" / f"{other}.json"
        found = json.loads(path.read_text())
        write(path, found | {part: found[part] | changes})
    first = "reconstruction" if part == "features" else protocol
    with pytest.raises(ComparisonError, match=rf"early/{first}\.json and \S+late/{first}\.json do not compare: {message}"):
        best(run, params)


def test_both_results_of_a_checkpoint_are_of_the_same_features(run, params):
    write_evaluations(run, "late", features={"sha256": "another"})
    with pytest.raises(ReportError, match=r"late/reconstruction\.json and \S+late/generation\.json: not measured by the same"):
        best(run, params)


def test_a_checkpoint_of_another_schedule_is_refused(run, params):
    write(run / "tokenizer" / "late" / "metrics.json", {"step": 31, "parameters": 1})
    with pytest.raises(ReportError, match=r"step 31, but the parameters put late at 30"):
        best(run, params)


def test_a_distance_that_was_not_measured_is_an_error_with_the_reason(run, params):
    write_evaluations(run, "early", refused={"FD-digits": "there are none"})
    with pytest.raises(ReportError, match=r"early/generation\.json: FD-digits was not measured: there are none; mend that"):
        best(run, params)


def test_fig7_is_drawn_where_there_are_no_intervals(run, params, tmp_path):
    data = figures.fig7_data(run, params).assign(generation_distance_low=None, generation_distance_high=None)
    figures.fig7(data, tmp_path / "without.png")
    figures.fig7(figures.fig7_data(run, params), tmp_path / "with.png")
    without, bars = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("without", "with"))
    assert without.std() > 5 and (without.shape != bars.shape or (without != bars).any())


def test_rows_of_an_array_are_read_without_the_rest(tmp_path):
    array = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    for name, save in (("plain", np.savez), ("packed", np.savez_compressed)):
        save(tmp_path / f"{name}.npz", arr_0=array)
        rows = array_rows(tmp_path / f"{name}.npz", "arr_0", [4, 1])
        assert rows.keys() == {1, 4} and all((rows[i] == array[i]).all() for i in rows)


def test_fig6_puts_each_class_in_its_row(tmp_path):
    samples = np.zeros((4, 16, 16, 3), np.uint8)
    samples[[0, 2], ..., 0] = 255                                  # class 0 is red, class 1 is blue
    samples[[1, 3], ..., 2] = 255
    np.savez(tmp_path / "s.npz", arr_0=samples, labels=np.array([0, 1, 0, 1]))
    figures.fig6(tmp_path / "s.npz", ["red", "blue"], tmp_path / "fig6.png")
    pixels = np.asarray(Image.open(tmp_path / "fig6.png").convert("RGB")).astype(int)
    red, blue = (pixels[..., a] - pixels[..., b] > 200 for a, b in ((0, 2), (2, 0)))
    assert np.flatnonzero(red.any(1)).max() < np.flatnonzero(blue.any(1)).min()
    assert red.sum() == pytest.approx(blue.sum(), rel=0.1)
    with pytest.raises(ReportError, match="labels up to 1, but there are 1 class names"):
        figures.fig6(tmp_path / "s.npz", ["red"], tmp_path / "fig6.png")


def test_page_holds_every_figure_table_and_source(run, params, tmp_path):
    reports, out = tmp_path / "reports" / "demo", tmp_path / "reports" / "demo" / "index.html"
    write_reports(run, params, reports)
    page.report(run, reports, params, "demo", out)
    html = out.read_text("utf-8")
    for name in ("fig5", "fig6", "fig7", "codebook"):
        picture = reports / f"{name}.png"
        assert np.asarray(Image.open(picture).convert("L")).std() > 5
        assert base64.b64encode(picture.read_bytes()).decode() in html
    for name in ("table1", "table6", "table9", "fig7", "codebook"):
        assert f"{name}.csv" in html
    for claim in ("87.5 % [78.8 % to 96.3 %]", "62.5 % [", "18.12 [16.31 to 19.94]", "0.02000 [0.01800 to 0.02200]",
                  "50.0 % [40.0 % to 60.0 %]", "11.50 [11.25 to 11.75]", "95 %, for the chance of these n images",
                  "16/155", "few images", "a step warning", "middle, step 20", "late/reconstruction.json",
                  "panel/middle.npz", "FD-digits and IS-digits are comparable with nothing else"):
        assert claim in html, claim
    assert "a constant warning" not in html                        # of a candidate that was not chosen
    assert "src=\"http" not in html and "href=\"http" not in html


def test_page_lists_what_was_refused_with_its_reason_and_leaves_it_out_of_the_headline(run, params, tmp_path):
    for label in CHECKPOINTS:
        write_evaluations(run, label, refused=dict.fromkeys(("precision", "recall"), "no images"))
    write_reports(run, params, tmp_path / "reports")
    page.report(run, tmp_path / "reports", params, "demo", tmp_path / "index.html")
    html = (tmp_path / "index.html").read_text("utf-8")
    for claim in ("samples: FD-digits", "reconstruction, MS-SSIM: the images are smaller than its five scales",
                  "reconstruction, LPIPS: evaluation.lpips is false", "generation, precision, recall: no images"):
        assert html.count(claim) == 1, claim
    for left_out in ("samples: precision", "samples: recall", "reconstruction: MS-SSIM", "reconstruction: LPIPS"):
        assert left_out not in html, left_out
    write_evaluations(run, "middle")
    page.report(run, tmp_path / "reports", params, "demo", tmp_path / "index.html")
    assert "samples: precision" in (tmp_path / "index.html").read_text("utf-8")


def test_page_of_an_inception_run_has_no_warning_about_its_metrics(run, params, tmp_path):
    for label in CHECKPOINTS:
        write_evaluations(run, label, "inception")
    write_reports(run, params, tmp_path / "reports")
    page.report(run, tmp_path / "reports", params, "demo", tmp_path / "index.html")
    html = (tmp_path / "index.html").read_text("utf-8")
    assert "comparable with nothing else" not in html
    assert all(f"samples: {name}<" in html for name in ("FID", "sFID", "KID", "IS")) and "reconstruction: rFID<" in html


def test_page_reports_the_accuracy_of_a_feature_network_that_was_trained(run, tmp_path):
    checkpoints = "tokenizer_training.checkpoints={early: 10, middle: 20, late: 30}"
    params = load_params(ROOT / "params" / "demo.yaml", [checkpoints])
    write(run / "classifier" / "metrics.json", {"validation_accuracy": 0.96875, "n": 64})
    write_reports(run, params, tmp_path / "reports")
    page.report(run, tmp_path / "reports", params, "demo", tmp_path / "index.html")
    html = (tmp_path / "index.html").read_text("utf-8")
    assert "validation accuracy 96.9 % of 64" in html and "classifier/metrics.json" in html


def test_page_names_the_report_that_is_missing(run, params, tmp_path):
    with pytest.raises(ReportError, match=r"table1\.csv: missing; make it with `snakemake .*reports/table1\.csv`"):
        page.report(run, tmp_path / "reports", params, "demo", tmp_path / "index.html")


def test_reports_do_not_import_torch():
    code = "import sys, restok.reporting.page, restok.reporting.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
