"""A real browser of which tests look at pages: Debian's Chromium, without a window, with an empty profile. It reaches files and
servers of this machine alone. And what such a test needs of a server: a start, an answer, an end."""

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, sync_playwright
from s3_server import free_ports
from slurm_cluster import wait_until

CHROMIUM = shutil.which("chromium")
HERE = "127.0.0.1", "localhost", "::1"
ARGUMENTS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--no-first-run", "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]
OPENER = build_opener(ProxyHandler({}))         # a proxy of the environment is not asked


def why_not() -> str | None:
    """What is missing for a browser here."""
    return None if CHROMIUM else "no chromium: apt-get install chromium fonts-liberation"


@contextmanager
def browser() -> Iterator[Browser]:
    """A running browser; its processes are ended, and its profile is deleted. Skips the test where there is none."""
    if reason := why_not():
        pytest.skip(reason)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []         # root can have none
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *sandbox])
        try:
            yield running
        finally:
            running.close()


@dataclass
class Look:
    """A page, and what went wrong on it so far, a line each."""

    page: Page
    errors: list[str] = field(default_factory=list)         # of the console, and what scripts raised
    failed: list[str] = field(default_factory=list)         # requests without an answer, and answers from 400 on
    refused: list[str] = field(default_factory=list)        # requests that would have left this machine

    def faults(self, *known: str) -> list[str]:
        """All that went wrong, but for lines with one of the known texts."""
        return [line for line in [*self.errors, *self.failed, *self.refused] if not any(text in line for text in known)]

    def _guard(self, route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in ("file", "data", "blob") or address.hostname in HERE:
            route.continue_()
        else:
            self.refused.append(route.request.url)
            route.abort("addressunreachable")

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location['url']})")

    def _lost(self, request: Request) -> None:
        # A page that is left aborts what it still waits for.
        if request.failure != "net::ERR_ABORTED" and request.url not in self.refused:
            self.failed.append(f"{request.failure} {request.url}")


@contextmanager
def look(running: Browser, width: int = 1280, height: int = 900, **options) -> Iterator[Look]:
    """An empty page of this size, with storage and cookies of its own; `options` are those of Playwright's `new_context`, such
    as color_scheme="dark" or device_scale_factor=2."""
    context = running.new_context(viewport={"width": width, "height": height}, service_workers="block", **options)
    try:
        looked = Look(context.new_page())
        context.route("**/*", looked._guard)
        looked.page.on("console", looked._heard)
        looked.page.on("pageerror", lambda error: looked.errors.append(str(error)))
        looked.page.on("requestfailed", looked._lost)
        looked.page.on("response", lambda answer: answer.status < 400 or looked.failed.append(f"{answer.status} {answer.url}"))
        yield looked
    finally:
        context.close()


def shows(found: Callable[[], object], wanted: object, within: float = 60) -> None:
    """What is found on a page is what is wanted, now or before long: pages draw their parts one after the other."""
    with suppress(TimeoutError):
        wait_until(lambda: found() == wanted, "", within)
    assert found() == wanted


def free_port() -> int:
    return free_ports(1)[0]


def answer(address: str) -> tuple[int, str]:
    """The status and the text at an address, at the end of its redirects; (0, why) where nobody answers."""
    try:
        with OPENER.open(address, timeout=5) as found:
            return found.status, found.read().decode(errors="replace")
    except HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (URLError, OSError) as error:
        return 0, str(error)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)          # PR_SET_PDEATHSIG: ends with the tests, however these end
    for number in (signal.SIGINT, signal.SIGHUP):       # whatever those ignore, as they do below nohup
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def server(command: Sequence[str | Path], address: str, log: Path, environment: Mapping[str, str] | None = None,
           folder: Path | None = None) -> Iterator[subprocess.Popen]:
    """A process that answers at an address from here on, and whose output goes to a file. It is asked to end, and killed where
    it does not."""
    with log.open("a") as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env=environment, cwd=folder, preexec_fn=_die_with_parent)

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before it answered: {log.read_text()}")
        return 0 < answer(address)[0] < 500

    try:
        wait_until(ready, f"nobody answers at {address}; {log} says why", within=180)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
