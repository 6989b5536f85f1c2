"""The page: every table and figure of a run, what was refused, and the file behind every number."""

import base64
import re
import subprocess
import sys
from html import unescape

import pytest
from conftest import ROOT
from PIL import Image
from reporting_fixtures import experiments, inputs, write_evaluations, write_experiments, write_reports

from restok.config.load import load_params
from restok.experiments import ITEMS, Item, Tree
from restok.reporting import page
from restok.reporting.run import ReportError
from restok.reporting.sources import UI

PARAMS = load_params(ROOT / "params" / "demo.yaml")


@pytest.fixture
def run(results):
    return results


@pytest.fixture
def reports(run, tmp_path):
    return write_reports(tmp_path / "reports" / "demo")


def page_of(run, reports, sheet=None, params=None) -> str:
    page.report(inputs(run, sheet or experiments(), params), reports, reports / "index.html")
    return (reports / "index.html").read_text("utf-8")


def test_page_holds_every_figure_table_and_source(run, reports):
    html = page_of(run, reports)
    for name, item in ITEMS.items():
        assert item.title.replace("'", "&#39;") in html and item.caption.replace("'", "&#39;") in html
        assert all(file in html for file in item.files)
        if item.kind != "table":
            assert base64.b64encode((reports / f"{name}.png").read_bytes()).decode() in html
            assert f"results/{name}.json" in html
    for claim in ("87.5 % [78.8 % to 96.3 %]", "62.5 % [", "20.00 [18.00 to 22.00]", "0.02000 [0.01800 to 0.02200]",
                  "50.0 % [40.0 % to 60.0 %]", "7.000 [6.750 to 7.250]", "95 %, for the chance of these n images",
                  "few images", "a step warning", "750k, step 1000", "1M/reconstruction.json", "2.667 [2.400 to 2.933]",
                  "samples without guidance: FD-digits", "samples without guidance: recall", "40.00 [36.00 to 44.00]",
                  "FD-digits and IS-digits are comparable with nothing else", "validation accuracy 96.9 % of 64",
                  "2 candidates over 20 samples each; 40 samples in all; the release", "38.38 ± 0.54", "+8.08 ± 0.11, higher"):
        assert claim in html, claim
    assert "a constant warning" not in html                        # of a candidate that was not chosen
    assert "default-src 'none'" in html                            # the browser itself refuses to load anything


def test_addresses_lead_into_the_page_and_to_mlflow_alone(run, reports):
    html = page_of(run, reports)
    others = re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', html)
    runs = {path for path in others if path.startswith(f"{UI}/results/demo/")}
    assert f"{UI}/results/demo/evaluation/main/750k" in runs and len(runs) > 30
    assert set(others) - runs == {f"{UI}/demo/{name}" for name in ("table2", "table3", "table4", "table5", "table10",
                                                                    "release_switches")}


def test_the_page_of_the_same_inputs_is_the_same_to_the_byte(run, reports):
    assert page_of(run, reports) == page_of(run, reports)


def test_the_page_tells_what_its_results_cost_and_of_others_nothing(run, reports):
    """Without an ablation's table, the results behind it are none of the page's."""
    every = page_of(run, reports).partition('<h2 id="cost">')[2].partition("</table>")[0]
    for path in reports.iterdir():
        if (item := ITEMS.get(path.stem)) and Tree(run, experiments()).beyond_main(item):
            path.unlink()
    alone = page_of(run, reports).partition('<h2 id="cost">')[2].partition("</table>")[0]
    counts = [int(re.search(r'all together</th>.*?class="number">(\d+)<', html)[1]) for html in (every, alone)]
    assert counts[0] > counts[1] > 20 and "unknown" in alone and "restok train-tokenizer" in alone


def test_a_number_that_was_measured_leads_to_its_entry_and_no_other_does(run, reports):
    html = page_of(run, reports)
    appendix = html.partition('<section id="provenance">')[2]
    told = re.findall(r'<details class="source" id="([\w-]+)"><summary>(.*?)</summary>(.*?)</details>', appendix, re.S)
    entries = {anchor: (unescape(title), re.findall(r"<code>(\S+\.json)</code>", body)) for anchor, title, body in told}
    links = [(anchor, unescape(text)) for anchor, text in re.findall(r'<a href="#(from-[^"]*)">(.*?)</a>', html)]
    assert len(entries) > 10 and {anchor for anchor, _ in links} == entries.keys()
    assert all((run / path.partition("demo/")[2]).is_file() for _, files in entries.values() for path in files)
    (best,) = {anchor for anchor, text in links if text.startswith("20.00 [18.00 to 22.00]")}
    title, files = entries[best]
    assert title == "Row main, seed 10086, checkpoint 750k" and files == [
        (run / f"evaluation/main/750k/{name}.json").as_posix() for name in ("reconstruction", "generation", "unguided")]
    titles = [title for title, _ in entries.values()]
    assert len(set(titles)) == len(titles) and {
        "Row restok, seeds 10086 and 10087, checkpoint 150k", "Reconstruction: row main, seed 10086, checkpoint 750k",
        "Rows restok and legacy_layout, seeds 10086 and 10087, checkpoint 150k",
        "Search for guidance: row main, seed 10086, checkpoint 250k", "Feature network"} <= set(titles)
    for printed in ("2.34", "1.28"):                     # the paper's, in the same tables
        assert f">{printed}</td>" in html and printed not in [text for _, text in links]


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
    for path in (*(run / "guidance" / "main").iterdir(), *reports.glob("guidance.*")):
        path.unlink()
    setting = "sampling.guidance={schedule: step, scale: 3.5, start: 0.5}"
    html = page_of(run, reports, experiments(changes=(setting,)), load_params(ROOT / "params" / "demo.yaml", [setting]))
    assert "step, at most 3.5 from 0.5 of the steps on; top-k 0, top-p 0.95" in html
    assert ITEMS["guidance"].title not in html and ITEMS["table6"].title in html


def test_page_of_several_seeds_shows_the_checkpoint_that_is_best_on_average(run, reports):
    sheet = experiments(main_seeds=2)
    write_experiments(run, sheet, lambda trial, label: (4.0, 7.0, {  # 750k: 20, 60; 1M: 21, 22
        ("750k", 10086): 20.0, ("1M", 10086): 21.0, ("1M", 10087): 22.0}.get((label, trial.seed), 60.0)))
    claim = "1M, step 1300: the lowest generation FD-digits of 4 checkpoints, as the mean of 2 seeds; below, seed 10086"
    assert claim in page_of(run, reports, sheet)


@pytest.mark.parametrize("name", ["table1.csv", "fig7.pdf", "table9.csv", "fig9.png"])
def test_page_names_the_report_that_is_missing(run, reports, name):
    (reports / name).unlink()
    with pytest.raises(ReportError, match=rf"{name}: missing; make it with `snakemake --cores 2 .*reports/demo/{name}`"):
        page_of(run, reports)


@pytest.mark.parametrize("name", ["table3.pdf", "table10.csv", "release_switches.csv"])
def test_page_without_an_ablation_says_how_it_is_made(run, reports, name):
    (reports / name).unlink()
    item = ITEMS[name.partition(".")[0]]
    html = page_of(run, reports)
    file = f"{reports.as_posix()}/{item.files[0]}"
    assert f'id="{item.name}"' not in html and html.count('<h3 id="') == len(ITEMS) - 1
    assert f"{item.title.replace(chr(39), '&#39;')}: <code>snakemake --cores 2 {file}</code>" in html
    assert "<code>snakemake --cores 2 ablations --config run=demo</code> makes them all" in html


def test_an_item_added_to_the_list_alone_is_on_the_page(run, reports, monkeypatch):
    monkeypatch.setitem(ITEMS, "table11", Item("table11", "table", "tables.settings:table9", (), None, "Table 11. Added", ""))
    (reports / "table11.csv").write_text("tokens\n")
    html = page_of(run, reports)
    assert '<h3 id="table11">Table 11. Added</h3>' in html and (reports / "table11.csv").as_posix() in html


def test_a_figure_without_its_sources_is_refused(run, reports):
    Image.new("RGB", (2, 2)).save(reports / "fig5.png")
    with pytest.raises(ReportError, match=r"fig5\.png: does not name the files it was drawn from"):
        page_of(run, reports)


def test_a_picture_cut_short_is_refused(run, reports):
    whole = (reports / "fig5.png").read_bytes()
    for end in (0, len(whole) // 2):
        (reports / "fig5.png").write_bytes(whole[:end])
        with pytest.raises(ReportError, match=r"fig5\.png: not a whole picture .*; remove"):
            page_of(run, reports)


def test_reports_do_not_import_torch():
    code = "import sys, restok.reporting.page, restok.reporting.figures.curves; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
