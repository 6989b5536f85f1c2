"""The README and docs/: links lead somewhere; commands, options, settings, functions and rows that they show exist; each
command is run by a test, or says what it needs."""

import re
from functools import reduce
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer
import warm
from conftest import ROOT
from pages import ELSEWHERE, MARKS, PAGES, blocks, name_of
from pages import commands as typed

import restok
from restok.cli import app
from restok.config.load import load_params
from restok.experiments import load_sheet

COMMANDS = typer.main.get_command(app).commands
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


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
def test_links_to_other_places_are_whole_addresses(page):
    for link in re.findall(r"\]\(([^)\s]*://[^)]*)\)", page.read_text()):
        address = urlsplit(link)
        assert address.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", address.netloc) and " " not in link, link


@every_page
def test_pages_of_the_site_link_to_no_file_outside_it(page):
    assert page.name == "README.md" or "](../" not in page.read_text()


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


# Commands: check_docs.py types what is neither marked nor run elsewhere.

@every_page
def test_marks_are_known(page):
    assert {command.needs for command in typed(page)} <= {None, *MARKS}


@every_page
def test_commands_stand_in_blocks_of_their_own_kind(page):
    """So that none is overlooked: indented blocks, and fences of no kind, hold other text."""
    text = page.read_text()
    assert not re.findall(r"^```\n(?=\S)", re.sub(r"^```\w+\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    for block in re.findall(r"(?:^ {4}.*\n)+", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE):
        assert not re.match(r" {4}(restok|snakemake|make|dvc|git|python|srun|torchrun) ", block), block


def test_what_is_run_elsewhere_is_named_there_and_on_a_page():
    listed = [command for page in PAGES for command in typed(page)]
    for what, where in ELSEWHERE.items():
        source = (ROOT / where).read_text()
        if "#" in what:
            section = what.partition("#")[2]
            assert f'"{section}"' in source, what
            assert any(f"{command.page}#{command.section}" == what for command in listed), what
        else:
            assert what in source and any(command.text == what for command in listed), what
    assert not [command for command in listed if command.elsewhere and command.needs and command.text in ELSEWHERE]


def recipe(target: str) -> list[str]:
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split("\n\t")


def test_make_short_does_what_make_demo_and_make_ablations_do():
    """Of another run: so the gate, which calls `make short`, tries `make demo` and `make ablations`."""
    short, demo, ablations = ([line.strip() for line in recipe(target) if line.strip().startswith("$(RUN) snakemake")]
                              for target in ("short", "demo", "ablations"))
    short = [line.replace(" --config run=short", "").replace("short", "demo") for line in short]
    assert short == ablations and short[1:] == demo


def test_blocks_are_found_with_their_sections():
    text = "# A\n\n```sh\nmake test    # x\n```\n\n## B\n```sh\n# needs a GPU\nrestok \\\n  bench\n```\n```yaml\na: 1\n```\n"
    assert blocks(text) == [("A", "make test    # x\n"), ("B", "# needs a GPU\nrestok \\\n  bench\n")]


def after(arrows: set[tuple[str, str]], rule: str) -> set[str]:
    """All that lies behind a rule, along the arrows."""
    found, new = set(), {rule}
    while new := {end for start, end in arrows if start in new} - found:
        found |= new
    return found


def test_the_graph_of_rules_is_that_of_the_workflow(workflow):
    """But for arrows that follow from others."""
    (workflow / "slurm").symlink_to("workflow/profiles/slurm")
    words = "--profile slurm --executor local --cores 1 --rulegraph mermaid-js --config run=imagenet256 -- reports/index.html"
    done = warm.snakemake(workflow, *words.split())
    assert done.returncode == 0, done.stderr
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", done.stdout))
    arrows = {(names[start], names[end]) for start, end in re.findall(r"(id\d+) --> (id\d+)", done.stdout)}
    once = {(start, end) for start, end in arrows if start != end}
    needed = {(start, end) for start, end in once if end not in after(once - {(start, end)}, start)}
    said = re.search(r"```mermaid\nflowchart LR\n(.*?)```", (ROOT / "docs/cluster.md").read_text(), re.DOTALL)[1]
    assert {(start, end) for line in said.splitlines() for start, end in [line.strip().split(" --> ")]} == needed
