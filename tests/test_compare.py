"""restok compare: what differs between rows, how sure it is, and what each cost."""

import io
import json
import re

import pytest
from conftest import ROOT
from reporting_fixtures import experiments, numbers, write_evaluations, write_experiments
from rich.console import Console

from restok.cli.comparing import _show
from restok.config.load import ConfigError
from restok.experiments import Tree
from restok.experiments.results import KINDS
from restok.files import read_json, write_json
from restok.files.artifact import Origin
from restok.metrics.results import ComparisonError
from restok.reporting.beside import LOWER
from restok.reporting.compare import compare
from restok.reporting.run import ReportError


@pytest.fixture(params=[1])
def tree(request, tmp_path, monkeypatch):
    """The demo's results, of as many seeds a row."""
    monkeypatch.chdir(tmp_path)
    sheet = experiments(seeds=request.param)
    return Tree(write_experiments(tmp_path / "results/demo", sheet, numbers), sheet)


seeds = lambda count: pytest.mark.parametrize("tree", [count], indirect=True)          # noqa: E731


def metric(found, name, of="generation"):
    return next(each for each in found.metrics if (each.name, each.of) == (name, of))


def verdicts(found, name, of="generation"):
    return [against and against.verdict for against in metric(found, name, of).against]


def change(tree, protocol, row, **changes):
    """Rewrite a result of a row's only checkpoint."""
    trial = tree.sheet.trial(row)
    path = tree.path(protocol, trial, trial.labels[-1])
    write_json(path, read_json(path) | changes)


# Which rows


@seeds(2)
def test_a_row_has_all_its_seeds_or_the_one_that_is_named_at_its_last_checkpoint_or_the_one_that_is_named(tree):
    found = compare(tree, ["restok", "restok.10087", "main", "main@750k"])
    assert [[trial.name for trial in row.trials] for row in found.rows] == [
        ["restok.10086", "restok.10087"], ["restok.10087"], ["main"], ["main"]]
    assert [row.first.label for row in found.rows] == ["150k", "150k", "1M", "750k"]
    assert found.settings["seeds"] == ["10086, 10087", "10087", "10086", "10086"]


@pytest.mark.parametrize(("names", "message"), [
    (["baselin", "restok"], r"^baselin: not a row .* for demo; did you mean 'baseline'\?"),
    (["zzz", "restok"], r"zzz: not a row .* there are main, baseline, "),
    (["restok.7", "main"], r"restok\.7: not a row .* its seeds are 10086$"),
    (["restok@2M", "main"], r"no checkpoint '2M'; there are 150k"),
    (["main", "main"], "main: named twice")])
def test_a_name_that_is_none_is_refused_with_the_nearest(names, message, tree):
    with pytest.raises(ConfigError, match=message):
        compare(tree, names)


def test_what_is_not_measured_yet_is_named_with_the_one_command_that_makes_it(tree):
    for row in ("baseline.10086", "restok.10086"):
        tree.path("generation", tree.sheet.trial(row), "150k").unlink()
    with pytest.raises(ReportError) as refused:
        compare(tree, ["main", "baseline", "restok"])
    said = str(refused.value)
    assert said.startswith("not measured yet: baseline.10086 at 150k, restok.10086 at 150k; make it with `snakemake --cores 2 ")
    assert said.count("generation.json") == 2 and "reconstruction.json" not in said


def test_all_rows_of_a_table_are_those_that_it_shows(tree):
    found = compare(tree, (), "table3")
    assert [(row.key, row.trials[0].id) for row in found.rows] == [("1", "pooling_1"), ("2", "restok"), ("4", "pooling_4")]


# Settings


def test_settings_are_those_that_differ_and_no_others(tree):
    assert compare(tree, ["baseline", "restok"]).settings == {
        "tokenizer.latent_init": ["learnable", "residual"], "tokenizer.latent_hierarchy": ["false", "true"],
        "tokenizer.scales": ["1", "3"], "tokenizer.merge_residual": ["false", "true"]}
    assert compare(tree, ["restok", "har_ntp_1"]).settings == {"generator.ntp": ["all", "1"]}


def test_the_guidance_is_the_one_that_was_set_or_the_one_that_was_chosen(tree):
    assert compare(tree, ["guided_by_steps", "guided_by_tokens"]).settings == {
        "sampling.guidance": ["linear, 2", "linear, 2 over tokens"]}
    settings = compare(tree, ["main@750k", "restok"]).settings
    assert settings["sampling.guidance"] == ["step, 2 from 0.25 (searched)", "constant, 1"]
    assert settings["checkpoint"] == ["750k", "150k"]
    assert settings["tokenizer_training.checkpoints"] == ["250k: 400, 500k: 700, 750k: 1000", "150k: 250"]


# Measured


@pytest.mark.parametrize("name", ["FID", "rFID", "sFID", "FD-digits", "rFD-digits", "gFD-digits", "KID", "KD-digits", "MIND",
                                  "MIND-digits", "lpips", "codebook entropy", "IS", "IS-digits one split", "IS ADM splits",
                                  "precision", "recall adm-fp16", "class_accuracy", "ms_ssim", "ssim", "psnr",
                                  "codebook usage"])
def test_lower_is_better_of_distances_and_of_the_entropy_alone(name):
    """Every name that a result may have is meant here: the list of their bounds knows each, too."""
    assert name.startswith(("codebook", "g")) or any(re.fullmatch(pattern, name) for pattern in KINDS)
    lower = name == "lpips" or "entropy" in name or any(part in name for part in ("FID", "FD-", "KID", "KD-", "MIND"))
    assert bool(re.fullmatch(LOWER, name)) == lower


def test_of_one_seed_intervals_decide_and_what_overlaps_is_undecided(tree):
    found = compare(tree, ["restok", "baseline", "pooling_1", "main"])       # 38, 60, 38.1 and 25, 10 % about each
    assert verdicts(found, "gFD-digits") == [None, "worse", "undecided", "better"]
    assert verdicts(found, "IS-digits") == [None, "equal", "equal", "equal"]
    assert verdicts(found, "codebook entropy", "reconstruction") == [None, "undecided", "undecided", "undecided"]
    distance = metric(found, "gFD-digits")
    assert distance.lower and str(distance.measures[0]) == "38.00 [34.20 to 41.80]"
    assert [round(against.difference, 3) for against in distance.against[1:]] == [22.0, 0.1, -13.0]
    assert [each.name for each in found.metrics][:3] == ["rFD-digits", "codebook entropy", "codebook usage"]
    assert [each.name for each in found.metrics if each.of == "generation"][:2] == ["gFD-digits", "IS-digits"]


def test_samples_without_guidance_are_compared_where_there_are_some(tree):
    assert {each.of for each in compare(tree, ["baseline", "restok"]).metrics} == {"reconstruction", "generation"}
    found = compare(tree, ["main@750k", "main@1M", "restok"])
    assert [each.name for each in found.metrics if each.of == "unguided"][:2] == ["gFD-digits", "IS-digits"]
    distance = metric(found, "gFD-digits", "unguided")
    assert distance.lower and list(map(str, distance.measures)) == ["40.00 [36.00 to 44.00]", "50.00 [45.00 to 55.00]", ""]
    assert [against and against.verdict for against in distance.against] == [None, "worse", None]


def test_of_a_score_higher_is_better(tree):
    path = tree.path("generation", tree.sheet.trial("baseline.10086"), "150k")
    record = read_json(path)
    record["metrics"]["precision"], record["intervals"]["precision"] = 0.9, [0.85, 0.95]
    write_json(path, record)
    assert verdicts(compare(tree, ["restok", "baseline"]), "precision") == [None, "better"]
    assert verdicts(compare(tree, ["baseline", "restok"]), "precision") == [None, "worse"]


@seeds(2)
def test_of_several_seeds_students_t_decides_and_of_one_beside_several_nothing(tree):
    """60 and 61.2 against 38 and 38.76, by hand: the means differ by 22.22, and 4.303 * 0.71 is 3.05."""
    found = compare(tree, ["baseline", "restok", "pooling_1", "restok.10086"])
    assert verdicts(found, "gFD-digits") == [None, "better", "better", "undecided"]
    assert verdicts(compare(tree, ["restok", "pooling_1"]), "gFD-digits") == [None, "undecided"]
    assert str(metric(found, "gFD-digits").measures[0]) == "60.60 ± 0.85"


def test_results_that_rows_share_are_the_same(tree):
    found = compare(tree, ["restok", "truncated"])             # which differ in how samples are rounded
    assert verdicts(found, "rFD-digits", "reconstruction") == [None, "same"]
    assert verdicts(found, "gFD-digits") == [None, "undecided"]


def test_what_was_refused_is_said_with_its_reason(tree):
    refused = {"recall": "too few samples"}
    write_evaluations(tree.root, "150k", numbers=(8.0, 7.0, 60.0), trial="baseline.10086", refused=refused)
    found = compare(tree, ["restok", "baseline"])
    assert metric(found, "recall").refused == ("", "too few samples") and verdicts(found, "recall") == [None, None]
    assert metric(found, "lpips", "reconstruction").refused == ("evaluation.lpips is false",) * 2
    said = shown(found)
    assert "Not measured: generation recall of baseline: too few samples." in said
    assert "Not measured: reconstruction lpips: evaluation.lpips is false." in said and "refused" in said


@pytest.mark.parametrize(("changes", "message"), [
    ({"n": 79}, "do not compare: n differ, 80 and 79"),
    ({"neighbours": 5}, "neighbours differ, 3 and 5"),
    ({"reference": {"name": "other", "digest": "99", "n": 90, "size": [8, 8]}}, "reference digest differ, cd and 99")])
def test_values_that_do_not_compare_are_not_put_side_by_side(changes, message, tree):
    change(tree, "generation", "baseline.10086", **changes)
    with pytest.raises(ComparisonError, match=message):
        compare(tree, ["restok", "baseline"])


def test_what_is_measured_once_more_as_others_do_stands_in_the_json_alone(tree):
    path = tree.path("generation", tree.sheet.trial("baseline.10086"), "150k")
    record = read_json(path)
    record["metrics"]["IS-digits ADM splits"], record["intervals"]["IS-digits ADM splits"] = 7.77, [7.0, 8.0]
    write_json(path, record)
    found = compare(tree, ["restok", "baseline"])
    said = shown(found)
    assert "As other programs count it (--json has the values): IS-digits ADM splits." in said and "7.77" not in said
    assert verdicts(found, "IS-digits ADM splits") == [None, None] and "7.77" in json.dumps(found.as_json())


# Cost


def sealed(tree, stage, row, label, seconds, **facts):
    """What making a result took, as its manifest says it."""
    folder = tree.path(stage, tree.sheet.trial(row), label)
    folder.mkdir(parents=True, exist_ok=True)
    Origin(stage, {}, {}).seal(folder, folder)
    manifest = read_json(folder / "manifest.json")
    manifest["made"][0] |= {"seconds": seconds, "device": "H100", "processes": 8, "memory_gb": 3.0, **facts}
    write_json(folder / "manifest.json", manifest)


def test_the_cost_of_a_tokenizer_is_that_of_all_its_checkpoints_so_far(tree):
    for label, seconds in (("250k", 450.0), ("500k", 900.0), ("750k", 450.0), ("1M", 9000.0)):
        sealed(tree, "tokenizer", "main", label, seconds, gpu_memory_gb=seconds / 100)
    sealed(tree, "tokenizer", "restok.10086", "150k", 450.0)
    found = compare(tree, ["main@750k", "restok"])
    assert [str(cost) for cost in found.costs["tokenizer"]] == ["4 h, 8 x H100", "1 h, 8 x H100"]
    assert found.costs["tokenizer"][0].memory("gpu_memory_gb") == 9.0
    assert "generator" not in found.costs and found.sizes["sampling steps"] == [len(
        tree.sheet.trial(row).params.generator.groups) for row in ("main", "restok.10086")]


def test_what_another_row_made_is_said_to_be_shared(tree):
    sealed(tree, "tokenizer", "restok.10086", "150k", 450.0)
    sealed(tree, "generator", "restok.10086", "150k", 900.0)
    sealed(tree, "generator", "har_ntp_1.10086", "150k", 450.0)
    found = compare(tree, ["restok", "har_ntp_1"])
    assert [str(cost) for cost in found.costs["tokenizer"]] == ["1 h, 8 x H100", "1 h, 8 x H100 (of restok.10086)"]
    assert [str(cost) for cost in found.together] == ["3 h, 8 x H100", "1 h, 8 x H100"]


# Shown


def shown(found, width=160):
    file = io.StringIO()
    _show(found, Console(file=file, width=width, highlight=False))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits_the_terminal_and_every_table_has_the_row_that_the_others_are_held_against(width, tree):
    sealed(tree, "tokenizer", "baseline.10086", "150k", 450.0)
    lines = shown(compare(tree, (), "table2"), width).splitlines()
    assert max(map(len, lines)) <= width
    heads = [line for line in lines if re.search(r"^ +#", line)]
    assert len(heads) > 4 and all(head.split()[0] == "#1" for head in heads)
    assert {name for head in heads for name in head.split()} == {f"#{number}" for number in range(1, 9)}


def test_three_rows_fit_on_eighty_columns(tree):
    lines = shown(compare(tree, ["baseline", "restok", "latent_residual"]), 80).splitlines()
    heads = [line.split() for line in lines if re.search(r"^ +baseline", line)]
    assert heads == [["baseline", "restok", "latent_residual"]] * 4
    assert any(re.match(r"gFD-digits ↓ +60\.00 +38\.00 +46\.00", line) for line in lines)
    assert any(re.match(r" +\[54\.00, 66\.00\] +\[34\.20, 41\.80\]", line) for line in lines)
    assert any(re.match(r" +-22 better +-14 better", line) for line in lines)


@seeds(2)
def test_it_says_what_its_words_mean(tree):
    said = " ".join(shown(compare(tree, ["baseline", "restok"])).split())
    assert "better, worse: than baseline, by Student's t of both rows' seeds (95 %)." in said and "± standard deviation" in said
    said = " ".join(shown(compare(tree, ["baseline", "restok.10086", "pooling_1.10087"])).split())
    assert "One seed beside several is undecided" in said and "does not say that the two are alike" in said


def test_the_verb(tree, command, monkeypatch):
    (tree.root.parent.parent / "params").symlink_to(ROOT / "params")
    (tree.root.parent.parent / "run.yaml").symlink_to(ROOT / "run.yaml")
    said = command("compare", "baseline", "restok")
    assert said.exit_code == 0, said.output
    assert "Settings that differ" in said.stdout and "gFD-digits ↓" in said.stdout
    given = command("compare", "baseline", "restok", "--json", "--params", "params/demo.yaml", "--results", tree.root)
    told = json.loads(given.stdout, parse_constant=pytest.fail)
    assert [row["name"] for row in told["rows"]] == ["baseline", "restok"] and told["run"] == "demo"
    distance = next(each for each in told["metrics"] if each["name"] == "gFD-digits")
    assert (distance["better"], distance["values"][1]["against_first"]) == ("lower", {"difference": -22.0, "verdict": "better"})
    assert distance["values"][0] == {"value": 60.0, "sd": None, "low": 54.0, "high": 66.0, "refused": None,
                                     "against_first": None}
    assert "#8" in command("compare", "--item", "table2").stdout


@pytest.mark.parametrize("words", [(), ("restok",), ("restok", "main", "--item", "table2"), ("--item", "table99")])
def test_the_verb_takes_two_rows_or_a_table(words, tree, command):
    (tree.root.parent.parent / "params").symlink_to(ROOT / "params")
    (tree.root.parent.parent / "run.yaml").symlink_to(ROOT / "run.yaml")
    said = command("compare", *words)
    assert said.exit_code == 1 and ("two rows or more" in said.stderr or "choose one of" in said.stderr)
