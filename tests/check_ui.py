"""MLflow's pages as `restok ui` opens them, in a real browser: what docs/tracking.md tells to click. Not one of the tests,
since it needs Debian's Chromium: `make pages` runs it, on the store that the mirror makes of the run of RESTOK_PARAMS."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import ssh_server
from browser import Look, answer, browser, free_port, look, server, shows
from invented_store import invent
from pages import commands
from playwright.sync_api import Browser, expect
from slurm_cluster import wait_until

from restok.config.load import load_params
from restok.experiments import ITEMS, Tree, load_sheet
from restok.mirror.results import places
from restok.reporting.sources import UI

ROOT = Path(__file__).parent.parent
PARAMS = ROOT / os.environ["RESTOK_PARAMS"]
RUN = PARAMS.stem
RESTOK = [Path(sys.executable).with_name("restok")]
PORT = free_port()
HERE = f"http://127.0.0.1:{PORT}"
TREE = Tree(Path("results", RUN), load_sheet(PARAMS))
DIGITS = load_params(PARAMS).data.source == "digits"
CHIEF = ["rFD-digits", "gFD-digits", "IS-digits"] if DIGITS else ["rFID", "gFID", "IS"]
# Of MLflow's pages: they ask who is signed in, though there are no accounts; and a column that grows is said to grow.
KNOWN = "users/current", "ResizeObserver loop"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RESTOK_"))}
# A folder for pictures of the pages: this is how those in docs/images/ are made.
PICTURES = os.environ.get("RESTOK_PICTURES")


def documented() -> list[str]:
    """`restok ui`, as the page tells to type it, of our run and on our port."""
    found = [command.text for command in commands(ROOT / "docs/tracking.md") if command.section == "Opening it"]
    assert found[0] == "restok ui" and "restok ui demo --port 5001" in found
    return [*RESTOK, "ui", RUN, "--port", str(PORT)]


def expected(table: str) -> list[str]:
    """The names of the runs that feed a table, as a list has them."""
    return sorted(place.name for place in places(TREE) if place.stage == "generation" and table in place.feeds)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A folder with the run's results and a store of them, which the mirror made; without results, of numbers made up."""
    folder = tmp_path_factory.mktemp("clone")
    made = all((ROOT / place.path).exists() for place in places(TREE) if "table2" in place.feeds)
    for name in ("params", *(("results", "reports") if made else ())):
        (folder / name).symlink_to(ROOT / name)
    if made:
        subprocess.run([*RESTOK, "track-sync", RUN], cwd=folder, env=ENVIRONMENT, check=True)
        return folder
    warnings.warn(f"results/{RUN} is not here (make short): the numbers looked at are made up", stacklevel=1)
    (folder / "results" / RUN).mkdir(parents=True)
    invent(TREE, f"sqlite:///{folder}/mlflow.db")
    return folder


@pytest.fixture(scope="module")
def opened(clone) -> Iterator[subprocess.Popen]:
    with server(documented(), f"{HERE}/health", clone / "log", ENVIRONMENT, clone) as process:
        wait_until(lambda: "Ctrl-C" in (clone / "log").read_text(), f"no addresses; {clone}/log says why")
        yield process


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture
def seen(chromium) -> Iterator[Look]:
    """A page that has no faults in the end, whatever it showed."""
    with look(chromium, 1600, 900) as page:
        yield page
        assert page.faults(*KNOWN) == []


def picture(seen: Look, name: str) -> None:
    if PICTURES:
        seen.page.wait_for_timeout(1500)                # until the charts have stopped to move
        seen.page.screenshot(path=Path(PICTURES) / f"{name}.png")


def addresses(clone: Path) -> dict[str, str]:
    """What `restok ui` printed, by the titles."""
    return dict(re.findall(r"^(\S.*?) {2,}(http://\S+)$", (clone / "log").read_text(), re.MULTILINE))


def columns(seen: Look) -> list[str]:
    """The names of a table's columns, from the left."""
    heads = seen.page.locator(".ag-header-cell")
    found = [(head.bounding_box()["x"], head.inner_text()) for head in heads.all() if head.inner_text()]
    return [name for _, name in sorted(found)]


def runs(seen: Look) -> list[str]:
    return seen.page.get_by_role("link", name=re.compile(r"^\d\d\.\d+\.\d ")).all_inner_texts()


def test_it_prints_an_address_for_the_run_and_each_view_and_says_how_to_tunnel(clone, opened):
    found = addresses(clone)
    assert found[RUN] == f"{HERE}/restok/{RUN}"
    assert found[ITEMS["table2"].title] == f"{HERE}/restok/{RUN}/table2"
    assert f"ssh -L {PORT}:127.0.0.1:{PORT} " in (clone / "log").read_text()
    assert [line for line in (clone / "log").read_text().splitlines() if re.search("WARN|ERROR|Traceback", line)] == []


@pytest.mark.parametrize("table", ["table2", "table3", "table4", "table5"])
def test_the_view_of_a_table_shows_its_runs_and_first_the_columns_that_matter(table, clone, opened, seen):
    seen.page.goto(addresses(clone)[ITEMS[table].title])
    expect(seen.page.get_by_text(f"{len(expected(table))} matching runs")).to_be_visible(timeout=60_000)
    shows(lambda: runs(seen), expected(table))
    shows(lambda: columns(seen)[:5], ["Run Name", "Created", table, *(f"eval/{name}" for name in CHIEF[:2])])
    shown = seen.page.get_by_role("link", name=re.compile(r"^\d\d\.\d+\.\d "))
    assert all(name.evaluate("name => name.scrollWidth <= name.clientWidth + 1") for name in shown.all()), "a name is cut off"


def test_the_eight_runs_of_table2_are_selected_and_compared(clone, opened, seen):
    """The walk of docs/tracking.md."""
    page = seen.page
    page.goto(addresses(clone)[ITEMS["table2"].title])
    expect(page.get_by_text("8 matching runs")).to_be_visible(timeout=60_000)
    picture(seen, "mlflow-table2")
    page.get_by_role("checkbox").first.click()
    expect(page.get_by_role("button", name="Compare")).to_be_enabled()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Comparing 8 Runs from 1 Experiment")).to_be_visible(timeout=60_000)
    for setting in ("tokenizer.latent_init", "tokenizer.merge_residual"):
        expect(page.get_by_text(setting).first).to_be_visible()
    for name in expected("table2"):
        expect(page.get_by_text(name, exact=True)).not_to_have_count(0)
    assert [name for name in expected("table2") if not page.get_by_text(name, exact=True).count()] == []
    picture(seen, "mlflow-compare")


def test_charts_are_grouped_and_have_a_bar_a_run(clone, opened, seen):
    page = seen.page
    page.goto(addresses(clone)[ITEMS["table2"].title])
    expect(page.get_by_text("8 matching runs")).to_be_visible(timeout=60_000)
    page.locator("label:has(input[value=CHART])").click()
    bars = page.locator(".js-plotly-plot .bars .point")
    expect(bars).not_to_have_count(0, timeout=60_000)
    expect(page.get_by_test_id("experiment-view-compare-runs-section-header").first).to_have_text(re.compile(r"^\s*eval\b"))
    expect(page.locator(".js-plotly-plot").first.locator(".bars .point")).to_have_count(8, timeout=60_000)
    assert page.locator(".js-plotly-plot").first.locator(".bars .point").count() == 8
    picture(seen, "mlflow-charts")


def test_trainings_have_curves(clone, opened, seen):
    page = seen.page
    page.goto(addresses(clone)["Training of tokenizers"])
    expect(page.get_by_text("matching runs")).to_be_visible(timeout=60_000)
    page.locator("label:has(input[value=CHART])").click()
    losses = page.get_by_test_id("experiment-view-compare-runs-section-header").filter(has_text=re.compile(r"^\s*loss\b"))
    expect(losses).to_be_visible(timeout=60_000)
    losses.scroll_into_view_if_needed()
    expect(page.locator(".js-plotly-plot .scatterlayer .trace").first).to_be_attached(timeout=60_000)
    assert losses.inner_text().split()[0] == "loss" and page.locator(".js-plotly-plot .scatterlayer .trace").count() > 0
    picture(seen, "mlflow-curves")


def test_the_bare_address_leads_to_the_runs_and_nothing_about_chat_programs(clone, opened, seen):
    seen.page.goto(HERE)
    expect(seen.page.get_by_text("matching runs")).to_be_visible(timeout=60_000)
    assert "/experiments/" in seen.page.url and "Assistant" not in seen.page.inner_text("body")
    expect(seen.page.get_by_text("Model training")).to_be_visible()
    expect(seen.page.locator("[data-assistant-ui]:visible")).to_have_count(0)


def test_the_menu_has_the_views_the_first_table_first(clone, opened, seen):
    seen.page.goto(f"{HERE}/restok/{RUN}")
    expect(seen.page.get_by_text("matching runs")).to_be_visible(timeout=60_000)
    seen.page.get_by_role("button", name="Views").click()
    menu = seen.page.get_by_role("menu").or_(seen.page.get_by_role("dialog"))
    expect(menu.get_by_text(ITEMS["table2"].title)).to_be_visible()
    shows(lambda: [line for line in menu.inner_text().splitlines() if line in addresses(clone)], list(addresses(clone))[1:])
    assert next(iter(addresses(clone))) == RUN
    picture(seen, "mlflow-views")


def test_the_address_of_a_result_leads_to_its_run(clone, opened, seen):
    place = next(place for place in places(TREE) if place.stage == "generation")
    for path in (place.path.parent, place.path):                     # the folder, and a file in it
        seen.page.goto(f"{HERE}/restok/{path}")
        expect(seen.page.get_by_role("heading", name=place.name)).to_be_visible(timeout=60_000)
    status, text = answer(f"{HERE}/restok/results/{RUN}/evaluation/nobody/1M")
    assert status == 404 and "restok track-sync" in text and f"/restok/{RUN}/table2" in text
    assert answer(f"{HERE}/restok/results/{RUN}/a'b")[0] == answer(f"{HERE}/restok/elsewhere")[0] == 404


def test_every_link_of_the_report_leads_to_a_run_or_a_view(clone, opened):
    report = clone / "reports" / RUN / "index.html"
    if not report.exists():
        pytest.skip("no report of the run: make short")
    links = set(re.findall(rf'href="{re.escape(UI)}/([^"]+)"', report.read_text()))
    assert len(links) > 40 and {link.partition("/")[0] for link in links} == {"results", RUN}
    assert [link for link in sorted(links) if answer(f"{HERE}/restok/{link}")[0] != 200] == []


@pytest.mark.parametrize(("host", "status"), [("localhost:8080", 200), ("127.0.0.1:5001", 200), ("example.org", 403)])
def test_through_a_tunnel_it_answers_and_to_other_names_it_does_not(host, status, opened):
    """A browser at the other end of `ssh -L 8080:127.0.0.1:PORT` asks for localhost:8080."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    connection.request("GET", "/", headers={"Host": host})
    assert connection.getresponse().status == status


def test_through_a_real_tunnel_the_addresses_hold(opened, tmp_path):
    if reason := ssh_server.why_not():
        pytest.skip(reason)
    with ssh_server.server(tmp_path / "ssh") as ssh:
        port = free_port()
        told = ["-i", ssh.key, "-p", ssh.port, "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known"]
        command = ["ssh", "-N", "-L", f"{port}:127.0.0.1:{PORT}", *told, f"{ssh.user}@127.0.0.1"]
        with server(command, f"http://localhost:{port}/restok/{RUN}/table2", tmp_path / "log"):
            status, text = answer(f"http://localhost:{port}/restok/{RUN}/table2")
            assert status == 200 and "mlflow" in text.lower()


def test_it_listens_on_this_machine_alone_and_runs_no_commands_for_anybody(opened):
    listening = subprocess.run(["ss", "-ltnH", f"sport = :{PORT}"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[3] for line in listening.splitlines()} == {f"127.0.0.1:{PORT}"}
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    connection.request("POST", "/ajax-api/3.0/mlflow/assistant/message", "{}", {"content-type": "application/json"})
    assert connection.getresponse().status == 403


def test_a_port_in_use_is_refused_with_a_remedy(clone, opened):
    done = subprocess.run([*RESTOK, "ui", RUN, "--port", str(PORT)], cwd=clone, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and "--port 5001" in done.stderr, done.stderr


def test_of_a_server_it_prints_the_addresses(clone, opened):
    done = subprocess.run([*RESTOK, "ui", RUN], cwd=clone, env=ENVIRONMENT | {"MLFLOW_TRACKING_URI": HERE}, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{ITEMS['table2'].title} +{HERE}/#/experiments/\d+/runs\?\S*viewStateShareKey=table2", done.stderr)


def test_where_nobody_reads_what_it_prints_it_ends(clone):
    port = free_port()
    command = f"{RESTOK[0]} ui {RUN} --port {port} --no-sync 2>&1 | head -n 1"           # bash waits for both
    done = subprocess.run(["bash", "-c", command], cwd=clone, env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert done.stdout.count("\n") == 1 and answer(f"http://127.0.0.1:{port}/health")[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_mirror_with_it(number, clone, tmp_path):
    port = free_port()
    command = [*RESTOK, "ui", RUN, "--port", port]
    with server(command, f"http://127.0.0.1:{port}/health", tmp_path / "log", ENVIRONMENT, clone) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        said = [Path(f"/proc/{child}/cmdline").read_text() for child in children]
        assert len(said) == 1 and "track-sync" in said[0], said
        process.send_signal(number)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    with socket.create_server(("127.0.0.1", port)):
        pass
