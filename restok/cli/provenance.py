"""The verb that walks from a result back to the images."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from restok.cli.base import argument, option, output, say, verb

if TYPE_CHECKING:
    from restok.reporting.provenance import Input, Node, Walk

File = argument(Path, "A report, such as reports/table2.csv, or any other file or folder that restok made.")
AsJson = option(bool, "Print everything as JSON, on standard output.", "--json")
Full = option(bool, "Hold the digests of packed images and training states against their files, too, not their lengths alone.")

WIDE = 200                               # characters of a line where no terminal limits them


@dataclass
class Lines:
    """What a tree's lines go by: their width, the settings that tell artifacts of a kind apart, and what was told already."""

    width: int
    telling: dict[str, set[str]]
    shown: set[int] = field(default_factory=set)


@verb
def provenance(file: File, as_json: AsJson = False, full: Full = False) -> None:
    """Show what a result was made of, back to the images: digest, settings, commit and cost of each.

    Each is checked on the way; what no longer matches is named, and ends it with 1."""
    from restok.reporting.provenance import Walk
    walk = Walk(file, full=full)
    if as_json:
        print(json.dumps(walk.as_json(), indent=2))
    else:
        _show(walk)
    walk.require_matching()
    say(walk.summary())


def _show(walk: "Walk") -> None:
    from restok.reporting.provenance import Input, telling
    console = output(WIDE)
    lines = Lines(min(console.width, WIDE), telling(walk.nodes.values()))
    top = Tree(_text(Input({}, walk.top), lines))
    _grow(top, walk.top, lines)
    console.print(top)


def _grow(tree: Tree, node: "Node", lines: Lines) -> None:
    files = [each for each in node.inputs if each.node.path]
    for each in files or node.inputs:                    # a digest alone says something where there is no more to say
        before = id(each.node) in lines.shown
        branch = tree.add(_text(each, lines))
        if not before:
            _grow(branch, each.node, lines)


def _text(named: "Input", lines: Lines) -> Text:
    from restok.reporting.provenance import line, short_settings
    node, about, text = named.node, line(named.node, named.digests), Text()
    for words, style in ((about["role"], "dim"), (about["path"], "bold red" if node.faults else "bold"),
                         (about["digest"], "cyan")):
        text.append(f"{words} " * bool(words), style)
    if id(node) in lines.shown and node.artifact:
        text.append(" as above", "dim")
        return text
    lines.shown.add(id(node))
    text.append(f" {'  '.join(about[key] for key in ('verb', 'commit', 'cost') if about[key])}")
    if node.artifact:
        first = lines.telling.get(node.artifact.kind, ())
        settings = short_settings(node.artifact.facts["settings"], lines.width - 24, first)
        text.append(f"\n  {settings}" * bool(settings), "dim")
    for fault in node.faults:
        text.append(f"\n  FAULT {fault.path}: {fault.what}", "red")
    return text
