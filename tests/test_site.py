"""The site of docs/: nothing is loaded from elsewhere, and graphs are drawn. check_site.py looks at it in a browser."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from conftest import ROOT

LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Parts(HTMLParser):
    """What a page loads, and to what it links."""

    def __init__(self):
        super().__init__()
        self.loaded, self.links = [], []

    def handle_starttag(self, tag, attributes):
        said = dict(attributes)
        if name := said.get(LOADED.get(tag)):
            self.loaded.append(name)
        if tag == "a" and "href" in said:
            self.links.append(said["href"])


def parts(page):
    found = Parts()
    found.feed(page.read_text())
    return found


def test_each_page_is_in_the_site_and_loads_what_lies_there_alone(site):
    pages = {path.relative_to(site).with_suffix(".md").as_posix() for path in site.rglob("*.html")} - {"404.md"}
    assert pages == {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    for name in pages:
        page = (site / name).with_suffix(".html")
        loaded = parts(page).loaded
        assert len(loaded) > 5
        for address in loaded:
            assert "//" not in address and (page.parent / address.partition("?")[0]).exists(), address
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\(\W*(?:https?:)?//|@import", style.read_text()), style
    assert (site / "search/search_index.js").is_file() and not list(site.rglob("*.py"))


def test_each_page_links_to_all_others(site):
    """From the list beside its text."""
    names = {path.name for path in site.glob("*.html")} - {"404.html"}
    for name in names:
        assert names - {name} <= {link.partition("#")[0] for link in parts(site / name).links}, name


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


@pytest.fixture
def graph(site):
    """Of the rules: the corners of the boxes by name, and the ends of the lines."""
    said = (site / "cluster.html").read_text()
    drawn = re.search(r'<div class="graph">.*?</div>', said, re.DOTALL)[0]
    boxes = {name: numbers(box) for box, name in re.findall(r"<rect ([^>]*?) rx.*?/><text [^>]*>(\w+)</text>", drawn)}
    return boxes, [numbers(path) for path in re.findall(r'<path d="([^"]*)" marker', drawn)]


def test_graphs_are_drawn_without_a_box_on_another_and_with_each_line_from_box_to_box(graph):
    boxes, lines = graph
    text = re.search(r"```mermaid\nflowchart LR\n(.*?)```", (ROOT / "docs/cluster.md").read_text(), re.DOTALL)[1]
    arrows = sorted(tuple(line.strip().split(" --> ")) for line in text.splitlines())
    assert {name for arrow in arrows for name in arrow} == set(boxes)
    below = {(x + width / 2, y + height): name for name, (x, y, width, height) in boxes.items()}
    above = {(x + width / 2, y): name for name, (x, y, width, _) in boxes.items()}
    assert sorted((below[tuple(line[:2])], above[tuple(line[-2:])]) for line in lines) == arrows
    assert all(line[1] < line[-1] for line in lines)
    rows = {}
    for x, y, width, _ in boxes.values():
        rows.setdefault(y, []).append((x, x + width))
    assert all(right < left for row in rows.values() for (_, right), (left, _) in pairwise(sorted(row)))
