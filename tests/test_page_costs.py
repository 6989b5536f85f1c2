"""What a run cost, from its manifests alone: sums by step, and nothing that is not known."""

import json

import pytest

from restok.experiments.places import STAGES
from restok.files.making import made
from restok.reporting.costs import SAID, Amount, costs, step

HERE = made()


def making(seconds=10.0, device="cpu", processes=1, memory=1.5, gpu_memory=None, unknown=0):
    return HERE | {"seconds": seconds, "device": device, "processes": processes, "memory_gb": memory,
                   "gpu_memory_gb": gpu_memory, "unknown": unknown, "calls": 1}


def shown(*results):
    """The cells of a step, as a reader sees them: CPU, GPU, longest, memory, GPU memory."""
    return [text for text, _ in step("", "", results).cells]


GPUS = making(3600.0, "H100", 8, 20.0, 60.0)


@pytest.mark.parametrize(("results", "cells"), [
    ([[making()], [making(50.0, memory=0.5)]], ["1 min", "–", "50 s", "1.50 GB", "–"]),
    ([[GPUS], [making()]], ["10 s", "8 h", "1 h", "20.00 GB", "60.00 GB"]),                     # processes count each
    ([[GPUS, making(7200.0, "A100", 1, 2.0, 30.0)]], ["–", "10 h", "3 h", "20.00 GB", "60.00 GB"]),     # parts of one result
    ([[making()], None], ["at least 10 s", "unknown", "at least 10 s", "at least 1.50 GB", "unknown"]),
    ([None], ["unknown"] * 5),
    ([[making(None)]], ["unknown", "–", "unknown", "1.50 GB", "–"]),                            # made outside of a verb
    ([[making(unknown=2)]], ["at least 10 s", "–", "at least 10 s", "1.50 GB", "–"]),           # calls that were killed
    ([[making(memory=None)], [making(memory=3.0)]], ["20 s", "–", "10 s", "at least 3.00 GB", "–"]),
    ([[GPUS | {"gpu_memory_gb": None}]], ["–", "8 h", "1 h", "20.00 GB", "unknown"]),
    ([[{key: value for key, value in making().items() if not key.endswith("memory_gb")}]],
     ["10 s", "–", "10 s", "unknown", "–"])])                                                   # of an earlier manifest
def test_what_is_known_is_summed_and_what_is_not_is_said(results, cells):
    assert shown(*results) == cells


def test_a_step_says_how_many_results_it_made_and_where():
    found = step("training", "restok train-tokenizer", [[GPUS, making()], None])
    assert (found.results, found.unknown, found.devices) == (2, 1, "8 x H100, cpu")
    assert found.gpu == Amount(8 * 3600.0, least=True)
    assert [value for _, value in found.cells] == [10.0, 28800.0, 3610.0, 20.0, 60.0]           # what a table is sorted by


def test_steps_are_in_the_order_of_the_chain_and_each_has_a_name(tmp_path):
    assert SAID.keys() == STAGES.keys()
    places = {name: tmp_path / f"{name}.json" for name in ("generation", "guidance")}
    places["guidance"].write_text(json.dumps({
        "format": 1, "kind": "guidance", "settings": {}, "inputs": {}, "paths": {}, "digest": "", "made": [making()]}))
    (tmp_path / "other.json").write_text("{}")
    found = costs({places["generation"]: "generation", tmp_path / "other.json": "generation", places["guidance"]: "guidance"})
    assert [(each.verb, each.results, each.unknown) for each in found] == [
        ("restok search-guidance", 1, 0), ("restok evaluate", 2, 2), ("", 3, 2)]
    assert found[0].cpu == Amount(10.0) and found[1].cpu == Amount(None, True) and found[2].cpu == Amount(10.0, True)
