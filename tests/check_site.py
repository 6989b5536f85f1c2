"""The site of docs/, opened in a browser as files: no errors, nothing across the edge of a phone, a search that finds. Not one
of the tests, since it needs Debian's Chromium: `make pages` runs it."""

import pytest
from browser import browser, look
from playwright.sync_api import expect

SIZES = {"phone": (360, 740), "desk": (1280, 900)}


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.mark.parametrize(("size", "scheme"), [("phone", "dark"), ("desk", "light")])
def test_pages_have_no_faults_and_fit_the_screen(site, chromium, size, scheme):
    pages = sorted(set(site.glob("*.html")) - {site / "404.html"})         # which is for servers
    assert len(pages) > 15
    with look(chromium, *SIZES[size], color_scheme=scheme) as seen:
        for page in pages:
            seen.page.goto(page.as_uri())
            seen.page.wait_for_selector("h1")
            assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.name
            colour = seen.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
            assert (max(colour) < 128) == (scheme == "dark"), page.name
        assert seen.faults() == []


@pytest.mark.parametrize("size", SIZES)
def test_the_search_finds_without_a_server(site, chromium, size):
    with look(chromium, *SIZES[size]) as seen:
        seen.page.goto((site / "index.html").as_uri())
        if size == "phone":
            seen.page.click("label[for=__search] >> visible=true")
        seen.page.click("input[name=query]")
        seen.page.keyboard.type("guidance", delay=20)
        seen.page.wait_for_selector(".md-search-result__link")
        expect(seen.page.locator(".md-search-result__link[href*='metrics.html']")).not_to_have_count(0)
        seen.page.click(".md-search-result__link >> nth=0")
        seen.page.wait_for_function("!location.pathname.endsWith('index.html')")
        expect(seen.page.locator("article")).to_contain_text("guidance", ignore_case=True)
        assert seen.faults() == []
