"""The report's page in a real browser: whole without a network, on a phone, in the dark, on paper; sorted by hand and by keys.
Not one of the tests, since it needs Debian's Chromium: `make pages` runs it, on the page that `make short` left, else on a
made-up one."""

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from browser import browser, look
from reporting_fixtures import experiments, inputs, numbers, write_experiments, write_reports

from restok.experiments import ITEMS
from restok.reporting import page
from restok.reporting.sources import UI

ROOT = Path(__file__).parent.parent
LEFT = ROOT / "reports" / Path(os.environ.get("RESTOK_PARAMS", "params/short.yaml")).stem / "index.html"
PHONE, DESK = (360, 740), (1280, 900)
MEASURED = [name for name, item in ITEMS.items() if item.rows and (item.kind != "figure" or item.numbers)]

# Of every text that is seen, its contrast with what lies behind it, and how much WCAG's level AA asks for.
CONTRAST = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(each).backgroundColor);
      if (a > 0) { if (a < 1) throw Error('half transparent'); return [r, g, b]; }
    }
    throw Error('no ground');
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || ['SCRIPT', 'STYLE'].includes(element.tagName)) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const [one, other] = [light(numbers(style.color)), light(behind(element))].sort((a, b) => b - a);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push({text: text.slice(0, 40), ratio: (one + 0.05) / (other + 0.05), needed: large ? 3 : 4.5});
  }
  return found;
}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The page."""
    if LEFT.exists():
        return LEFT
    home, sheet = tmp_path_factory.mktemp("page"), experiments()
    results = write_experiments(home / "results" / "demo", sheet, numbers)
    reports = write_reports(home / "reports" / "demo")
    page.report(inputs(results, sheet), reports, reports / "index.html")
    return reports / "index.html"


@pytest.fixture(scope="module")
def running():
    with browser() as chromium:
        yield chromium


@pytest.fixture
def opened(running, file, request):
    """The page in a window of some size and colours, without a fault up to the end of the test."""
    size, scheme = getattr(request, "param", (DESK, "light"))
    with look(running, *size, color_scheme=scheme) as seen:
        asked = []
        seen.page.on("request", lambda request: asked.append(request.url))
        seen.page.goto(file.as_uri())
        yield seen.page
        assert seen.faults() == []
        assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}        # nothing is asked for


LOOKS = pytest.mark.parametrize("opened", [(size, scheme) for size in (PHONE, DESK) for scheme in ("light", "dark")],
                                indirect=True, ids=lambda look: f"{look[0][0]} {look[1]}")


@LOOKS
def test_it_fits_the_screen_and_every_text_can_be_read(opened):
    opened.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    width = opened.evaluate("document.documentElement.scrollWidth")
    assert width <= opened.viewport_size["width"]
    texts = opened.evaluate(CONTRAST)
    assert len(texts) > 300 and [each for each in texts if each["ratio"] < each["needed"]] == []


@pytest.mark.parametrize("opened", [(DESK, "light"), (DESK, "dark")], indirect=True, ids=["light", "dark"])
def test_its_colours_are_those_that_the_system_asks_for(opened):
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert max(ground) < 60 if dark else min(ground) > 240
    frames = opened.evaluate("[...document.images].map(each => getComputedStyle(each).backgroundColor)")
    assert set(frames) == {"rgb(255, 255, 255)"}              # figures are drawn on white


def column(opened, table: str, number: int) -> list[str]:
    """The texts of a table's column, as they stand."""
    return opened.evaluate("([table, at]) => [...document.querySelector(table).tBodies[0].rows].map(row => "
                           "row.cells[at].textContent.trim())", [table, number])


def heads(opened, table: str):
    return opened.locator(f"{table} > thead th")


def values(texts: list[str]) -> list[float]:
    """What our tables' numbers begin with."""
    return [float(re.match(r"[-+]?[\d.]+", text)[0]) for text in texts]


TABLE2 = "#table2 ~ figure table"


def test_a_click_sorts_numbers_and_a_third_one_restores(opened):
    titles = heads(opened, TABLE2).all_inner_texts()
    at = next(i for i, title in enumerate(titles) if "FD-" in title or "FID" in title)
    before, head = column(opened, TABLE2, at), heads(opened, TABLE2).nth(at)
    assert len(before) > 2 and head.get_attribute("aria-sort") == "none"
    for state, wanted in (("ascending", sorted(values(before))), ("descending", sorted(values(before), reverse=True))):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == state and values(column(opened, TABLE2, at)) == wanted
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "none" and column(opened, TABLE2, at) == before


def test_the_keyboard_sorts_texts_and_one_column_at_a_time(opened):
    before = column(opened, TABLE2, 0)
    for at, key in ((1, "Enter"), (0, "Space")):
        heads(opened, TABLE2).nth(at).locator("button").focus()
        opened.keyboard.press(key)
    states = heads(opened, TABLE2).evaluate_all("all => all.map(each => each.getAttribute('aria-sort'))")
    assert states[0] == "ascending" and set(states[1:]) == {"none"}
    opened.keyboard.press("Enter")
    assert column(opened, TABLE2, 0) == before[::-1] == sorted(before, reverse=True)


ORDERS = [["84.5K", "1.3 M", "662M", "1.33B"], ["9.42 s", "35 s", "1.13 min", "at least 2 h"],
          ["-0.5", "−0.2", "+0.1, higher", "8"], ["1/16", "1/4", "1/2", ""],
          ["9.9 %", "10.0 % [7.3 % to 13.5 %]", "99 %", "100 %"], ["999", "1,024", "50,000", "unknown"],
          ["4.1 ± 0.5", "12.3 [11.9, 12.8]", "101.0", "–"], ["250k", "500k", "750k", "1M"],
          ["#2", "#10", "HAR, 4 NTP", "vanilla"]]


def test_numbers_of_every_kind_are_sorted_as_numbers_and_unknown_ones_are_last(running, tmp_path):
    script = (ROOT / "restok/reporting/page.js").read_text()
    rows = "".join(f"<tr>{''.join(f'<td>{order[row]}</td>' for order in ORDERS)}</tr>" for row in (2, 0, 3, 1))
    head = "".join(f"<th>{number}</th>" for number in range(len(ORDERS)))
    (tmp_path / "index.html").write_text(
        f"<!doctype html><meta charset=utf-8><table class=sortable><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<script>{script}</script>")
    with look(running) as seen:
        seen.page.goto((tmp_path / "index.html").as_uri())
        for at, order in enumerate(ORDERS):
            known = [text for text in order if text not in ("", "–", "unknown")]
            for wanted in (known, known[::-1]):
                heads(seen.page, "table").nth(at).locator("button").click()
                assert column(seen.page, "table", at) == [*wanted, *order[len(known):]]
        assert seen.faults() == []


def test_every_link_has_its_target(opened, file):
    links = opened.evaluate("[...document.links].map(each => each.getAttribute('href'))")
    inside, outside = [link for link in links if link.startswith("#")], [link for link in links if not link.startswith("#")]
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids)) and {link[1:] for link in inside} <= set(ids) and len(inside) > 50
    assert {link.removeprefix(f"{UI}/").partition("/")[0] for link in outside} == {"results", file.parent.name}


@pytest.mark.parametrize("name", [None, *MEASURED])
def test_every_number_that_was_measured_leads_to_an_entry_which_opens(opened, name):
    """Of a table's rows that were measured here, every number but the paper's; name None: of the best checkpoint."""
    opened.evaluate("window.scrollTo(0, 0)")
    found = opened.evaluate("""name => {
      const table = document.querySelector(name ? `#${name} ~ figure table.sortable` : '#best ~ .facts');
      const titles = name ? [...table.tHead.rows[0].cells].map(cell => cell.textContent) : ['', '', 'paper'];
      const rows = [...table.tBodies[0].rows].filter(row => row.querySelector('a'));
      const plain = rows.flatMap(row => [...row.cells].filter((cell, at) => /^[-+]?\\d/.test(cell.textContent)
        && !titles[at].includes('paper') && !cell.querySelector('a[href^="#from-"]')).map(cell => cell.textContent));
      return [table.tBodies[0].rows.length, rows.length, plain];
    }""", name)
    assert found[1] > 0 and found[2] == [] and (name == "table1" or found[0] == found[1]), found
    link = opened.locator(f"#{name} ~ figure a[href^='#from-']" if name else "#best ~ .facts a").first
    entry = opened.locator(link.get_attribute("href"))
    assert not entry.evaluate("each => each.open")
    link.click()
    opened.wait_for_function("id => document.querySelector(id).open", arg=link.get_attribute("href"))
    assert entry.locator("thead th").all_inner_texts()[0] and entry.locator("summary").inner_text()[:3] != "res"


def test_what_scrolls_can_be_reached_by_keys_and_every_picture_is_described(opened):
    assert opened.evaluate("[...document.querySelectorAll('.wide')].every(box => (box.scrollWidth > box.clientWidth) === "
                           "(box.tabIndex === 0))")
    titles = opened.evaluate("[...document.querySelectorAll('h3')].map(each => each.textContent)")
    texts = opened.evaluate("[...document.images].map(each => each.alt)")
    assert len(texts) > 5 and all(len(text) > 40 and text not in titles for text in texts)
    levels = opened.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(each => Number(each.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert opened.evaluate("document.documentElement.lang") == "en"
    assert all(opened.locator(landmark).count() == 1 for landmark in ("header", "nav", "main", "footer"))


@pytest.mark.parametrize(("paper", "width"), [("A4", 210), ("Letter", 216)])
def test_on_paper_nothing_is_cut(opened, paper, width, tmp_path):
    """Everything ends within the paper's margins of 14 mm, and is printed at its size."""
    opened.emulate_media(media="print")
    inner = round((width - 2 * 14) / 25.4 * 96)
    opened.set_viewport_size({"width": inner, "height": 1000})
    wide = opened.evaluate("""width => [...document.querySelectorAll('main *')].filter(each => each.checkVisibility()
      && each.getBoundingClientRect().right > width + 1).map(each => each.outerHTML.slice(0, 120))""", inner)
    assert wide == []
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = opened.pdf(path=tmp_path / "page.pdf", format=paper)
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) > 3


def test_without_scripts_it_reads_as_well(running, file):
    with look(running, *PHONE, java_script_enabled=False) as seen:
        seen.page.goto(file.as_uri())
        assert seen.page.locator("th button").count() == 0 and seen.page.locator("table.sortable").count() > 3
        assert seen.page.locator("h1").is_visible() and seen.faults() == []
