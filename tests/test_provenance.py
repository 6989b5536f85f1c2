"""`restok provenance`: from a report back to the images, on a real chain; and what no longer matches is named, with exit 1."""

import json
import os
import re
import shlex
import shutil
from inspect import signature
from pathlib import Path

import pytest
from spoilt import chain
from spoilt.case import DROP, altered, bytes_of, copied, gone, keys, text

from restok.cli.tracking import ui
from restok.experiments import ITEMS, Tree, load_sheet
from restok.experiments.places import pattern
from restok.mirror.pages import HOST
from restok.mirror.results import places
from restok.reporting.provenance import short_settings
from restok.reporting.sources import UI, Sources

REPORT, PUBLISHED = "reports/run/table1.csv", "params/published.csv"
SKIPPED = "--part", "panel", "sample ", "table table6", "table table7", "table table8", "table table9"
DRAWN = "fig7", "codebook", "fig8"


def at(stage, label="1M", **wildcards):
    """Where the main run has a result."""
    return pattern(stage).format(run="run", trial="main", label=label, **wildcards)


DATA, TOKENIZER, CODES, GENERATOR, RESULT = map(at, ("data", "tokenizer", "codes", "generator", "generation"))
REFERENCE, SEARCH, OLDER = at("reference", name="validation"), at("guidance"), at("tokenizer", "750k")


@pytest.fixture(scope="module")
def sound(tmp_path_factory, command):
    """A chain of two checkpoints, with a table, a few figures, and the page of what is there."""
    def wanted(words):
        verb, name, *_ = words.split()
        return not any(skipped in words for skipped in SKIPPED) and (verb != "figure" or name in DRAWN)

    return chain.made(tmp_path_factory.mktemp("provenance"), command, wanted)


@pytest.fixture
def home(sound, tmp_path, monkeypatch):
    """A copy to spoil, whose files are the chain's own until they are replaced."""
    shutil.copytree(sound, tmp_path / "home", copy_function=os.link)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def faults(command, *words):
    """The messages of a walk that ends with 1, one a fault."""
    result = command("provenance", *words)
    assert result.exit_code == 1 and "Traceback" not in result.stderr, result.stderr
    said = result.stderr.partition("error: ProvenanceError: ")[2].splitlines()
    assert re.fullmatch(r".*: (\d+) faults? on the way to the images", said[0]) and said[0].split()[1] == str(len(said) - 1)
    return said[1:]


def test_a_number_leads_back_to_the_images(home, command):
    result = command("provenance", REPORT)
    assert result.exit_code == 0 and "everything matches: 22 artifacts" in result.stderr, result.stderr
    lines = [line.strip("│├└─ ") for line in result.stdout.splitlines()]
    for part in (f"^{REPORT} [0-9a-f]{{12}}  restok table  ", rf"^{RESULT} \w+  restok evaluate  .*, cpu",
                 rf"^codes {CODES} \w+  restok encode  ", rf"^previous {OLDER} \w+", r"^seed=10086 threads=1 ",
                 rf"^images {DATA} \w+  restok prepare  ", r"^train \w{12}", r"^candidate step 2\.0 0\.25 results/",
                 rf"^train, validation {DATA} \w+  as above", r"^params/published\.csv \w{12}  file"):
        assert any(re.search(part, line) for line in lines), part
    whole = [line for line in lines if f" {DATA} " in line and "as above" not in line]
    assert len(whole) == 1                               # what many are made of is told once


def test_of_artifacts_of_a_kind_the_settings_that_differ_come_first(home, command):
    """The two tokenizers are of two checkpoints."""
    lines = command("provenance", REPORT).stdout.splitlines()
    told = [at for at, text in enumerate(lines) if re.search(" (previous|tokenizer) results/", text) and "above" not in text]
    below = [lines[at + 1].strip("│├└─ ") for at in told]
    assert len(below) == 2 and all(re.match(r"checkpoint=(750k|1M) ", text) for text in below), below
    assert short_settings({"a": 1, "b": {"c": 2}}, 99, {"b.c"}) == "b.c=2 a=1"


def test_for_machines_there_is_all_of_it(home, command):
    result = command("provenance", "--json", "--full", "reports/run/fig7.png")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["matches"] is True and found["faults"] == []
    generator = found["artifacts"][GENERATOR]
    assert generator["verb"] == "restok train-generator" and generator["settings"]["generator"]["width"] > 0
    assert generator["inputs"]["codes"]["path"] == CODES and generator["made"][0]["seconds"] > 0
    assert generator["inputs"]["codes"]["digest"] == found["artifacts"][CODES]["digest"]
    assert set(generator["made"][0]) > {"commit", "changed", "source", "versions", "device", "processor", "started", "finished"}
    assert found["artifacts"][DATA]["inputs"]["train"]["path"] is None



OF_TOKENIZER = [at("reconstruction"), CODES, GENERATOR, RESULT, at("unguided"), *(
    at("candidate", schedule=schedule, scale=scale, start=start)
    for schedule, scale, start in (("constant", 1.0, 0.0), ("step", 2.0, 0.25)))]
SPOILT = {
    "a changed file": (altered(f"{CODES}/codes.npy"), {f"{CODES}/codes.npy": rf"was changed or swapped .*; remove {CODES}"}),
    "a swapped checkpoint": (copied(f"{OLDER}/model.safetensors", f"{TOKENIZER}/model.safetensors"), {
        f"{TOKENIZER}/model.safetensors": rf"was changed or swapped .*; remove {TOKENIZER} and make it with `snakemake"}),
    "a swapped checkpoint with its manifest": (copied(OLDER, TOKENIZER), {
        path: rf"was made of another tokenizer \(\w{{12}}\) than lies at {TOKENIZER} now \(\w{{12}}\); put the other back, or"
        for path in OF_TOKENIZER}),
    "a hand-edited table": (text(REPORT, "0.", "1."), {REPORT: rf"was changed or swapped .*; remove {REPORT} and make"}),
    "a hand-edited number": (text(RESULT, '"recall": ', '"recall": 0.0, "other": '), {
        RESULT: r"was changed since it was written \(it says \w{12}, and is \w{12}\); remove",
        REPORT: rf"was made of another file \(\w{{12}}\) than lies at {RESULT} now"}),
    "results of other settings": (copied(at("generation", "750k"), RESULT), {
        REPORT: rf"was made of another file \(\w{{12}}\) than lies at {RESULT} now"}),
    "prepared images of another length": (bytes_of(f"{DATA}/train/00000.arrow", lambda data: data + b"0"), {
        f"{DATA}/train/00000.arrow": r"has \d+ bytes, not \d+; remove"}),
    "a file that is gone from a folder": (gone(f"{CODES}/labels.npy"), {f"{CODES}/labels.npy": "is missing; remove"}),
    "a manifest of a later version": (keys(f"{TOKENIZER}/manifest.json", {"format": 2}), {
        TOKENIZER: "its manifest is of format 2, which another version of restok wrote; this one reads 1; remove"}),
    "a manifest of an earlier version": (keys(RESULT, {"format": DROP}), {RESULT: "its manifest has no 'format': an earlier"}),
    "a manifest that says more": (keys(f"{DATA}/manifest.json", {"made.0.weather": "fine"}), {
        DATA: r"its manifest is of another version, or was changed: made\.0\.weather"}),
    "a manifest that says less": (keys(f"{CODES}/manifest.json", {"made.0.commit": DROP}), {
        CODES: r"its manifest is of another version, or was changed: has no 'made\.0\.commit'"}),
    "a record that says less": (keys("reports/run/provenance/table1.json", {"bytes": DROP}), {
        REPORT: "its manifest is of another version, or was changed: bytes"}),
    "sums of a reference that were altered": (altered(REFERENCE, 0.9), {REFERENCE: "was changed since it was written"}),
    "another choice of guidance": (keys(SEARCH, {"chosen.scale": 7.5}), {
        SEARCH: "was changed since it was written", RESULT: rf"was made of another guidance .* than lies at {SEARCH} now"}),
    "other numbers of the paper": (text(PUBLISHED, "1.", "2."), {
        REPORT: rf"was made of another file \(\w+\) than lies at {PUBLISHED} now"})}


@pytest.mark.parametrize("what", SPOILT)
def test_what_no_longer_matches_is_named_with_a_remedy(what, home, command):
    spoil, named = SPOILT[what]
    spoil(home)
    said = dict(fault.split(": ", 1) for fault in faults(command, REPORT))
    assert said.keys() == named.keys()
    for path, what in named.items():
        assert re.match(what, said[path]), said[path]


def test_packed_images_of_the_same_length_are_looked_into_only_where_that_is_asked(home, command):
    altered(f"{DATA}/train/00000.arrow")(home)
    assert command("provenance", REPORT).exit_code == 0
    (fault,) = faults(command, "--full", REPORT)
    assert fault.startswith(f"{DATA}/train/00000.arrow: was changed or swapped")


def test_faults_are_in_the_json_too(home, command):
    text(REPORT, "0.", "1.")(home)
    result = command("provenance", "--json", REPORT)
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["matches"] is False
    assert [fault["path"] for fault in found["faults"]] == [REPORT] and "snakemake" in found["faults"][0]["remedy"]


def test_what_is_not_here_is_said_and_is_no_fault(home, command):
    for path in (DATA, CODES, OLDER):
        shutil.rmtree(path)
    result = command("provenance", REPORT)
    assert result.exit_code == 0 and re.search(r"everything matches: 19 artifacts; not here, and not checked: ", result.stderr)
    assert all(path in result.stderr.partition("not checked: ")[2] for path in (DATA, CODES, OLDER))
    assert re.search(rf"data {DATA} \w{{12}}  not here", result.stdout)
    missing = command("provenance", "reports/run/table2.csv")
    assert missing.exit_code == 1 and "reports/run/table2.csv: not here; name a file" in missing.stderr


def test_a_copy_for_the_chosen_run_is_known_by_its_bytes(home, command):
    copy = Path("reports/table1.csv")
    shutil.copyfile(REPORT, copy)
    result = command("provenance", copy)
    assert result.exit_code == 0 and result.stdout.startswith(REPORT)
    copy.write_text(copy.read_text().replace("0.", "1.", 1))
    (fault,) = faults(command, copy)
    assert fault.startswith(f"{copy}: is not what any run has ({REPORT}): it was changed") and "snakemake" in fault


def test_a_file_of_somebody_else_is_named(home, command):
    Path("mine.csv").write_text("a,b")
    (fault,) = faults(command, "mine.csv")
    assert fault.startswith("mine.csv: has no manifest: restok did not write it")
    (fault,) = faults(command, PUBLISHED)
    assert fault.startswith(f"{PUBLISHED}: has no manifest")


def test_it_may_be_asked_from_anywhere_and_of_what_was_moved(home, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("provenance", f"home/{REPORT}").exit_code == 0
    home.rename(tmp_path / "elsewhere")
    result = command("provenance", tmp_path / "elsewhere" / RESULT)
    assert result.exit_code == 0 and "not here" not in result.stderr and f"elsewhere/{DATA}" in result.stdout


@pytest.mark.parametrize("file", [f"{TOKENIZER}/metrics.json", f"{TOKENIZER}/manifest.json", f"{DATA}", REFERENCE, SEARCH,
                                  at("layout"), "reports/run/fig8.pdf", "reports/run/provenance/fig7.json"])
def test_every_kind_of_artifact_is_walked_from(file, home, command):
    result = command("provenance", file)
    assert result.exit_code == 0 and "everything matches" in result.stderr, result.stderr


@pytest.mark.parametrize("folder", ["reports/run", "results/run", "results/run/evaluation"])
def test_of_a_folder_with_many_artifacts_one_is_asked_for(folder, home, command):
    result = command("provenance", folder)
    assert result.exit_code == 1 and "remove" not in result.stderr
    assert f"{folder}: holds no manifest.json; name one of the files or folders in it" in result.stderr


def test_the_page_tells_the_same_tree_in_short(home):
    behind = Sources(Tree("results/run", load_sheet(Path("params/run.yaml"))))
    source = f"{at('reconstruction')}; {RESULT}"
    assert behind.anchor(source, ITEMS["fig7"]) == behind.anchor(source, ITEMS["table1"]) == "from-1"
    assert behind.anchor("paper, Table 1") is None
    (entry,) = behind.entries()
    lines = {line["path"]: line for line in entry["lines"]}
    assert (entry["id"], entry["title"]) == ("from-1", "Row main, seed 10086, checkpoint 1M")
    assert [item.name for item in entry["shown"]] == ["fig7", "table1"] and len(lines) == len(entry["lines"]) == 12
    assert lines[DATA]["verb"] == "restok prepare" and lines[DATA]["depth"] > lines[RESULT]["depth"] == 0
    assert entry["runs"].keys() == {f"{stage}/main/1M" for stage in ("evaluation", "tokenizer", "codes", "generator")} | {
        "guidance/main/1M.json", "tokenizer/main/750k"} and entry["runs"]["codes/main/1M"] == f"{UI}/{CODES}"
    assert lines[TOKENIZER]["cost"].endswith(" s, cpu") and len(lines[TOKENIZER]["digest"]) == 12


def test_a_result_that_mlflow_mirrors_has_an_address_there_and_no_other(home):
    tree = Tree("results/run", load_sheet(Path("params/run.yaml")))
    behind, mirrored = Sources(tree), {place.path for place in places(tree) if place.path.exists()}
    assert {Path(path) for path in (TOKENIZER, CODES, GENERATOR, SEARCH, RESULT)} <= mirrored
    assert {path: behind.run(path) for path in mirrored} == {
        path: f"{UI}/{path.parent if 'evaluation' in path.parts else path}" for path in mirrored}
    assert behind.run(home / RESULT) == behind.run(Path(at("reconstruction"))) == f"{UI}/results/run/evaluation/main/1M"
    assert [behind.run(Path(path)) for path in (DATA, REFERENCE, f"elsewhere/{RESULT}")] == [None] * 3
    Path(RESULT).unlink()                                # of a tokenizer alone
    assert behind.run(Path(at("reconstruction"))) is None
    assert UI == f"http://{HOST}:{signature(ui).parameters['port'].default}/restok"


def test_made_again_nothing_that_was_made_of_it_changes(home, command):
    """Another time and another place of the making; the results behind it stand."""
    def digests():
        return {path: about["digest"] for path, about in json.loads(
            command("provenance", "--json", REPORT).stdout)["artifacts"].items() if "digest" in about}

    before = digests()
    for path in (SEARCH, RESULT, REPORT):
        Path(path).unlink()
    for words in chain.commands():
        if words.endswith((f"--out {SEARCH}", f"--out {RESULT}", f"--out {REPORT}")):
            assert command(*shlex.split(words)).exit_code == 0
    assert digests() == before and command("provenance", REPORT).exit_code == 0
