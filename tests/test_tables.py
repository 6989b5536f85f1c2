"""Tables: published numbers stay as printed, our own carry their network's name, every number has its file."""


import pytest
from conftest import ROOT
from reporting_fixtures import (
    CHECKPOINTS,
    experiments,
    inputs,
    made,
    numbers,
    write_evaluations,
    write_experiments,
    write_two_rounds,
)

from restok.config.load import load_params
from restok.experiments import COLUMNS, ITEMS, load_sheet
from restok.metrics.results import ComparisonError
from restok.reporting.cells import count, read_csv
from restok.reporting.published import Published
from restok.reporting.run import ReportError
from restok.reporting.tables.markdown import tables as markdown

DEMO, ORDERS, SWITCHES = (ROOT / "params" / name for name in ("demo.yaml", "orders.csv", "release_switches.csv"))
PUBLISHED = Published(ROOT / "params" / "published.csv")
IMAGENET = load_sheet(ROOT / "params" / "imagenet256.yaml")


@pytest.fixture
def main_sheet(tmp_path):
    """One row: the run of the fixture."""
    path = tmp_path / "experiments.tsv"
    path.write_text("\t".join(COLUMNS) + "\nmain\tmain\t\ttable1; table6\n")
    checkpoints = "tokenizer_training.checkpoints={early: 10, middle: 20, late: 30}"
    return load_sheet(ROOT / "params" / "imagenet256.yaml", [checkpoints], path)


def test_published_systems_are_the_papers(run, main_sheet):
    table = made("table1", run, main_sheet).frame.set_index("method")
    assert table["family"].value_counts().to_dict() == {"continuous": 5, "grid": 7, "query": 9}
    shown = ["tokenizer_params", "tokens", "reconstruction_distance", "generator_type", "generator_params", "steps",
             "generation_distance", "score", "precision", "recall"]
    assert ",".join(table.loc["ResTok", shown]) == "662M,128,1.28,HAR,326M,9,2.34,257.8,0.79,0.60"
    assert ",".join(table.loc["FlexTok d18-d18", shown]) == "950M,1-256,1.61,AR+Flow,1.33B,26-281,2.02,,,"
    assert table.loc["LDM-4-G", "generation_distance"] == "3.60"   # as printed, not 3.6
    assert (table["source"] != "").all()


def test_every_published_number_has_a_source_and_is_there_once(tmp_path):
    lines = (ROOT / "params" / "published.csv").read_text().splitlines()
    assert all(cell for cell in read_csv(ROOT / "params" / "published.csv")["source"])
    (tmp_path / "published.csv").write_text("\n".join([*lines, lines[-1]]))
    with pytest.raises(ReportError, match="is there twice"):
        Published(tmp_path / "published.csv").rows("table1")


@pytest.mark.parametrize("item", ["table7", "table8"])
def test_the_papers_parameter_file_has_the_papers_settings(item):
    table = made(item, "results", IMAGENET, load_params(ROOT / "params" / "imagenet256.yaml")).frame
    other = ["codes.scales"] if item == "table8" else []       # LlamaGen's scripts mix 1.1 and 1.05; ours take 1.1
    assert len(table) > 20 and table.loc[table["same"] != "yes", "setting"].tolist() == other


def test_another_setting_than_the_papers_is_told():
    table = made("table7", "results", experiments()).frame.set_index("setting")
    assert table.loc["tokenizer_training.batch_size", ["paper", "ours", "same"]].tolist() == ["256", "16", "no"]
    assert table.loc["objective.alignment.margin", "same"] == "yes"


def test_table9_is_exact_and_the_papers():
    table = made("table9", "results", IMAGENET, load_params(ROOT / "params" / "imagenet256.yaml")).frame
    assert dict(zip(table["tokens"], table["probability"], strict=True)) == {
        4: "1/155", 8: "2/155", 16: "4/155", 32: "8/155", 64: "16/155", 128: "4/5"}
    assert table["probability"].tolist() == table["probability_paper"].tolist()
    assert table["decimal"].sum() == pytest.approx(1)


def test_table1_adds_the_best_checkpoint_under_its_own_features(run, main_sheet):
    table = made("table1", run, main_sheet).frame
    assert len(table) == 21
    assert set(table["features"][:20]) == {"Inception (rFID, FID, IS)"} and set(table["intervals"][:20]) == {""}
    own = table.iloc[-1]
    assert own["features"] == "digits classifier (rFD-digits, FD-digits, IS-digits)"
    assert not any("FID" in cell for cell in own)
    assert own[["method", "tokenizer_params", "generator_params", "steps", "generation_distance", "n"]].tolist() == [
        "ResTok, this run (imagenet256, middle)", "1.23M", "84.5K", "6", "18.12", "80"]
    assert "middle/generation.json" in own["source"] and "middle/unguided.json" in own["source"]
    assert own["intervals"] == ("rFD-digits 3.600 to 4.400; FD-digits 16.31 to 19.94; FD-digits without guidance 32.62 to "
                                "39.87; IS-digits 6.750 to 8.250; precision 0.6390 to 0.7810; recall 0.5400 to 0.6600")


def test_table1_has_gfid_without_guidance_beside_the_guided_one_of_our_rows_alone(run, main_sheet):
    found = made("table1", run, main_sheet)
    assert found.shown["gFID without guidance ↓"].tolist() == [*[""] * 20, "36.25"]
    titles = list(found.shown)
    assert titles.index("gFID without guidance ↓") == titles.index("gFID ↓") + 1
    other = run / "evaluation/main/late/unguided.json"
    other.write_text(other.read_text().replace('"n": 80', '"n": 81'))
    with pytest.raises(ComparisonError, match=r"unguided\.json do not compare: n differ, 80 and 81"):
        made("table1", run, main_sheet)
    other.unlink()
    with pytest.raises(ReportError, match=r"late/unguided\.json: missing; make it with .*, which calls `restok evaluate`"):
        made("table1", run, main_sheet)


def test_table1_is_the_mean_over_seeds_at_the_checkpoint_that_is_best_on_average(tmp_path):
    def found(trial, label):
        return 4.0, 7.0, {"750k": 20.0, "1M": 21.0}.get(label, 50.0) + (trial.seed == 10087) * (30.0 if label == "750k" else 1)

    sheet = experiments(main_seeds=2, seeds=1)
    own = made("table1", write_experiments(tmp_path / "results" / "demo", sheet, found), sheet).frame.iloc[-1]
    assert own[["method", "generation_distance", "intervals"]].tolist() == ["ResTok, this run (demo, 1M)", "21.50", ""]
    assert own["notes"].startswith("mean of 2 seeds (10086 10087), whose standard deviations are rFD-digits 0, FD-digits 0.71")
    assert "main.10087/1M/generation.json" in own["source"]


def test_what_was_refused_is_blank_in_table1(run, main_sheet):
    write_evaluations(run, "middle", refused={"IS-digits": "no classifier", "recall": "no images"})
    own = made("table1", run, main_sheet).frame.iloc[-1]
    assert own[["score", "precision", "recall"]].tolist() == ["", "0.7100", ""]
    assert own["intervals"] == ("rFD-digits 3.600 to 4.400; FD-digits 16.31 to 19.94; FD-digits without guidance 32.62 to "
                                "39.87; precision 0.6390 to 0.7810")


@pytest.mark.parametrize("generator", ["generator", ""])
def test_finished_weights_are_a_row_of_table1(tmp_path, generator):
    finished = f"{tmp_path}/weights/tokenizer\t{generator and f'{tmp_path}/weights/{generator}'}"
    sheet = experiments(f"released\tmain\t\ttable1 the release\t\t{finished}", folder=tmp_path)
    results = write_experiments(tmp_path / "results" / "demo", sheet, numbers)
    own = made("table1", results, sheet).frame.iloc[-1]
    assert own["method"] == "ResTok, the release (demo, released)" and "finished weights: " in own["notes"]
    assert own["tokenizer_params"] == "1.23M" and own["reconstruction_distance"] == "2.667"
    assert own[["generator_params", "generation_distance", "unguided_distance"]].tolist() == (
        ["84.5K", "46.00", "92.00"] if generator else [""] * 3)


def test_count_prints_three_digits():
    assert [count(n) for n in (661_791_947, 326_263_808, 1_330_000_000, 999)] == ["662M", "326M", "1.33B", "999"]


def test_table6_reports_the_chosen_candidate_beside_the_papers(run, main_sheet, results):
    table = made("table6", run, main_sheet).frame
    assert table["checkpoint"].tolist() == list(CHECKPOINTS)
    row = table.iloc[1]
    assert (row["schedule"], row["start_ratio"], row["max_scale"], row["top_k"], row["top_p"]) == ("step", 0.25, 2.0, 0, 0.95)
    assert (row["metric"], row["distance"], row["n"], row["candidates"]) == ("FD-digits", 21.0, 20, 2)
    assert row["interval"] == "19.00 to 23.00"
    demo = made("table6", results, experiments()).frame.set_index("checkpoint")
    assert demo["max_scale_paper"].to_dict() == {"250k": "", "500k": "", "750k": "3.75", "1M": ""}


def test_table6_says_how_many_samples_each_round_and_the_whole_search_took(run, main_sheet):
    notes = made("table6", run, main_sheet).notes
    assert notes[0] == "FD-digits, the lowest of 2 candidates over 20 samples each."
    assert notes[1] == ("The search for each: 40 samples in all; the release's hill-climb takes 50,000 a step, so as many as "
                        "0.0008 of its steps.")
    for label in CHECKPOINTS:
        write_two_rounds(run, label)
    found = made("table6", run, main_sheet)
    assert found.frame.loc[1, ["schedule", "distance", "n", "candidates", "search_samples"]].tolist() == [
        "linear", 15.0, 50, 4, 180]
    assert found.notes[0] == ("FD-digits, the lowest of 2 finalists over 50 samples each, the best of 4 candidates over 20 "
                              "samples each.")
    assert found.notes[1].startswith("The search for each: 180 samples in all; ")


def test_a_choice_that_is_not_among_the_finalists_is_refused(run, main_sheet):
    path = write_two_rounds(run, "late")
    path.write_text(path.read_text().replace('"schedule": "linear"', '"schedule": "constant"', 1))
    with pytest.raises(ReportError, match=r"late\.json: the chosen setting is not among the finalists"):
        made("table6", run, main_sheet)


def test_no_guidance_is_called_none(results, tmp_path):
    sheet = experiments()
    for path in (results / "guidance" / "main").iterdir():
        path.write_text(path.read_text().replace('"chosen": {"schedule": "step", "scale": 2.0, "start": 0.25}',
                                                 '"chosen": {"schedule": "constant", "scale": 1.0, "start": 0.0}'))
    table6 = made("table6", results, sheet)
    assert table6.shown.loc[0, ["schedule", "start ratio", "largest scale"]].tolist() == ["none (searched)", "", ""]
    table10 = made("table10", results, sheet).shown
    assert table10["guidance"].tolist() == ["none (searched)", "step, at most 2, from 0.25 on (searched)"]


@pytest.mark.parametrize(("guidance", "schedule"), [("{schedule: linear, scale: 3}", "linear"),
                                                    ("{schedule: constant, scale: 1}", "none")])
def test_table6_says_a_guidance_that_the_parameters_set(results, tmp_path, guidance, schedule):
    sheet = experiments(changes=(f"sampling.guidance={guidance}",))
    found = made("table6", results, sheet)
    assert set(found.shown["schedule"]) == {schedule}
    assert found.notes == ["Set by the parameters, not searched: 250k, 500k, 750k, 1M."]


def test_a_choice_that_is_not_among_the_candidates_is_refused(run, main_sheet):
    path = run / "guidance" / "main" / "late.json"
    path.write_text(path.read_text().replace('"scale": 2.0', '"scale": 3.0', 1))
    with pytest.raises(ReportError, match=r"late\.json: the chosen setting is not among the candidates"):
        made("table6", run, main_sheet)


def test_table10_has_both_generators_with_their_guidance(results):
    table = made("table10", results, experiments()).frame.set_index("setting")
    assert table["steps"].to_dict() == {"HAR": 6, "vanilla": 16}
    assert table["gfid_paper"].to_dict() == {"HAR": "2.34", "vanilla": "2.18"}
    assert table.loc["HAR", ["checkpoint", "schedule", "max_scale", "guidance", "gfid", "gfid_low"]].tolist() == [
        "750k", "step", "2", "searched", 20.0, 18.0]
    assert table.loc["vanilla", "agrees"] == "gFID below HAR: no (one seed)"


def test_a_reader_sees_mean_and_deviation_and_never_fid_of_another_network(results, tmp_path):
    found = made("table2", results, experiments())
    assert found.shown.loc[0, "FD-digits ↓"] == "60.60 ± 0.85"
    assert not any("FID" in column for column in found.shown.columns)
    assert "Mean ± standard deviation over 2 seeds (10086 10087)." in found.notes
    switches = made("release_switches", results, experiments()).shown
    assert "change of read as the class asked for" in switches
    assert switches.loc[0, "change of FD-digits"] == "+8.08 ± 0.11, higher"


def test_a_reader_sees_which_quantities_the_paper_orders(results, tmp_path):
    notes = {item: made(item, results, experiments()).notes
             for item in ("table2", "table3", "table4")}
    unprinted = "Of rFID, entropy, gFID the text of the paper prints no values here"
    assert f"{unprinted}, only an order of rFID, entropy, gFID." in notes["table2"]
    assert f"{unprinted}, only an order of gFID." in notes["table3"]
    assert f"{unprinted}." in notes["table4"]                      # which says what is best, not in which quantity
    assert [any(note.startswith("Our reading: ") for note in found) for found in notes.values()] == [False, False, True]


def test_a_reader_sees_both_references_and_that_one_seed_is_one(tmp_path):
    sheet = experiments(seeds=1)
    results = write_experiments(tmp_path / "results" / "demo", sheet, numbers)
    for path in results.rglob("generation.json"):
        path.write_text(path.read_text().replace("training split", "validation split").replace('"cd"', '"0123456789abcdef"'))
    found = made("table3", results, sheet)
    assert found.frame.loc[0, ["reconstruction_reference", "generation_reference"]].tolist() == [
        "training split (cd)", "validation split (0123456789ab)"]
    assert "what another seed would give is not known" in found.notes[0]
    assert set(found.shown["codebook use (%)"]) == {"50.00"}


def test_a_reader_sees_what_a_row_of_ones_own_changes(tmp_path):
    sheet = experiments("wide\tablation\ttokenizer.width=128\ttable3 wide", folder=tmp_path)
    results = write_experiments(tmp_path / "results" / "demo", sheet, numbers)
    found = made("table3", results, sheet)
    assert found.shown["changes"].tolist() == ["", "", "", "tokenizer.width=128"] and found.own == (3,)


def test_the_papers_values_bear_the_papers_names(results, tmp_path):
    found = made("table10", results, experiments())
    assert found.shown[["FD-digits ↓", "gFID, paper"]].iloc[0].tolist() == ["20.00 [18.00 to 22.00]", "2.34"]
    assert found.shown["FD-digits without guidance ↓"].iloc[0] == "40.00 [36.00 to 44.00]"
    assert found.frame.loc[0, ["gfid_unguided", "gfid_unguided_low", "gfid_unguided_high", "gfid_unguided_paper"]].tolist() == [
        40.0, 36.0, 44.0, ""]
    assert "The paper's values are of Inception's features: FD-digits does not compare with them." in found.notes


def test_markdown_holds_the_tables_that_are_there_and_names_the_others(results, tmp_path):
    sheet = experiments("odd\tablation\ttokenizer.width=128\ttable3 a|b<c>", folder=tmp_path)
    write_experiments(results, sheet, numbers)
    for item in ITEMS.values():
        if item.name != "table4":        # whose results are there, perhaps of other settings
            (tmp_path / f"{item.name}.csv").touch()
    markdown(inputs(results, sheet), tmp_path / "tables.md")
    text = (tmp_path / "tables.md").read_text("utf-8")
    assert r"| a\|b&lt;c> | factor 2: 16-8-4 image tokens | tokenizer.width=128 |" in text
    assert "## Table 3. Pooling factor" in text and "| 2 | factor 2: 16-8-4 image tokens |  | 2.693 ± 0.038 |" in text
    assert f"- Table 4. Alignment: make it with `snakemake --cores 2 {tmp_path.as_posix()}/table4.csv`" in text
    assert "## Table 4" not in text
