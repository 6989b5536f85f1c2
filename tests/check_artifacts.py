"""DVC with the workflow, for real: what `make short` left, its rest made by `dvc repro`, pushed, pulled into other clones, and
made known to Snakemake there, by the commands of docs/artifacts.md; and what breaks on the way. Many starts of both tools, so
minutes: `make artifacts`."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import left
import pytest
from conftest import ROOT, dry_run
from filelock import FileLock
from pages import commands

BIN = Path(sys.executable).parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "SNAKEMAKE_"))} | {
    "PATH": f"{os.environ.get('FIRST', '')}{BIN}:{os.environ['PATH']}", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
COLD = ENVIRONMENT | {"PATH": f"{BIN}:{os.environ['PATH'].removeprefix(os.environ.get('FIRST', ''))}"}     # dies as one group
PHASES = "rows", "data", "tokenizers", "codes", "generators", "evaluation", "reports"
MODEL = "results/short/tokenizer/main/1M"
MORE = "samples_per_class: 10\n", "samples_per_class: 11\n"       # of the evaluation and of the search


def say(folder: Path, command: str, fails: bool = False) -> str:
    done = subprocess.run(command, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, f"{command}\n{said}"
    assert "Traceback" not in said, said
    return said


def page(section: str) -> list[str]:
    """The commands of a section of the page, but for those of a cluster, of this run."""
    found = [command for command in commands(ROOT / "docs/artifacts.md") if command.section == section and not command.needs]
    return [command.text.replace("demo", "short") for command in found]


def edit(folder: Path, old: str, new: str, file: str = "params/short.yaml") -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


def jobs(said: str) -> dict[str, int]:
    """Snakemake's count of each rule's jobs, over all its calls; those of targets without a file are left out."""
    found: dict[str, int] = {}
    for count in re.findall(r"^Job stats:\njob +count\n[- ]+\n(.*?)^total", said, re.MULTILINE | re.DOTALL):
        for rule, number in re.findall(r"^(\w+) +(\d+)$", count, re.MULTILINE):
            if rule not in PHASES:
                found[rule] = found.get(rule, 0) + int(number)
    return found


def plan(folder: Path) -> dict[str, int]:
    said = dry_run(folder, "reports", *PHASES[1:-1])
    return {rule: number // 2 for rule, number in jobs(said).items()}          # said twice


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A clone with what `making` made, and the folders beside it: one for each process that tests."""
    base = tmp_path_factory.getbasetemp()
    first = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "first"
    with FileLock(f"{first}.lock"):
        if not first.exists():
            making(tmp_path_factory.mktemp("unfinished")).rename(first)
    folder = tmp_path_factory.mktemp("artifacts")
    subprocess.run(["cp", "-a", f"{first}/.", folder], check=True)
    return folder / "made"


def making(folder: Path) -> Path:
    """A clone in which `dvc repro` made the rest of the short demo, from its codes on, pushed to the folder beside it."""
    folder = left.tracked(folder / "made")
    left.made(folder, *(f"results/short/{name}" for name in ("data", "classifier", "reference", "tokenizer/main", "logs",
                                                             "benchmarks")))
    edit(folder, "run: demo", "run: short", "run.yaml")
    say(folder, "git init --quiet && git add --all && git commit --quiet --message start")
    say(folder, "git init --quiet --bare ../others && git remote add origin ../others && git push --quiet -u origin HEAD")
    repro, commit, push, share, *_ = page("Making and keeping")
    said = say(folder, repro)
    assert [phase for phase in PHASES if f"Running stage '{phase}@short'" in said] == list(PHASES)
    for line in (commit, push, share):
        say(folder, line)
    return folder.parent


def clone(made: Path, name: str, *settings: str) -> Path:
    folder = made.parent / name
    say(made, f"git clone --quiet . {folder}")
    for setting in settings:
        say(folder, f"dvc config --local {setting}")
    return folder


@pytest.fixture(scope="module")
def pulled(made):
    """Another clone, with all of it."""
    folder = clone(made, "pulled")
    *lines, plan = page("Elsewhere")[:4]
    for line in lines:
        say(folder, line)
    assert "Nothing to be done" in say(folder, plan)
    return folder


@pytest.fixture
def at_first(pulled):
    """That clone, put back afterwards."""
    yield pulled
    say(pulled, "git checkout --quiet . && dvc checkout --force --quiet && restok sync")


def test_the_demo_stands_and_nothing_is_left_to_do(made):
    assert (made / "reports/short/index.html").is_file() and not say(made, "git status --short")
    before = len(list((made / ".snakemake/log").iterdir()))
    said = say(made, "dvc repro")
    assert said.count("didn't change, skipping") == len(PHASES) and len(list((made / ".snakemake/log").iterdir())) == before
    assert "up to date" in say(made, "dvc status") and not plan(made)
    assert {path.name for path in (made / "results/short").glob("[!.]*")} == {
        "data", "classifier", "reference", "tokenizer", "codes", "generator", "guidance", "evaluation", "panel", "samples",
        "layout.npz", "rows.json", "logs", "benchmarks"}


@pytest.mark.parametrize("link", ["reflink,copy", "hardlink", "symlink"])
def test_what_is_pulled_is_not_made_again_and_later_changes_are_noticed(made, link):
    folder = clone(made, link.replace(",", "_"), f"cache.type {link}")
    say(folder, "dvc pull")
    assert plan(folder) or link != "reflink,copy"                # before: copies would be made again
    said = say(folder, "restok sync")
    assert "tokenizers: 2 of 2 results" in said and ("were links" in said) == (link != "reflink,copy")
    assert not plan(folder) and "up to date" in say(folder, "dvc status")
    assert os.path.islink(folder / f"{MODEL}/model.safetensors") == (link == "symlink")
    say(folder, f"restok sample --tokenizer {MODEL} --generator results/short/generator/main/1M --schedule constant --scale 1 "
                "--class 3 --out three.png")
    edit(folder, *MORE)
    edit(made, *MORE)
    try:
        assert plan(folder) == plan(made) != {}
        if link == "reflink,copy":
            return
        said = say(folder, "dvc repro", fails=True)
        assert f"cache.type: with {link}, `dvc repro` gives all outputs of a stage new times" in said
        for line in page("Elsewhere")[7:]:
            say(folder, line.replace("dvc commit", "dvc commit --force"))           # which asks otherwise
        assert not plan(folder) and "up to date" in say(folder, "dvc status") and '"n": 110' in (
            folder / "results/short/evaluation/main/1M/generation.json").read_text()
    finally:
        say(made, "git checkout --quiet .")


def test_a_changed_parameter_makes_both_tools_do_the_same(at_first):
    edit(at_first, *MORE)
    edit(at_first, "\n  steps: 80\n", "\n  steps: 20\n")
    planned = plan(at_first)
    assert {rule: planned.get(rule, 0) for rule in ("encode", "train_generator", "evaluate_generation", "metrics")} == {
        "encode": 0, "train_generator": 2, "evaluate_generation": 2, "metrics": 1}
    assert jobs(say(at_first, "dvc repro")) == planned
    parameters, metrics, plots, *back = page("Making and keeping")[4:]
    assert re.search(r"evaluation\.samples_per_class +10 +11", say(at_first, parameters))
    assert re.search(r"main\.1M\.gFD-digits\.value +\S+ +\S+ +-?\d", say(at_first, metrics))
    assert "index.html" in say(at_first, plots)
    say(at_first, "git commit --quiet --all --message changed")
    for line in back:
        say(at_first, line.replace("COMMIT", "HEAD~1"))
    assert not plan(at_first)
    say(at_first, "git checkout --quiet - && git reset --quiet --hard HEAD~1")


def test_a_row_that_goes_and_comes_back_is_noticed_where_the_list_of_rows_was_pulled(at_first):
    for old, new in (("fig5; fig6; fig7", "fig5; fig7"), ("fig5; fig7", "fig5; fig6; fig7")):
        edit(at_first, old, new, "params/experiments.tsv")
        planned = plan(at_first)
        assert planned and jobs(say(at_first, "dvc repro")) == planned
        assert not plan(at_first) and "up to date" in say(at_first, "dvc status")
        assert (at_first / "reports/short/fig6.png").exists() == ("fig6" in new)


def test_a_part_of_it_is_pulled(made):
    folder = clone(made, "reports_only")
    reports, model, sync = page("Elsewhere")[4:7]
    say(folder, reports)
    said = say(folder, sync)
    assert "tokenizers: 0 of 2 results, the others are not here" in said
    assert "Nothing to be done" in dry_run(folder)
    assert not (folder / "results/short/codes").exists()
    say(folder, f"{model} && {sync}")
    assert [path.name for path in (folder / "results/short/tokenizer/main").iterdir()] == ["1M"]
    assert "Nothing to be done" in dry_run(folder, MODEL)
    (folder / MODEL / "config.json").unlink()
    assert f"{MODEL}: some of its files are not here; `dvc pull {MODEL}`" in say(folder, "restok sync", fails=True)
    say(folder, f"dvc pull {MODEL}")
    say(folder, f"restok reconstruct {ROOT / 'docs/images/first_tokens.png'} --tokenizer {MODEL} --out back.png")


@pytest.mark.parametrize(("spoil", "message"), [
    ("echo 1 >> results/short/guidance/main/1M.json", r"results/short/guidance/main/1M\.json: is not the file that dvc\.lock"),
    (f"cp results/short/tokenizer/main/750k/model.safetensors {MODEL}", rf"{MODEL}/model\.safetensors: is not the file"),
    ("echo 1 > results/short/codes/more", r"results/short/codes/more: is not in dvc\.lock; move it elsewhere"),
    ("sed -i 's/^seed: .*/seed: 1/' params/short.yaml", r"params/short\.yaml: seed modified since tokenizers@short was made"),
    ("echo a,b > params/orders.csv", r"params/orders\.csv: modified since reports@short was made"),
    ("sed -i 's/cores all codes/cores 1 codes/' dvc.yaml", r"dvc\.yaml: the command of codes@short is not that of dvc\.lock"),
    ("rm dvc.lock", r"dvc\.lock: not here"),
    ("echo '[' > dvc.lock", r"dvc\.lock: cannot be read; `git checkout HEAD dvc\.lock`"),
    ("sed -i 's/run: short/run: demo/' run.yaml", r"dvc\.lock: has no record of data, .* of demo; `dvc repro`")])
def test_what_differs_from_the_lock_is_not_trusted(at_first, spoil, message):
    say(at_first, spoil)
    said = say(at_first, "restok sync", fails=True)
    assert re.search(f"SyncError: (.*\n)*?{message}", said), said


def test_two_at_once_and_a_killed_one_lose_nothing(at_first):
    edit(at_first, *MORE)
    first = subprocess.Popen(["dvc", "repro"], cwd=at_first, env=COLD, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, start_new_session=True)
    try:
        while "evaluation" not in (line := first.stdout.readline()):
            assert line, "dvc repro ended"
        said = say(at_first, "dvc repro", fails=True)
        assert said.count("ERROR") == 1 and re.search(r"blocked by|locked|another process", said), said
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    say(at_first, "snakemake --unlock")
    say(at_first, "dvc repro")
    assert not plan(at_first) and "up to date" in say(at_first, "dvc status")


def objects(folder: Path) -> dict[str, Path]:
    """Of a remote or a cache, by digest."""
    return {path.parent.name + path.name: path for path in folder.glob("files/md5/??/*")}


@pytest.fixture
def own_remote(made):
    """A clone with a copy of the remote for itself."""
    folder, remote = made.parent / "broken", made.parent / "broken_remote"
    shutil.copytree(made.parent / "restok-remote", remote)
    yield clone(made, "broken", f"--quiet remote.folder.url {remote}"), remote
    shutil.rmtree(folder)
    shutil.rmtree(remote, onerror=lambda *_: None)


def digest_of_the_weights(made: Path) -> str:
    return subprocess.run(["md5sum", made / MODEL / "model.safetensors"], capture_output=True, text=True).stdout[:32]


def test_an_object_that_is_missing_is_named_and_comes_when_it_is_there(made, own_remote):
    folder, remote = own_remote
    missing = objects(remote)[digest_of_the_weights(made)].rename(remote / "away")
    said = say(folder, "dvc pull", fails=True)
    assert digest_of_the_weights(made) in said and "files failed to download" in said
    missing.rename(remote / "files/md5" / digest_of_the_weights(made)[:2] / digest_of_the_weights(made)[2:])
    say(folder, "dvc pull && restok sync")


def test_an_object_that_is_damaged_is_not_taken(made, own_remote):
    folder, remote = own_remote
    damaged = objects(remote)[digest_of_the_weights(made)]
    damaged.chmod(0o644)
    damaged.write_bytes(b"nonsense")
    said = say(folder, "dvc pull", fails=True)
    assert "Checkout failed for following targets:\nresults/short/tokenizer\n" in said
    assert not (folder / MODEL / "model.safetensors").exists()
    shutil.copyfile(made / MODEL / "model.safetensors", damaged)
    say(folder, "dvc pull && restok sync")
    assert (folder / MODEL / "model.safetensors").read_bytes() == (made / MODEL / "model.safetensors").read_bytes()


def test_what_stands_stays_where_old_versions_are_thrown_away(made, own_remote):
    folder, remote = own_remote
    say(folder, "dvc pull && restok sync")
    before = set(objects(remote))
    for line in page("Throwing away old ones"):
        say(folder, line + " --force" * line.startswith("dvc gc"))                  # which asks otherwise
    assert set(objects(remote)) == before and not plan(folder)


def test_a_pull_that_was_killed_goes_on(made, own_remote):
    folder, _ = own_remote
    for arrived in 1, 20, 40:
        pull = subprocess.Popen(["dvc", "pull"], cwd=folder, env=ENVIRONMENT, start_new_session=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(objects(folder / ".dvc/cache")) < arrived:
            assert pull.poll() is None
        os.killpg(pull.pid, signal.SIGKILL)
        pull.wait()
    say(folder, "; ".join(page("After it was stopped")[:2]))
    say(folder, "dvc pull && restok sync")
    assert not plan(folder) and "up to date" in say(folder, "dvc status")


def test_a_remote_out_of_reach_is_named(made, own_remote):
    folder, remote = own_remote
    shutil.rmtree(remote)
    said = say(folder, "dvc pull", fails=True)
    assert said.count("ERROR") == 1 and "results/short/data" in said, said
    say(made, "dvc config --local remote.folder.url /proc/nowhere")
    try:
        assert "/proc/nowhere" in say(made, "dvc push", fails=True)
    finally:
        (made / ".dvc/config.local").unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk, as root")
def test_a_full_disk_is_named_and_the_next_call_goes_on(made, own_remote, tmp_path):
    folder, _ = own_remote
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        say(folder, f"dvc config --local cache.dir {tmp_path}/cache")
        assert "No space left on device" in say(folder, "dvc pull", fails=True)
        say(folder, "mount -o remount,size=200m " + str(tmp_path))
        say(folder, "dvc pull && restok sync")
        assert not plan(folder)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
