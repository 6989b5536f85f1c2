"""What browser.py promises to those who look at pages with it. Not one of the tests, since it needs Debian's Chromium: `make
pages` runs it."""

import os
import sys
from collections.abc import Iterator

import pytest
from browser import answer, browser, free_port, look, server
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


def test_a_page_without_faults_has_none(running, tmp_path):
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><title>whole</title><script>console.log('here'); console.warn('there')</script>")
    with look(running, 360, 640, color_scheme="dark") as seen:
        seen.page.goto(file.as_uri())
        assert seen.page.title() == "whole" and seen.page.evaluate("innerWidth") == 360
        assert seen.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert seen.faults() == []


def test_what_goes_wrong_on_a_page_is_seen(running, tmp_path):
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><img src='absent.png'><script>console.error('spoken'); throw Error('raised')</script>")
    with look(running) as seen:
        seen.page.goto(file.as_uri())
        assert [text for text in ("spoken", "raised", "absent.png") if not any(text in line for line in seen.faults())] == []
        assert not any("spoken" in line for line in seen.faults("spoken"))


def test_nothing_leaves_this_machine(running, tmp_path):
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><img src='http://example.org/a.png'><script>"
                    "let socket = new WebSocket('ws://example.org/'); socket.onerror = () => document.title = 'alone'</script>")
    with look(running) as seen:
        seen.page.goto(file.as_uri())
        seen.page.wait_for_function("document.title == 'alone'")
        assert "http://example.org/a.png" in seen.refused
        assert any("example.org" in line for line in seen.faults())


def test_a_server_answers_and_is_ended(running, tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html><title>served</title><script src='absent.js'></script>")
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1", "--directory", tmp_path]
    with server(command, address, tmp_path / "log") as process, look(running) as seen:
        seen.page.goto(address)
        assert seen.page.title() == "served" and any(f"404 {address}absent.js" in line for line in seen.faults())
    assert process.returncode is not None and answer(address)[0] == 0
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_server_that_cannot_start_is_said_to(tmp_path):
    with pytest.raises(RuntimeError, match="spoilt"), \
            server([sys.executable, "-c", "raise SystemExit('spoilt')"], "http://127.0.0.1:9/", tmp_path / "log"):
        pass
