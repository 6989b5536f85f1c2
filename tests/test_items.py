"""One list of tables and figures, one tree of results: what is added there is found everywhere."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name

import pytest
import warm
from conftest import ROOT, dry_run
from reporting_fixtures import run_params, run_sheet, write_run

from restok.config.load import load_params
from restok.config.text import read_yaml
from restok.experiments import ITEMS, Tree, demand, load_sheet
from restok.experiments.places import STAGES, depends_on, pattern, stage_of

DEMO, IMAGENET = (ROOT / "params" / f"{name}.yaml" for name in ("demo", "imagenet256"))
ADDED = '''
from restok.experiments.items import ITEMS, Item
ITEMS["table11"] = Item("table11", "table", "tables.settings:table9", (), None, "Table 11. Added", "By a test.")
ITEMS["fig10"] = Item("fig10", "figure", "figures.masks:fig8", ("layout",), None, "Fig. 10. Added", "By a test.")
'''


@pytest.fixture
def added(tmp_path) -> dict[str, str]:
    """The environment of a command whose list of items has two more."""
    (tmp_path / "sitecustomize.py").write_text(ADDED)
    return os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def test_an_item_added_to_the_list_alone_is_in_the_workflow(workflow, added):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "reports/demo/index.html"]
    planned = subprocess.run(command, cwd=workflow, env=added, capture_output=True, text=True, check=True).stdout
    assert "output: reports/demo/table11.csv" in planned
    assert "output: reports/demo/fig10.png, reports/demo/fig10.pdf, reports/demo/fig10.csv" in planned


def test_what_no_row_of_the_sheet_feeds_is_not_made(workflow):
    sheet = workflow / "params" / "experiments.tsv"
    lines = sheet.read_text().splitlines(keepends=True)
    sheet.write_text("".join(line for line in lines if line.startswith(("#", "id\t", "main\t"))))
    planned = dry_run(workflow, "all", "ablations")
    assert "output: reports/demo/table1.csv" in planned and "reports/demo/table10.csv" in planned
    assert not re.search(r"reports/demo/(table[2-5]|release_switches)\.", planned)


@pytest.mark.parametrize(("verb", "name"), [("table", "table11"), ("figure", "fig10")])
def test_an_item_added_to_the_list_alone_is_in_the_commands_help(verb, name, added):
    command = [sys.executable, "-c", "from restok.cli import app; app()", verb]
    shown = subprocess.run([*command, "--help"], cwd=ROOT, env=added, capture_output=True, text=True, check=True).stdout
    assert name in shown
    without = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert name not in without


def test_every_item_names_functions_and_stages_that_are_there():
    for item in ITEMS.values():
        assert set(item.reads) <= set(STAGES), item.name
        for function in filter(None, (item.made_by, item.numbers)):
            assert callable(resolve_name(f"restok.reporting.{function}"))


def test_the_demo_makes_the_main_run_alone_and_the_ablations_the_rest(workflow):
    def outputs(*words):
        return {name for line in re.findall(r"output: (.*)", dry_run(workflow, *words)) for name in line.split(", ")}

    demo, rest = outputs(), outputs("ablations")
    of_a_row = re.compile(r"/\w+\.10086/")
    assert not list(filter(of_a_row.search, demo)) and list(filter(of_a_row.search, rest))
    assert {f"reports/demo/{name}" for table in ("table1", "table6", "table7", "table8", "table9")
            for name in (f"{table}.csv", f"provenance/{table}.json")} <= demo
    for name in ("table2", "table3", "table4", "table5", "table10", "release_switches"):
        assert f"reports/demo/{name}.csv" in rest and f"reports/demo/{name}.csv" not in demo


def test_the_page_takes_in_what_is_there(workflow):
    table = workflow / "reports/demo/table10.csv"
    assert "table10.csv" not in dry_run(workflow)
    table.parent.mkdir(parents=True)
    table.write_text("setting\n")
    assert "table10.csv" in dry_run(workflow)


@pytest.mark.parametrize("stage", ["tokenizer", "codes", "panel"])
def test_an_unknown_checkpoint_is_refused_with_those_that_there_are(workflow, stage):
    path = pattern(stage).format(run="demo", trial="main", label="900k")
    assert "main: no checkpoint '900k'; there are 250k, 500k, 750k, 1M" in dry_run(workflow, path, fails=True)


def test_another_run_needs_no_parameters_of_the_demo(workflow):
    (workflow / "params/demo.yaml").write_text("")
    assert "output: results/short/layout.npz" in dry_run(workflow, "results/short/layout.npz")


def test_shell_lines_quote_whatever_they_are_given():
    lines = [line for path in (ROOT / "workflow/rules").glob("*.smk") for block in
             re.findall(r"    shell:\n((?: {8}.*\n)+)", path.read_text()) for line in block.splitlines()]
    places = re.findall(r"\{[^}]*\}", "".join(lines))
    own = [place for place in places if not place.endswith(":q}")]       # the workflow's: a command, the name of a stage
    assert len(places) > 80 and sorted(own) == [*["{resources.launch}"] * 2, *["{stage}"] * 2]


@pytest.mark.parametrize("name", ["-x", "it's $(touch MARK)", 'w[1]"*&touch MARK; (grö\u0308ße'])
def test_a_parameter_file_may_have_any_name(workflow, name):
    """A word of the shell lines, and a run of its own; no other run minds it."""
    shutil.copy2(workflow / "params/short.yaml", workflow / f"params/{name}.yaml")
    target = f"reports/{name}/table9.csv"
    done = warm.snakemake(workflow, "--cores", "1", target)
    assert done.returncode == 0 and (workflow / target).is_file(), done.stdout + done.stderr
    assert not [*workflow.rglob("MARK*")]
    assert "output: results/demo/layout.npz" in dry_run(workflow, "results/demo/layout.npz")
    assert f"output: reports/{name}/index.html" in dry_run(workflow, "all", "ablations", "--config", f"run={name}")


def test_a_parameter_file_that_is_not_there_or_has_braces_is_named(workflow):
    assert "params/other.yaml: cannot be read" in dry_run(workflow, "results/other/layout.npz", fails=True)
    shutil.copy2(workflow / "params/short.yaml", workflow / "params/my{run}.yaml")
    assert "params/my{run}.yaml: Snakemake takes names in braces" in dry_run(workflow, "--config", "run=my{run}", fails=True)
    assert "output: results/demo/layout.npz" in dry_run(workflow, "results/demo/layout.npz")


def test_folders_of_the_sheet_and_the_reference_are_words_of_the_shell_lines(workflow):
    weights, images = "w&id>MARK;(", 'my data/it\'s "VIRTUAL" $(ref).npz'
    (workflow / weights).mkdir()
    (workflow / "my data").mkdir()
    (workflow / images).touch()
    with (workflow / "params/experiments.tsv").open("a") as sheet:
        sheet.write(f"mine\tmain\tsampling.guidance={{schedule: constant, scale: 1.0}}\ttable1 mine\tshort\t{weights}\n")
    params = workflow / "params/short.yaml"
    params.write_text(params.read_text().replace("reference: null", f"reference: {json.dumps(images)}"))
    planned = dry_run(workflow, "--printshellcmds", "results/short/panel/mine.10086/released.npz",
                      "results/short/reference/published.safetensors")
    words = [shlex.split(line) for line in planned.splitlines() if "restok panel" in line or "restok statistics" in line]
    assert [weights in line or images in line for line in words] == [True, True]


@pytest.mark.parametrize(("run", "classes"), [("demo", 10), ("imagenet256", 20)])
def test_samples_are_asked_of_classes_that_there_are(workflow, run, classes):
    planned = dry_run(workflow, "--printshellcmds", f"results/{run}/samples/main/1M.npz")
    assert [f"--classes {classes} " in line for line in planned.splitlines() if "restok sample" in line] == [True]


def test_the_search_takes_small_and_large_numbers(workflow):
    params = workflow / "params/short.yaml"
    params.write_text(params.read_text().replace("scales: [2.0, 3.0]", "scales: [1e-5, 2, 250.5]")
                      .replace("starts: [0.25]", "starts: [1e-7]"))
    planned = dry_run(workflow, "results/short/guidance/main/750k.json")
    for scale in ("1e-05", "2.0", "250.5"):
        assert f"output: results/short/guidance/main/750k/step_{scale}_1e-07.json" in planned


@pytest.mark.parametrize("protocol", ["reconstruction", "generation", "unguided"])
def test_an_evaluation_is_scattered_by_the_profile_and_its_parts_are_given_to_what_adds_them(workflow, protocol):
    target = f"results/short/evaluation/main/750k/{protocol}.json"

    def planned(*scatter):
        lines = dry_run(workflow, "--printshellcmds", *scatter, "--", target).splitlines()
        return [[shlex.split(line) for line in lines if f" restok {verb} " in line and protocol in line]
                for verb in ("statistics", "evaluate")]

    parts, (whole,) = planned("--set-scatter", "evaluate=3")
    assert sorted(words[words.index("--part") + 1] for words in parts) == ["0/3", "1/3", "2/3"]
    made = sorted(words[words.index("--out") + 1] for words in parts)
    assert made == [f"runs/short/parts/evaluation/main/750k/{protocol}/{i}-of-3.safetensors" for i in (1, 2, 3)]
    assert [after for word, after in pairwise(whole) if word == "--samples"] == made
    states = {words[words.index("--state") + 1] for words in (whole, *parts)}
    assert states == {f"runs/short/evaluation/main/750k/{protocol}.safetensors"}
    none, (alone,) = planned()
    assert none == [] and "--samples" not in alone
    for words in (*parts, whole, alone):
        assert ("--guidance" in words, "--unguided" in words) == (protocol == "generation", protocol == "unguided")


@pytest.mark.parametrize("file", ["table2.csv", "fig7.png", "index.html", "tables.md"])
def test_reports_without_a_run_are_those_of_the_chosen_one(workflow, file):
    for chosen, words in (("demo", ()), ("short", ("--config", "run=short"))):
        said = dry_run(workflow, f"reports/{file}", *words)
        assert f"    input: reports/{chosen}/{file}\n    output: reports/{file}\n" in said
    assert "No rule to produce reports/table99.csv" in dry_run(workflow, "reports/table99.csv", fails=True)


def test_another_chosen_run_brings_its_own_report(workflow):
    """Its file is copied, and again when the choice changes."""
    target = "reports/table2.csv"
    for run in ("demo", "short"):
        (workflow / "reports" / run).mkdir(parents=True)
        (workflow / "reports" / run / "table2.csv").write_text(run)
        done = warm.snakemake(workflow, "--cores", "1", "--allowed-rules", "chosen", "--config", f"run={run}", "--", target)
        assert done.returncode == 0 and (workflow / target).read_text() == run, done.stdout + done.stderr


def test_a_machines_profile_keeps_what_it_says(workflow):
    """The default profile is always read, and replaces the same key of any other."""
    profile = workflow / "profiles/cluster/profile.yaml"
    profile.parent.mkdir()
    profile.write_text("resources: [gpu=3]\n")
    done = warm.snakemake(workflow, "--cores", "1", "--profile", "profiles/cluster", "results/demo/layout.npz")
    assert done.returncode == 0 and re.search(r"Provided resources: gpu=\D*3\b", done.stderr), done.stdout + done.stderr
    default = set(read_yaml((workflow / "profiles/default/profile.yaml").read_text()))
    for other in (workflow / "profiles").glob("*/profile.yaml"):
        assert other.parent.name == "default" or not default & set(read_yaml(other.read_text())), other


def test_every_stages_file_is_known_by_its_place():
    for stage in STAGES.values():
        path = Path("results/demo", stage.path.format(
            trial="a.1", label="1M", name="validation", schedule="step", scale=2.0, start=0.5, rank=1))
        assert stage_of(path) == (stage, path)
        if not path.suffix:
            assert stage_of(path / "metrics.json") == (stage, path)
    assert stage_of(Path("results/demo/logs/encode.log")) is None
    assert pattern("codes") == "results/{run}/codes/{trial}/{label}" and pattern("data") == "results/{run}/data"


def test_what_a_missing_file_is_made_by_is_what_makes_it(tmp_path):
    tree = Tree(write_run(tmp_path / "results/run"), run_sheet(run_params(), "fig7"))
    trial = tree.sheet.trials[0]
    assert tree.path("generation", trial, "late") == tmp_path / "results/run/evaluation/main/late/generation.json"
    assert tree.inputs(ITEMS["fig7"]) == [
        tree.path(stage, trial, label) for stage in ("reconstruction", "generation", "unguided")
        for label in ("early", "middle", "late")]


def checkpoints(steps: str, schedule_steps: str = "2000"):
    return load_params(DEMO, [f"tokenizer_training.checkpoints={{{steps}}}",
                              f"tokenizer_training.schedule_steps={schedule_steps}"])


def test_a_checkpoint_depends_on_what_came_before_it_and_not_on_what_follows():
    before, after = checkpoints("a: 10, b: 20"), checkpoints("a: 10, b: 20, c: 30")
    for label in ("a", "b"):
        assert depends_on("tokenizer", before, label) == depends_on("tokenizer", after, label)
    assert depends_on("tokenizer", before, "b") != depends_on("tokenizer", checkpoints("a: 11, b: 20"), "b")
    assert depends_on("tokenizer", before, "a") == depends_on("tokenizer", checkpoints("a: 10, b: 21"), "a")


def test_a_checkpoint_depends_on_where_the_learning_rate_ends():
    before, after = checkpoints("a: 10, b: 20", "null"), checkpoints("a: 10, b: 20, c: 30", "null")
    assert depends_on("tokenizer", before, "a") != depends_on("tokenizer", after, "a")
    assert depends_on("tokenizer", before, "a") == depends_on("tokenizer", checkpoints("a: 10, b: 20", "20"), "a")


@pytest.mark.parametrize(("path", "overrides", "gpus", "memory"), [
    (DEMO, (), 0, 2000), (IMAGENET, (), 1, 40_000), (DEMO, ("evaluation.features=inception",), 1, 8000),
    (DEMO, ("data.source=imagefolder", "data.path=photos"), 0, 2000),
    (DEMO, ("tokenizer.width=512", "tokenizer.encoder_layers=12"), 1, 10_000)])
def test_a_job_asks_by_the_configured_sizes(path, overrides, gpus, memory):
    params = load_params(path, overrides)
    assert demand.gpus(params) == gpus and memory <= demand.memory_mb(params) <= 1.5 * memory


def test_rows_of_a_file_share_a_stage_only_where_all_that_it_depends_on_agrees(tmp_path):
    sheet = tmp_path / "experiments.tsv"
    columns = "id\tbase\toverrides\tfeeds\tparams\ttokenizer\tgenerator"
    rows = ("main\tmain\t\tfig7", "wide\tmain\tgenerator.width=192\ttable10 wide@750k",
            "other\tmain\tcodes.scales=[1.2]\ttable10 x@1M")
    sheet.write_text("\n".join((columns, *rows)) + "\n")
    tree = Tree("results/demo", load_sheet(DEMO, (), sheet))
    main, wide, other = tree.sheet.trials
    assert tree.home("codes", wide, "750k") is main and tree.home("generator", wide, "750k") is wide
    assert tree.home("tokenizer", other, "1M") is main and tree.home("codes", other, "1M") is other


def test_a_second_row_of_the_runs_own_settings_moves_nothing_out_of_the_main_run(tmp_path):
    sheet = tmp_path / "experiments.tsv"
    columns = "id\tbase\toverrides\tfeeds\tparams\ttokenizer\tgenerator"
    rows = "main\tmain\t\tfig7", "again\tmain\t\ttable10 again@1M", "wide\tmain\tgenerator.width=192\ttable6"
    sheet.write_text("\n".join((columns, *rows)) + "\n")
    tree = Tree("results/demo", load_sheet(DEMO, (), sheet))
    assert [tree.beyond_main(ITEMS[name]) for name in ("fig7", "table10", "table6")] == [False, False, True]
