"""The page: every table and figure of a run, what was refused, and the file behind every number."""

import base64
import subprocess
import sys

import pytest
from conftest import ROOT
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from reporting_fixtures import experiments, numbers, write, write_evaluations, write_experiments

from restok.config.load import load_params
from restok.reporting import page, tables
from restok.reporting.items import ITEMS
from restok.reporting.run import ReportError

PARAMS = load_params(ROOT / "params" / "demo.yaml")
PUBLISHED = tables.Published(ROOT / "params" / "published.csv")
ORDERS, SWITCHES = ROOT / "params" / "orders.csv", ROOT / "params" / "release_switches.csv"
SPREADS = ("", "_sd", "_low", "_high")


@pytest.fixture
def run(tmp_path):
    folder = write_experiments(tmp_path / "results" / "demo", experiments(), numbers)
    write(folder / "classifier" / "metrics.json", {"validation_accuracy": 0.96875, "n": 64})
    return folder


@pytest.fixture
def reports(run, tmp_path):
    """The reports' folder: real tables, and figures that are a blank each of another size."""
    folder, sheet = tmp_path / "reports" / "demo", experiments()
    made = {"table1": tables.table1(run, sheet, PUBLISHED), "table6": tables.table6(run, sheet, PUBLISHED),
            **{item: tables.ablation(item, run, sheet, PUBLISHED, ORDERS) for item in tables.ABLATIONS},
            **{item: tables.settings(item, PARAMS, PUBLISHED) for item in ("table7", "table8")},
            "table9": tables.table9(PARAMS, PUBLISHED), "table10": tables.table10(run, sheet, PUBLISHED, ORDERS),
            "release_switches": tables.release_switches(run, sheet, SWITCHES)}
    for name, table in made.items():
        tables.write_csv(table, folder / f"{name}.csv")
    for size, (name, (kinds, *_)) in enumerate(ITEMS.items(), start=1):
        if "png" in kinds:
            source = PngInfo()
            source.add_text("Source", f"results/{name}.json")
            Image.new("RGB", (size, size)).save(folder / f"{name}.png", pnginfo=source)
        for kind in {"pdf", "csv"} & set(kinds) - ({"csv"} if name in made else set()):
            (folder / f"{name}.{kind}").write_text("checkpoint\n")
    distances = [f"{stage}_distance{end}" for stage in ("reconstruction", "generation") for end in SPREADS]
    columns = ["checkpoint", "step", "reconstruction_metric", "generation_metric", *distances, "n_seeds", "seeds"]
    (folder / "fig7.csv").write_text(f"{','.join(columns)}\n750k,1000,rFD,FD,4.123456,,4,5,20.5,,20,21,1,10086\n")
    (folder / "codebook.csv").write_text("checkpoint,level,tokens,used,usage,entropy,n\n750k,1,1,9,0.0351,3.123456,60\n")
    return folder


def page_of(run, reports) -> str:
    page.report(run, reports, PARAMS, experiments(), PUBLISHED, ORDERS, reports / "index.html")
    return (reports / "index.html").read_text("utf-8")


def test_page_holds_every_figure_table_and_source(run, reports):
    html = page_of(run, reports)
    for name, (kinds, title, caption) in ITEMS.items():
        assert title.replace("'", "&#39;") in html and caption.replace("'", "&#39;") in html
        assert all(f"{name}.{kind}" in html for kind in kinds)
        if "png" in kinds:
            assert base64.b64encode((reports / f"{name}.png").read_bytes()).decode() in html
            assert f"results/{name}.json" in html
    for claim in ("87.5 % [78.8 % to 96.3 %]", "62.5 % [", "20.00 [18.00 to 22.00]", "0.02000 [0.01800 to 0.02200]",
                  "50.0 % [40.0 % to 60.0 %]", "7.000 [6.750 to 7.250]", "95 %, for the chance of these n images",
                  "few images", "a step warning", "750k, step 1000", "1M/reconstruction.json", "4.123 [4.000 to 5.000]",
                  "FD-digits and IS-digits are comparable with nothing else", "validation accuracy 96.9 % of 64",
                  "38.38 ± 0.54", "+8.08 ± 0.11, higher"):
        assert claim in html, claim
    assert "a constant warning" not in html                        # of a candidate that was not chosen
    assert "src=\"http" not in html and "href=\"http" not in html


def test_page_says_whether_fig7_has_the_papers_order(run, reports):
    html = page_of(run, reports)
    assert "The paper&#39;s order, of 750k: rFID below 500k: undecided (one seed); lowest gFID: " in html


def test_page_lists_what_was_refused_with_its_reason_and_leaves_it_out_of_the_headline(run, reports):
    for label in PARAMS.tokenizer_training.checkpoints:
        write_evaluations(run, label, refused=dict.fromkeys(("precision", "recall"), "no images"), numbers=(4.0, 7.0, 20.0))
    html = page_of(run, reports)
    for claim in ("samples: FD-digits", "reconstruction, MS-SSIM: the images are smaller than its five scales",
                  "reconstruction, LPIPS: evaluation.lpips is false", "generation, precision, recall: no images"):
        assert html.count(claim) == 1, claim
    for left_out in ("samples: precision", "samples: recall", "reconstruction: MS-SSIM", "reconstruction: LPIPS"):
        assert left_out not in html, left_out
    write_evaluations(run, "250k", numbers=(4.0, 7.0, 10.0))
    assert "samples: precision" in page_of(run, reports)


def test_page_of_an_inception_run_has_no_warning_about_its_metrics(run, reports):
    for label in PARAMS.tokenizer_training.checkpoints:
        write_evaluations(run, label, "inception", numbers=(4.0, 7.0, 20.0))
    html = page_of(run, reports)
    assert "comparable with nothing else" not in html
    assert all(f"samples: {name}<" in html for name in ("FID", "sFID", "KID", "IS")) and "reconstruction: rFID<" in html


def test_page_of_a_run_whose_guidance_is_set_needs_no_search(run, reports):
    for path in (*(run / "guidance").iterdir(), *reports.glob("guidance.*")):
        path.unlink()
    params = load_params(ROOT / "params" / "demo.yaml", ["sampling.guidance={schedule: step, scale: 3.5, start: 0.5}"])
    page.report(run, reports, params, experiments(), PUBLISHED, ORDERS, reports / "index.html")
    html = (reports / "index.html").read_text("utf-8")
    assert "step, at most 3.5 from 0.5 of the steps on; top-k 0, top-p 0.95" in html
    assert ITEMS["guidance"][1] not in html and ITEMS["table6"][1] in html


def test_page_of_several_seeds_shows_the_checkpoint_that_is_best_on_average(run, reports):
    sheet = experiments(main_seeds=2)
    write_experiments(run, sheet, lambda trial, label: (4.0, 7.0, {  # 750k: 20, 60; 1M: 21, 22
        ("750k", 10086): 20.0, ("1M", 10086): 21.0, ("1M", 10087): 22.0}.get((label, trial.seed), 60.0)))
    page.report(run, reports, PARAMS, sheet, PUBLISHED, ORDERS, reports / "index.html")
    assert "1M, step 1300: the lowest generation FD-digits of 4 checkpoints, as the mean of 2 seeds; below, seed 10086" in (
        reports / "index.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["table1.csv", "table3.pdf", "release_switches.csv", "fig9.png"])
def test_page_names_the_report_that_is_missing(run, reports, name):
    (reports / name).unlink()
    with pytest.raises(ReportError, match=rf"{name}: missing; make it with `snakemake .*reports/demo/{name}`"):
        page_of(run, reports)


def test_a_figure_without_its_sources_is_refused(run, reports):
    Image.new("RGB", (2, 2)).save(reports / "fig5.png")
    with pytest.raises(ReportError, match=r"fig5\.png: does not name the files it was drawn from"):
        page_of(run, reports)


def test_reports_do_not_import_torch():
    code = "import sys, restok.reporting.page, restok.reporting.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
