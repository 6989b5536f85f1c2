"""A dry run says how many GPU-hours its jobs take, and where that number comes from."""

import re
from types import SimpleNamespace

import pytest
from conftest import ROOT, dry_run

from restok.config.load import load_params
from restok.experiments import Tree, cost, load_sheet, work
from restok.experiments.estimate import BelowCounts, Job, table
from restok.files import write_json

TABLE2 = "reports/imagenet256/table2.csv"


PATH = ROOT / "params/imagenet256.yaml"


@pytest.fixture(scope="module")
def results():
    """Of imagenet256 and all its rows: the hours of each, as counted."""
    sheet, params = load_sheet(PATH), load_params(PATH)
    made = work.results(Tree("results/imagenet256", sheet), params, sheet.trials)
    return {place.as_posix(): cost.hours(work.task(*result, work.IMAGENET)) for place, result in made.items()}


def hours(said):
    """The GPU-hours of each rule, as said below the first count of jobs."""
    _, _, below = said.partition("GPU-hours of these jobs:\n")
    rows = re.findall(r"^(\w+) +\d+ *(\S.*)?$", below.partition("\n\n")[0], re.MULTILINE)
    return {rule: number for rule, number in rows}


def shown(said):
    return {rule: float(number.replace(",", "")) for rule, number in hours(said).items() if number}


def examined(workflow, found, **changed):
    (workflow / "results/imagenet256").mkdir(parents=True, exist_ok=True)
    write_json(workflow / "results/imagenet256/doctor.json",
               {"device": "NVIDIA Z9", "settings": work.digest(load_params(PATH), load_sheet(PATH)), "estimate": "GPU",
                "results": found} | changed)


def of(results, part):
    """The hours of the rows of Table 2, of one stage."""
    rows = r"baseline|latent_hierarchy|scales_\d|image_residual|latent_residual|restok"
    return sum(number for path, number in results.items() if re.search(rf"/{part}/({rows})\.10086/", path))


def test_hours_are_counted_before_the_doctor_has_looked_and_parts_add_up(workflow, results):
    said = dry_run(workflow, TABLE2)
    found = shown(said)
    assert found["train_tokenizer"] == pytest.approx(of(results, "tokenizer"), rel=0.01)
    assert found["encode"] == pytest.approx(of(results, "codes"), rel=0.01)
    assert found["total"] == pytest.approx(of(results, r"\w+"), rel=0.01)
    assert {rule for rule, number in hours(said).items() if not number} == {"doctor", "prepare", "table"}
    assert said.count("imagenet256: counted, not measured: 100 TFLOP/s a GPU, 1,281,167 training images.") == 2
    assert "restok doctor --params params/imagenet256.yaml --out results/imagenet256/doctor.json" in said
    parts = dry_run(workflow, TABLE2, "--set-scatter", "encode=3", "evaluate=2")
    shared = shown(parts)
    assert shared["encode_part"] == found["encode"] and shared["total"] == found["total"] and "encode" not in shared
    assert shared["evaluate_generation_part"] == found["evaluate_generation"]
    assert hours(parts)["encode"] == hours(parts)["evaluate_generation"] == ""
    assert "GPU-hours" not in dry_run(workflow, TABLE2, "--quiet", "progress")


def test_hours_are_the_doctors_where_it_looked(workflow, results):
    counted = shown(dry_run(workflow, TABLE2))
    examined(workflow, {path: 2 * number for path, number in results.items()})
    said = dry_run(workflow, TABLE2)
    assert shown(said)["train_tokenizer"] == pytest.approx(2 * counted["train_tokenizer"], rel=0.01)
    assert "imagenet256: of results/imagenet256/doctor.json, measured on NVIDIA Z9" in said and "counted" not in said
    examined(workflow, results, estimate="counted")                      # on a login node
    assert "of results/imagenet256/doctor.json, counted, not measured" in dry_run(workflow, TABLE2)
    for worthless in ({"estimate": "CPU"}, {"results": {}}, {"results": "none"}, {"settings": "before"}):
        examined(workflow, results, **worthless)
        assert "imagenet256: counted, not measured" in dry_run(workflow, TABLE2)
    examined(workflow, {path: 2 * number for path, number in results.items()})
    settings = workflow / "params/imagenet256.yaml"
    settings.write_text(settings.read_text().replace("steps: 1500000", "steps: 1500001", 1))
    changed = dry_run(workflow, TABLE2)
    assert "imagenet256: counted, not measured" in changed and shown(changed)["train_tokenizer"] == counted["train_tokenizer"]


def test_what_the_doctor_could_not_measure_is_not_taken_for_nothing(workflow, results):
    examined(workflow, {path: None if path.endswith("generation.json") else number for path, number in results.items()})
    said = hours(dry_run(workflow, TABLE2))
    assert said["evaluate_generation"] == "?" and re.fullmatch(r"3,\d{3} \+ \?", said["total"])


def test_a_run_without_a_gpu_says_nothing_of_gpus(workflow):
    assert "GPU-hours" not in dry_run(workflow, "all", "ablations")
    assert table([Job("table"), Job("page")], str) == ""


def test_what_fails_is_said_and_stops_nothing():
    said, record = [], SimpleNamespace(event="run_info")

    class Broken:
        dryrun, output_settings, rules = True, SimpleNamespace(quiet=None), ()

    BelowCounts(Broken(), SimpleNamespace(info=said.append), str, str).emit(record)
    assert said == ["GPU-hours: not estimated (AttributeError: 'Broken' object has no attribute 'dag')\n"]


def test_a_real_run_says_nothing(workflow):
    said, real = [], SimpleNamespace(dryrun=False)
    BelowCounts(real, SimpleNamespace(info=said.append), str, str).emit(SimpleNamespace(event="run_info"))
    assert said == []
