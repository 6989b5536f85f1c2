"""Draws the graphs of the pages while their site is made, so that no page loads a program from elsewhere to draw them."""

import re
from itertools import pairwise
from statistics import mean

Arrow = tuple[str, str]
Place = str | tuple[Arrow, int]                     # a box, or where an arrow crosses a row
WIDTH, HEIGHT, GAP, DOWN = 172, 28, 20, 58          # of a box; between places of a row; from row to row


def on_page_markdown(markdown: str, **_) -> str:
    """MkDocs calls it with the text of each page."""
    return re.sub(r"^```mermaid\nflowchart LR\n(.*?)^```$", lambda block: picture(read(block[1])), markdown,
                  flags=re.MULTILINE | re.DOTALL)


def read(text: str) -> list[Arrow]:
    return [(start, end) for start, end in (line.strip().split(" --> ") for line in text.splitlines())]


def depths(arrows: list[Arrow]) -> dict[str, int]:
    """The row of each box: below all that point to it; where none does, just above the first that it points to."""
    depth = {name: 0 for arrow in arrows for name in arrow}
    for _ in depth:
        for start, end in arrows:
            depth[end] = max(depth[end], depth[start] + 1)
    first = {start: min(depth[end] for name, end in arrows if name == start) - 1 for start, _ in arrows}
    return depth | {name: first[name] for name in depth.keys() - {end for _, end in arrows}}


def ways(arrows: list[Arrow], depth: dict[str, int]) -> list[list[Place]]:
    """Each arrow from row to row."""
    return [[start, *(((start, end), row) for row in range(depth[start] + 1, depth[end])), end] for start, end in arrows]


def wide(place: Place) -> int:
    return WIDTH if isinstance(place, str) else 0


def spread(row: list[Place]) -> dict[Place, float]:
    """Side by side, around the middle of the picture."""
    widths = [wide(place) for place in row]
    left = -(sum(widths) + GAP * (len(row) - 1)) / 2
    return {place: left + sum(widths[:number]) + GAP * number + widths[number] / 2 for number, place in enumerate(row)}


def places(ways: list[list[Place]], depth: dict[str, int]) -> dict[Place, tuple[float, int]]:
    """Across and down. Rows are put in the order of their neighbours above, then of those below, a few times over."""
    steps = [step for way in ways for step in pairwise(way)]
    rows: list[list[Place]] = [[] for _ in range(max(depth.values()) + 1)]
    for place in dict.fromkeys(place for way in ways for place in way):
        rows[depth[place] if isinstance(place, str) else place[1]].append(place)
    x = {place: across for row in rows for place, across in spread(row).items()}
    for turn in range(8):
        for row in rows if turn % 2 == 0 else rows[::-1]:
            near = {place: [x[step[turn % 2]] for step in steps if step[1 - turn % 2] == place] or [x[place]] for place in row}
            row.sort(key=lambda place, near=near: mean(near[place]))
            x |= spread(row)
    return {place: (x[place], DOWN * number) for number, row in enumerate(rows) for place in row}


def line(way: list[Place], at: dict[Place, tuple[float, int]]) -> str:
    """From the lower edge of a box to the upper edge of another, in curves that leave and enter upright."""
    points = [at[place] for place in way]
    ends = [(x, y + HEIGHT // 2) for x, y in points[:-1]], [(x, y - HEIGHT // 2) for x, y in points[1:]]
    curves = [f"L{a:g},{b} C{a:g},{(b + d) // 2} {c:g},{(b + d) // 2} {c:g},{d}" for (a, b), (c, d) in zip(*ends, strict=True)]
    return f'<path d="M{" ".join(curves)[1:]}" marker-end="url(#head)"/>'


def picture(arrows: list[Arrow]) -> str:
    depth = depths(arrows)
    paths = ways(arrows, depth)
    at = places(paths, depth)
    left, *_, right = sorted(x + side for place, (x, _) in at.items() for side in (-wide(place) / 2, wide(place) / 2))
    boxes = [f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="4"/>'
             f'<text x="{x:g}" y="{y + 4}">{place}</text>' for place, (x, y) in at.items() if isinstance(place, str)]
    said = "; ".join(f"{start} before {end}" for start, end in arrows)
    width, height = right - left + GAP, max(y for _, y in at.values()) + DOWN
    return (f'<div class="graph"><svg role="img" aria-label="{said}" width="{width:g}" height="{height}" '
            f'viewBox="{left - GAP / 2:g} {-DOWN // 2} {width:g} {height}">'
            '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0,0 L8,4 L0,8 z"/></marker>{"".join(line(way, at) for way in paths)}{"".join(boxes)}</svg></div>')
