"""The README and docs/: links lead somewhere; commands, options, settings, functions and rows that they show exist."""

import re
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest
import typer
from conftest import ROOT

import restok
from restok.cli import app
from restok.config.load import load_params
from restok.experiments import load_sheet

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code(page: Path) -> list[str]:
    """A page's blocks of code, fenced or indented, and its words between backticks; a line that goes on in the next as one."""
    pieces = []
    for number, part in enumerate(re.split(r"^```.*$", page.read_text(), flags=re.MULTILINE)):
        pieces += [part] if number % 2 else re.findall(r"(?:^ {4}.*\n)+|`[^`\n]+`", part, re.MULTILINE)
    return [re.sub(r"\\\n *", "", piece.strip("`")) for piece in pieces]


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The verbs of `restok` in a page's code, each with its options."""
    calls = [call for piece in code(page) for call in re.findall(r"\brestok +([a-z][a-z-]*)([^\n#|;]*)", piece)]
    return [(verb, re.findall(r"(?<!\S)--[a-z-]+", rest)) for verb, rest in calls]


def anchors(page: Path) -> set[str]:
    """A page's headings, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@every_page
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


@every_page
def test_verbs_and_their_options_exist(page):
    for verb, options in commands(page):
        assert verb in COMMANDS, verb
        known = {name for parameter in COMMANDS[verb].params for name in parameter.opts} | {"--help"}
        assert set(options) <= known, (verb, options)


@every_page
def test_make_knows_the_targets(page):
    named = {target for piece in code(page) for target in re.findall(r"\bmake +([a-z]+)", piece)}
    assert named - TARGETS == set()


@every_page
def test_settings_exist(page):
    params = load_params(ROOT / "params/demo.yaml").model_dump()
    for name in code(page):
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name) and name.partition(".")[0] in params and not name.endswith(".tsv"):
            *sections, key = name.split(".")
            assert key in reduce(lambda section, key: section[key], sections, params), name


@every_page
def test_functions_exist(page):
    for name in {name for piece in code(page) for name in re.findall(r"\brestok\.(\w+(?:\.\w+)*)\(", piece)}:
        assert callable(reduce(getattr, name.split("."), restok)), name


@every_page
def test_rows_of_the_sample_sheet_are_read(page, tmp_path):
    rows = [line.strip() for piece in code(page) for line in piece.splitlines() if "\t" in line]
    sheet = tmp_path / "experiments.tsv"
    sheet.write_text("\n".join([(ROOT / "params/experiments.tsv").read_text(), *rows]))
    trials = [trial.id for name in ("demo", "imagenet256")
              for trial in load_sheet(ROOT / f"params/{name}.yaml", sheet=sheet).trials]
    assert {row.partition("\t")[0] for row in rows} <= set(trials)


def test_the_pages_are_really_read():
    verbs = {verb for page in PAGES for verb, _ in commands(page)}
    assert set(COMMANDS) - verbs == set()                           # each is described somewhere
    assert {"demo", "test", "lock"} <= {word for page in PAGES for piece in code(page) for word in piece.split()}
    assert any("\t" in piece for piece in code(ROOT / "README.md"))


def after(arrows: set[tuple[str, str]], rule: str) -> set[str]:
    """All that lies behind a rule, along the arrows."""
    found, new = set(), {rule}
    while new := {end for start, end in arrows if start in new} - found:
        found |= new
    return found


def test_the_graph_of_rules_is_that_of_the_workflow(workflow):
    """But for arrows that follow from others."""
    (workflow / "slurm").symlink_to("workflow/profiles/slurm")
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--executor", "local", "--cores", "1", "--rulegraph"]
    command += ["mermaid-js", "--config", "run=imagenet256", "--", "reports/index.html"]
    drawn = subprocess.run(command, cwd=workflow, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", drawn))
    arrows = {(names[start], names[end]) for start, end in re.findall(r"(id\d+) --> (id\d+)", drawn)}
    once = {(start, end) for start, end in arrows if start != end}
    needed = {(start, end) for start, end in once if end not in after(once - {(start, end)}, start)}
    said = re.search(r"```mermaid\nflowchart LR\n(.*?)```", (ROOT / "docs/cluster.md").read_text(), re.DOTALL)[1]
    assert {(start, end) for line in said.splitlines() for start, end in [line.strip().split(" --> ")]} == needed
