"""Captions say what numbers were measured on."""

import pytest
from reporting_fixtures import experiments, inputs, numbers, write_experiments

from restok.experiments import ITEMS
from restok.reporting.captions import measured_on


def said(results, item, sheet=None, **changes) -> str:
    return measured_on(inputs(results, sheet or experiments(), **changes), ITEMS[item])


def test_a_table_names_images_references_features_checkpoints_and_seeds(results):
    originals = '"originals": {"name": "digits validation", "digest": "0123456789abcdef"}'
    for path in results.rglob("reconstruction.json"):
        path.write_text(path.read_text().replace('"originals": null', originals))
    assert said(results, "table2") == (
        "Measured on digits at 16 x 16 pixels: rFD-digits of 60 reconstructions of digits validation (0123456789ab), against "
        "training split (cd); FD-digits of 80 class-conditional samples against training split (cd). Features: digits "
        "classifier (rFD-digits, FD-digits, IS-digits). Checkpoint 150k; seeds 10086, 10087.")
    assert said(results, "fig7").endswith("Checkpoints 250k, 500k, 750k, 1M; seed 10086.")
    assert said(results, "table1").endswith("1M, of each row that of the lowest FD-digits; seed 10086.")


def test_images_that_are_held_against_themselves_are_named_once(results):
    originals = '"originals": {"name": "training split", "digest": "cd"}'
    for path in results.rglob("reconstruction.json"):
        path.write_text(path.read_text().replace('"originals": null', originals))
    text = said(results, "table2")
    assert "60 reconstructions of training split (cd), against these images themselves; FD-digits of 80" in text


def test_other_references_of_samples_are_told_apart(tmp_path):
    sheet = experiments(seeds=1)
    results = write_experiments(tmp_path / "results" / "demo", sheet, numbers)
    for path in results.rglob("generation.json"):
        path.write_text(path.read_text().replace("training split", "published").replace('"cd"', '"0123456789abcdef"'))
    text = said(results, "table3", sheet)
    assert "60 reconstructions of images that the results do not name, against training split (cd); " in text
    assert "80 class-conditional samples against published (0123456789ab). " in text and text.endswith("seed 10086.")


@pytest.mark.parametrize(("item", "start", "end"), [
    ("fig5", "Measured on digits at 16 x 16 pixels. ", "Checkpoint 750k, of the lowest generation FD-digits; seed 10086."),
    ("fig6", "Drawn by a model of digits at 16 x 16 pixels, with guidance as searched: step, at most 2 from 0.25 on. ",
     "Checkpoint 750k, of the lowest generation FD-digits; seed 10086."),
    ("codebook", "Measured on digits at 16 x 16 pixels: 60 reconstructions of ", "seed 10086."),
    ("table6", "Measured on digits at 16 x 16 pixels: FD-digits of 20 class-conditional samples, drawn from another seed than ",
     "Checkpoints 250k, 500k, 750k, 1M; seed 10086."),
    ("table7", "Nothing is measured: from the settings of params/demo.yaml.", ""),
    ("fig8", "Nothing is measured: from the model's own functions, with params/demo.yaml.", "")])
def test_figures_and_settings_say_it_too(item, start, end, results):
    text = said(results, item)
    assert text.startswith(start) and text.endswith(end)


def test_every_table_and_figure_has_one(results):
    assert all(said(results, item).endswith(".") for item in ITEMS)
