"""Ablations and switches: seeds are averaged, and an order or a change holds only beyond the noise."""

import json
from pathlib import Path

import pytest
from conftest import ROOT
from reporting_fixtures import experiments, inputs, made, numbers, write, write_evaluations, write_experiments

from restok.config.load import ConfigError
from restok.experiments import COLUMNS, ITEMS, Tree, load_sheet
from restok.metrics.results import ComparisonError
from restok.reporting.cells import read_csv
from restok.reporting.measured import rows
from restok.reporting.published import Published
from restok.reporting.run import ReportError
from restok.reporting.tables.orders import claims, joined

ORDERS, SWITCHES = ROOT / "params" / "orders.csv", ROOT / "params" / "release_switches.csv"
ABLATIONS = [name for name, item in ITEMS.items() if item.kind == "chart"]
PUBLISHED = Published(ROOT / "params" / "published.csv")


@pytest.fixture
def single(tmp_path):
    return write_experiments(tmp_path / "results" / "demo", experiments(seeds=1), numbers)


def ablation(item: str, results: Path, sheet):
    return made(item, results, sheet).frame.set_index("setting")


def agreement(item: str, results: Path, sheet, orders: Path) -> dict[str, str]:
    said = claims(inputs(results, sheet, orders=orders), item, rows(Tree(results, sheet), item))
    return {claim.row: joined(said, claim.row) for claim in said}


def test_an_ablation_is_the_mean_over_its_seeds(results):
    table = ablation("table2", results, experiments())
    assert list(table.index) == [f"#{i}" for i in range(1, 9)]
    row = table.loc["#1"]
    assert row[["gfid", "gfid_sd"]].tolist() == pytest.approx([60.6, 1.2 / 2 ** 0.5])
    assert row[["gfid_low", "gfid_high"]].isna().all()
    assert row[["seeds", "n_seeds", "rfid_metric", "gfid_metric"]].tolist() == ["10086 10087", 2, "rFD-digits", "FD-digits"]
    assert row[["description", "usage_paper", "gfid_paper"]].tolist() == ["learnable latents, no levels; S = 1", "100", ""]
    assert table.loc["#8", "description"] == "residual latents, 5 levels; S = 3, image residual"
    assert all(f"baseline.{seed}/150k/generation.json" in row["source"] for seed in (10086, 10087))


def test_an_ablation_of_one_seed_has_the_interval_of_its_images(single):
    row = ablation("table2", single, experiments(seeds=1)).loc["#1"]
    assert row[["gfid", "gfid_low", "gfid_high"]].tolist() == [60.0, 54.0, 66.0] and row["gfid_sd"] is None


def test_ablations_say_what_sets_their_rows_apart(results):
    sheet = experiments()
    found = {item: ablation(item, results, sheet)["description"].to_dict() for item in ("table3", "table4", "table5")}
    assert found == {
        "table3": {"1": "factor 1: 16-16-16 image tokens", "2": "factor 2: 16-8-4 image tokens",
                   "4": "factor 4: 16-4-1 image tokens"},
        "table4": {"none": "weights: encoder 0, decoder 0", "encoder": "weights: encoder 1, decoder 0",
                   "decoder": "weights: encoder 0, decoder 1", "both": "weights: encoder 1, decoder 1"},
        "table5": {"vanilla": "vanilla autoregression, 16 steps",
                   "HAR, 1 NTP": "1 next-token prediction, then groups up to 8: 5 steps",
                   "HAR, 4 NTP": "4 next-token predictions, then groups up to 8: 6 steps"}}
    table5 = ablation("table5", results, sheet)
    assert table5["steps"].tolist() == [16, 5, 6] and table5["steps_paper"].tolist() == ["128", "8", "9"]


def test_a_row_of_ones_own_is_a_row_of_the_table(tmp_path):
    changes = "tokenizer.codebook_size=128; generator.codebook_size=128"
    sheet = experiments(f"half_codebook\tablation\t{changes}\ttable2 #9", folder=tmp_path)
    results = write_experiments(tmp_path / "results" / "demo", sheet, lambda *args: (1.0, 1.0, 1.0))
    table = ablation("table2", results, sheet)
    assert table.loc["#9", "changes"] == changes and table.loc["#9", "n_seeds"] == 2
    assert "#9" not in table.loc["#8", "agrees"]                   # lowest of the paper's rows


def test_an_order_holds_beyond_the_noise_alone(results):
    sheet = experiments()
    table2, table3 = ablation("table2", results, sheet)["agrees"], ablation("table3", results, sheet)["agrees"]
    assert table2["#2"] == "gFID below #1: yes" and table2["#5"] == "rFID below #2: yes" and table2["#1"] == ""
    assert table2["#8"] == "lowest entropy: yes; lowest gFID: yes"
    assert table3["2"] == "lowest gFID: undecided (against 1)"


def test_an_order_of_one_seed_takes_intervals_that_do_not_overlap(single):
    sheet = experiments(seeds=1)
    assert ablation("table2", single, sheet).loc["#2", "agrees"] == "gFID below #1: yes (one seed)"     # 46 and 60, 10 % each
    assert ablation("table4", single, sheet).loc["both", "agrees"] == "lowest gFID (our reading): undecided (one seed)"
    assert ablation("table3", single, sheet).loc["2", "agrees"] == "lowest gFID: undecided (one seed)"


def test_rows_that_share_a_measurement_count_once_for_the_noise(tmp_path):
    """Three rows of Table 5 share the tokenizer. Pooled once, ln 2.233 - ln 2 is within Student's t of 2 degrees of freedom;
    pooled three times it would be beyond that of 4."""
    def found(trial, label):
        return (2.2326 if trial.id == "other" else 2.0) * (1.04 if trial.seed == 10087 else 1.0), 7.0, 40.0

    sheet = experiments("other\tablation\ttokenizer.scales=2\ttable5 other", folder=tmp_path)
    results = write_experiments(tmp_path / "results" / "demo", sheet, found)
    orders = tmp_path / "orders.csv"
    orders.write_text("item,quantity,lower,higher,source,note\ntable5,rfid,vanilla,other,s,\n")
    assert agreement("table5", results, sheet, orders)["vanilla"] == "rFID below other: undecided"


def test_seeds_of_finished_weights_say_nothing_of_the_noise_between_trainings(tmp_path):
    weights = f"{tmp_path}/weights/tokenizer\t{tmp_path}/weights/generator"
    sheet = experiments(f"released\tmain\t\ttable2 #9\t\t{weights}", folder=tmp_path, seeds=1, main_seeds=2)
    table = ablation("table2", write_experiments(tmp_path / "results" / "demo", sheet, numbers), sheet)
    assert table.loc["#9", "n_seeds"] == 2 and table.loc["#2", "agrees"] == "gFID below #1: yes (one seed)"


def test_finished_weights_are_described_by_their_own_settings(tmp_path):
    """What the sheet says of them is not true of them."""
    weights = f"{tmp_path}/weights/tokenizer\t{tmp_path}/weights/generator"
    feeds = "table1; table2 #9; table3 mine; table4 mine; table5 mine; release_switches"
    sheet = experiments(f"released\tmain\ttokenizer.scales=2\t{feeds}\t\t{weights}", folder=tmp_path)
    results = write_experiments(tmp_path / "results" / "demo", sheet, numbers)
    for name, changes in (("tokenizer", {"latent_init": "pooled", "merge_factor": 4, "latent_layout": "legacy", "latents": 8}),
                          ("generator", {"ntp": 1})):
        path = tmp_path / "weights" / name / "config.json"
        write(path, json.loads(path.read_text()) | changes)
    found = {item: ablation(item, results, sheet).iloc[-1] for item in ABLATIONS}
    assert [row["description"] for row in found.values()] == [
        "pooled latents, 4 levels; S = 2, image residual", "factor 4: 16-4 image tokens", "finished weights",
        "1 next-token prediction, then groups up to 8: 5 steps"]
    assert found["table2"]["tokens"] == 8 and made("table1", results, sheet).frame.iloc[-1]["tokens"] == "8"
    path = tmp_path / "switches.csv"
    path.write_text(SWITCHES.read_text().replace("legacy_layout", "released"))
    assert made("release_switches", results, sheet, switches=path).frame.loc[0, "switched_setting"] == "legacy"
    (tmp_path / "weights" / "tokenizer" / "config.json").unlink()
    with pytest.raises(ReportError, match=r"weights/tokenizer/config\.json: missing"):
        ablation("table3", results, sheet)


def test_the_other_way_round_is_no(results, tmp_path):
    orders = tmp_path / "orders.csv"
    orders.write_text("item,quantity,lower,higher,source,note\ntable2,gfid,#1,#2,s,\ntable2,rfid,#3,*,s,\ntable2,gfid,#1,#77,s,\n")
    found = agreement("table2", results, experiments(), orders)
    assert found["#1"] == "gFID below #2: no; gFID below #77: not run"
    assert found["#3"] == "lowest rFID: no (against #4, #5, #6, #7, #8)"
    orders.write_text("item,quantity,lower,higher,source,note\ntable2,fid,#1,#2,s,\n")
    with pytest.raises(ReportError, match="quantity 'fid'; choose one of rfid, gfid, entropy"):
        agreement("table2", results, experiments(), orders)


def test_every_order_is_about_rows_of_the_paper():
    for order in read_csv(ORDERS).itertuples():
        assert {order.lower, order.higher} - {"*"} <= set(PUBLISHED.rows(order.item)), order
        assert order.source.startswith("arXiv 2601.03955v1, ")


def test_rows_that_were_not_measured_alike_make_no_table(results):
    path = results / "evaluation" / "scales_2.10087" / "150k" / "generation.json"
    found = json.loads(path.read_text())
    write(path, found | {"n": 81})
    with pytest.raises(ComparisonError, match=r"scales_2\.10087/150k/generation\.json do not compare: n differ, 80"):
        ablation("table2", results, experiments())
    write(path, found | {"reference": found["reference"] | {"digest": "another"}})
    with pytest.raises(ComparisonError, match="reference digest differ, cd and another"):
        ablation("table2", results, experiments())
    path.unlink()
    with pytest.raises(ReportError, match=r"missing; .*snakemake --cores 2 \S+scales_2\.10087/150k/gen"):
        ablation("table2", results, experiments())


def test_two_rows_of_one_name_and_a_table_without_rows_are_refused(tmp_path, results):
    sheet = experiments("again\tablation\ttokenizer.scales=2\ttable2 #3", folder=tmp_path)
    with pytest.raises(ConfigError, match="rows 'scales_2' and 'again' both feed table2 as '#3'"):
        ablation("table2", results, sheet)
    lines = ["a\tmain\t\ttable10 mine", "b\tmain\tgenerator.ntp=1\ttable10 mine at 750k@750k"]
    with pytest.raises(ConfigError, match="rows 'a' and 'b' both feed table10 as 'mine at 750k'"):
        rows(Tree(results, experiments(*lines, folder=tmp_path)), "table10")
    (tmp_path / "none.tsv").write_text("\t".join(COLUMNS) + "\nmain\tmain\t\ttable1\n")
    with pytest.raises(ConfigError, match="no row feeds table2 for demo"):
        ablation("table2", results, load_sheet(ROOT / "params" / "demo.yaml", sheet=tmp_path / "none.tsv"))


def test_a_switch_of_the_release_has_both_sides_and_their_difference(results):
    table = made("release_switches", results, experiments()).frame.set_index("switch")
    layout = table.loc["latent layout"]
    assert (layout["default"], layout["switched_setting"]) == ("tokens", "legacy")
    assert layout[["default_gfid", "switched_gfid", "gfid_effect", "gfid_effect_sd"]].tolist() == pytest.approx(
        [38.38, 46.46, 8.08, 0.16 / 2 ** 0.5])
    half = 12.706 * 0.08                                           # Student's t of one degree of freedom
    assert layout[["gfid_effect_low", "gfid_effect_high"]].tolist() == pytest.approx([8.08 - half, 8.08 + half], rel=1e-4)
    assert (layout["gfid_verdict"], layout["rfid_verdict"], layout["entropy_verdict"]) == ("higher", "unchanged", "higher")
    assert table["default_class_accuracy"].tolist() == [0.625] * 6 and set(table["class_accuracy_verdict"]) == {"unchanged"}
    assert table.loc["merging", "switched_setting"] == "nearest; width"
    assert table.loc["8-bit rounding", ["default", "switched_setting", "switched_run"]].tolist() == [
        "round", "truncate", "truncated"]
    assert table.loc["guidance ratio", ["default", "switched_setting"]].tolist() == ["steps", "tokens"]
    assert "legacy_layout.10087" in layout["source"] and "restok.10087" in layout["source"]


def test_a_switch_of_one_seed_counts_where_intervals_do_not_overlap(single):
    sheet = experiments(seeds=1)
    table = made("release_switches", single, sheet).frame.set_index("switch")
    assert table.loc["latent layout", ["gfid_effect", "gfid_verdict"]].tolist() == [8.0, "undecided (one seed)"]
    write_evaluations(single, "150k", numbers=(2.0, 6.5, 60.0), trial="legacy_layout.10086")
    table = made("release_switches", single, sheet).frame.set_index("switch")
    assert table.loc["latent layout", ["gfid_verdict", "rfid_verdict"]].tolist() == ["higher (one seed)", "lower (one seed)"]


def test_a_switch_without_its_experiment_is_refused(results, tmp_path):
    path = tmp_path / "switches.csv"
    path.write_text(SWITCHES.read_text().replace("margin_75", "margin_57"))
    with pytest.raises(ConfigError, match=r"switches\.csv, row 'alignment margin': no experiment 'margin_57' of demo"):
        made("release_switches", results, experiments(), switches=path)


def test_orders_and_switches_of_other_columns_are_refused(tmp_path, results):
    (tmp_path / "orders.csv").write_text("item,lower\n")
    with pytest.raises(ReportError, match=r"orders\.csv: columns item, lower; expected item, quantity, lower, higher"):
        agreement("table2", results, experiments(), tmp_path / "orders.csv")
