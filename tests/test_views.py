"""The views of MLflow's pages: which runs, columns and charts, and the form in which MLflow keeps them."""

import base64
import json
import zlib

import pytest
from conftest import ROOT
from reporting_fixtures import result

from restok.experiments import Tree, load_sheet
from restok.mirror.results import places
from restok.mirror.values import evaluated
from restok.mirror.views import TAG, View, colour, tags, views

TREE = Tree(ROOT / "results/demo", load_sheet(ROOT / "params/demo.yaml"))
MEASURED = ["cost/tokenizer hours", "eval/codebook usage", "eval/IS-digits", "interval/gFD-digits low", "eval/codebook entropy",
            "eval/gFD-digits", "reconstruction/PSNR", "eval/rFD-digits", "unheard of/name", "progress",
            "eval/gFD-digits without guidance", "unguided/recall"]
TRAINED = [*(f"codebook by level/entropy {tokens}" for tokens in (16, 1, 2)), "loss/total", "progress", "speed/memory_gb"]
FOUND = {view.key: view for view in views(TREE, {"evaluation": MEASURED, "tokenizer": TRAINED})}


def state(value: str) -> dict:
    """What MLflow reads of a view's tag, as its pages do: JSON, of which one text is deflated."""
    packed = json.loads(value)["state"]
    assert packed.startswith("deflate;")
    return json.loads(zlib.decompress(base64.b64decode(packed.removeprefix("deflate;"))))


def test_there_is_one_for_each_table_that_compares_rows_and_for_each_kind_of_runs():
    assert list(FOUND) == ["table2", "table3", "table4", "table5", "table10", "release_switches",
                           "evaluations", "tokenizers", "generators"]


@pytest.mark.parametrize(("table", "settings"), [
    ("table2", ["tokenizer.latent_init", "tokenizer.latent_hierarchy", "tokenizer.scales", "tokenizer.merge_residual"]),
    ("table3", ["tokenizer.merge_factor"]),
    ("table4", ["objective.alignment.encoder", "objective.alignment.decoder"]),
    ("table5", ["generator.ntp"])])
def test_columns_are_the_name_in_the_table_then_the_numbers_then_the_settings_that_differ(table, settings):
    numbers = ["eval/rFD-digits", "eval/gFD-digits", "eval/IS-digits", "eval/codebook entropy", "eval/codebook usage"]
    behind = ["cost/tokenizer hours", "interval/gFD-digits low"]
    assert FOUND[table].columns == (f"tags.`{table}`", *(f"metrics.`{name}`" for name in numbers),
                                    *(f"params.`{name}`" for name in settings), *(f"metrics.`{name}`" for name in behind))


def test_what_is_without_guidance_is_shown_where_the_table_shows_it():
    values = dict(evaluated(None, result("generation", {"distance": "FID", "score": "IS"}, {"FID": 3.0, "IS": 9.0}, {}),
                            result("generation", {"distance": "FID", "score": "IS"}, {"FID": 6.0, "IS": 5.0}, {})))
    assert values == {
        "eval/gFID": 3.0, "interval/gFID low": 0.9 * 3, "interval/gFID high": 1.1 * 3, "eval/gFID without guidance": 6.0,
        "interval/gFID without guidance low": 0.9 * 6, "interval/gFID without guidance high": 1.1 * 6,
        "eval/IS": 9.0, "interval/IS low": 0.9 * 9, "interval/IS high": 1.1 * 9, "unguided/IS": 5.0,
        "generation/images": 80, "unguided/images": 80}
    for table in ("table10", "evaluations"):
        columns = list(FOUND[table].columns)
        assert columns.index("metrics.`eval/gFD-digits without guidance`") == columns.index("metrics.`eval/gFD-digits`") + 1
        assert "unguided/recall" in FOUND[table].charts
    assert not any("guid" in metric for metric in (*FOUND["table2"].columns, *FOUND["table2"].charts))


def test_the_filter_of_a_table_takes_the_runs_that_feed_it_and_no_others():
    """As the mirror tags them: tags.table2 there, tags.stage as it is called."""
    assert FOUND["table2"].runs == "tags.table2 LIKE '%' AND tags.stage = 'evaluation'"
    fed = [place for place in places(TREE) if place.stage == "generation" and "table2" in place.feeds]
    assert [place.feeds["table2"] for place in fed] == [f"#{number}" for number in range(1, 9)]


def test_charts_are_grouped_the_quantities_of_the_tables_first():
    shown = FOUND["table2"].state
    assert [part["name"] for part in shown["compareRunSections"]] == ["eval", "reconstruction", "cost", "interval"]
    assert [part["name"] for part in shown["compareRunSections"] if not part["display"]] == ["cost", "interval"]
    cards = shown["compareRunCharts"]
    assert [(card["metricKey"], card["metricSectionId"], card["displayName"], card["type"]) for card in cards[:2]] == [
        ("eval/rFD-digits", "eval", "rFD-digits", "BAR"), ("eval/gFD-digits", "eval", "gFD-digits", "BAR")]
    assert {card["metricSectionId"] for card in cards} == {part["uuid"] for part in shown["compareRunSections"]}
    assert not {"progress", "unheard of/name"} & {card["metricKey"] for card in cards}


def test_of_a_training_charts_are_curves_in_the_order_of_the_levels():
    cards = FOUND["tokenizers"].state["compareRunCharts"]
    assert [card["metricKey"] for card in cards] == [
        "loss/total", *(f"codebook by level/entropy {tokens}" for tokens in (1, 2, 16)), "speed/memory_gb"]
    assert {card["type"] for card in cards} == {"LINE"}


def test_a_tag_holds_a_state_as_mlflow_keeps_it_and_the_first_view_is_the_newest():
    view = View("one", "Of a name", "tags.a = 'b'", ("tags.`a`",), ("eval/FID",))
    made = tags([view, View("two", "Another", "", (), ())])
    assert made["mlflow.experimentKind"] == "custom_model_development"
    assert state(made[f"{TAG}one"]) == json.loads(json.dumps(view.state))
    told = {key: json.loads(made[f"{TAG}{key}"]) for key in ("one", "two")}
    assert told["one"]["name"] == "Of a name" and told["one"]["updatedAt"] > told["two"]["updatedAt"]


def test_the_same_views_are_the_same_tags_and_no_tag_is_longer_than_a_store_takes():
    again = views(TREE, {"evaluation": set(MEASURED), "tokenizer": set(TRAINED)})
    assert tags(again) == tags(list(FOUND.values()))
    assert max(map(len, tags(again).values())) < 5000         # MLflow takes 20,000 characters


def test_rows_of_a_table_have_colours_of_their_own():
    for table in ("table2", "table3", "table4", "table5", "release_switches"):
        shown = [place.colour for place in places(TREE) if place.stage == "generation" and table in place.feeds]
        assert len(set(shown)) == len(shown) > 2, table
    assert len({colour(0, checkpoint) for checkpoint in range(1, 5)}) == 4
