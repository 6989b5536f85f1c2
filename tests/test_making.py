"""Facts of the making: which code, where, when, at what cost; and none of them decides what an artifact is."""

import os
import subprocess
import time

import pytest
from conftest import ROOT

from restok.files import read_json
from restok.files.artifact import Origin
from restok.files.making import code, commit_of, cost_of, made, making, together
from restok.files.run import RunFolder, make


def git(folder, *words):
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", "-C", folder, *words], env=os.environ | identity, check=True, capture_output=True)


@pytest.fixture
def package(tmp_path):
    """A package in a checkout of its own, with something that no commit has beside it."""
    folder = tmp_path / "checkout" / "pkg"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("one = 1\n")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-qm", "first")
    (folder.parent / "results").write_text("")
    code.cache_clear()
    yield folder
    code.cache_clear()


def test_the_commit_is_named_with_what_was_changed_since_in_the_package(package):
    clean = code(package)
    head = subprocess.run(["git", "-C", package, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert (clean["commit"], clean["changed"]) == (head, [])
    (package / "a.py").write_text("one = 2\n")
    (package / "with space.py").write_text("")
    code.cache_clear()
    changed = code(package)
    assert (changed["commit"], sorted(changed["changed"])) == (head, ["pkg/a.py", "pkg/with space.py"])
    assert changed["source"] != clean["source"]
    assert (commit_of(clean), commit_of(changed)) == (head[:7], head[:7] + "+")


def test_without_a_checkout_or_without_git_the_source_alone_is_named(package, monkeypatch):
    source = code(package)["source"]
    code.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert code(package) | {"restok": None} == {"restok": None, "source": source, "commit": None, "changed": None}
    monkeypatch.undo()
    code.cache_clear()
    inner = package.parent / "site-packages" / "pkg"     # installed below somebody's checkout, whose commit is not its own
    inner.mkdir(parents=True)
    (inner / "a.py").write_text("one = 1\n")
    about = code(inner)
    assert (about["commit"], about["source"]) == (None, source) and commit_of(about).endswith(f"source {source[:7]}")


def test_a_hook_of_git_does_not_lead_to_another_checkout(package, monkeypatch):
    head = code(package)["commit"]
    code.cache_clear()
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    assert code(package)["commit"] == head


def test_a_call_knows_when_it_began_and_what_it_took():
    assert made()["seconds"] is None and cost_of([made()]).startswith("time unknown")
    with making():
        time.sleep(0.05)
        one = made()
    assert 0.05 <= one["seconds"] < 5 and one["started"] <= one["finished"] and one["processor"] and one["versions"]["numpy"]


def test_calls_in_one_place_become_one_and_others_stay():
    one = made() | {"seconds": 3.0, "device": "cpu"}
    three = [one, one | {"seconds": 4.0, "unknown": 1, "started": "2020"}, one | {"device": "GPU", "processes": 2}]
    first, second = together(three)
    assert (first["seconds"], first["calls"], first["unknown"]) == (7.0, 2, 1)
    assert (second["device"], second["calls"]) == ("GPU", 1)
    assert cost_of([first]) == "at least 7 s, cpu" and cost_of([second]) == "6 s, 2 x GPU"
    assert cost_of([one | {"seconds": 7200.0}]) == "2 h, cpu" and cost_of([one | {"seconds": 150.0}]) == "2.5 min, cpu"
    assert together([one, one | {"seconds": None}])[0]["seconds"] is None


def test_a_run_that_was_stopped_keeps_what_its_calls_cost(tmp_path):
    origin = Origin("thing", {"a": 1}, {})

    def write(folder):
        time.sleep(0.05)
        if not (tmp_path / "enough").exists():
            raise KeyboardInterrupt
        (folder / "file").write_text("made")
        return {}

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), making():
            make(tmp_path / "out", origin, tmp_path / "run", write)
    with making(), RunFolder(tmp_path / "run", origin.identity) as run:        # as one that is killed leaves it
        run.note()
    (tmp_path / "enough").touch()
    with making():
        make(tmp_path / "out", origin, tmp_path / "run", write)
    (one,) = read_json(tmp_path / "out/manifest.json")["made"]
    assert one["calls"] == 4 and 0.15 <= one["seconds"] < 10 and one["unknown"] == 1 and "at least" in cost_of([one])
    assert not list(tmp_path.glob("run/*/calls.json"))


def test_when_and_where_it_was_made_is_no_part_of_what_it_is(tmp_path):
    one, other = (Origin("thing", {"a": 1}, {"x": "y"}, {"x": tmp_path / where}) for where in "pq")
    assert one == other and one.identity == other.identity
    for origin, name in ((one, "one"), (other, "other")):
        make(tmp_path / name, origin, None, lambda folder: (folder / "file").write_text("made") and {})
    assert other.made(tmp_path / "one") and one.made(tmp_path / "other")
    sealed = one.sealed({"value": 3}, tmp_path / "r.json")
    again = other.sealed({"value": 3}, tmp_path / "r.json", [made() | {"device": "GPU"}])
    assert sealed["digest"] == again["digest"] and sealed["made"] != again["made"]
    assert sealed["paths"] == {"x": (tmp_path / "p").as_posix()}
