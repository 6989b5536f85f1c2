"""What people write: text as their editors save it, and YAML 1.2 as plain values."""

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from restok.errors import RestokError
from restok.files import FileError, require_no_pipe

DEEPEST, MOST = 50, 100_000      # levels and values of a file, its aliases written out; parameters have 5 and 300
CORE = "tag:yaml.org,2002:"
OLD_NUMBER = re.compile(r"[-+]?0b|.*_")           # 0b11 and 1_000, which ruamel takes as YAML 1.1 does; in 1.2 they are text


class ConfigError(RestokError):
    """A parameter file or sheet that cannot be used; the message names the file, the place or the key, and the remedy."""


def read_text(path: str | Path, what: str = "text") -> str:
    """A file in UTF-8, which some editors open with a mark. Raises ConfigError, which says what else it is in."""
    try:
        require_no_pipe(path)
        data = Path(path).read_bytes()
    except FileError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if b"\0" in data:
        raise ConfigError(f"{path}: not {what} in UTF-8, but in UTF-16 (a spreadsheet's 'Unicode text') or no text at all; "
                          "save it in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise ConfigError(f"{path}: not {what} in UTF-8: byte 0x{data[error.start]:02x} in line {line} is of another encoding, "
                          "such as Windows-1252 (ANSI) or Latin-1; save it in UTF-8") from None


def read_yaml(text: str) -> Any:
    """The one document of a text: dicts by the names of their keys as written, lists, str, int, float, bool, None; no two share
    a part. Raises ConfigError, with line and column, for what is no YAML 1.2, for keys that stand twice, and for what JSON
    could not hold: dates, other tags, an alias within its own anchor, more than MOST values."""
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise _fault(error.problem_mark, what, "not valid YAML: ") from None
    except YAMLError as error:
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"not valid YAML: nested deeper than {DEEPEST} levels") from None
    return None if root is None else _plain(root, yaml.constructor.construct_object, (), count(1))


def _plain(node: Node, construct: Any, within: tuple[Node, ...], values: Iterator[int]) -> Any:
    if node in within:
        raise _fault(node.start_mark, "an alias within it names it itself; write the value out", "circular: ")
    if len(within) == DEEPEST or next(values) > MOST:
        raise _fault(node.start_mark, f"deeper than {DEEPEST} levels, or with its aliases more than {MOST:,} values")
    if isinstance(node, ScalarNode):
        return _scalar(node, construct)
    if node.tag not in (f"{CORE}map", f"{CORE}seq"):
        raise _fault(node.start_mark, f"{node.tag}: leave the tag out")
    within = (*within, node)
    if not isinstance(node, MappingNode):
        return [_plain(each, construct, within, values) for each in node.value]
    lines, tree = {}, {}
    for key, value in node.value:
        if not isinstance(key, ScalarNode) or key.tag == f"{CORE}merge":
            raise _fault(key.start_mark, "a key is a plain name; YAML 1.2 merges no mappings, so write every one out")
        name = _text(key)
        if name in tree:
            raise _fault(key.start_mark, f"key {name!r} stands twice, first in line {lines[name]}; remove one")
        lines[name], tree[name] = key.start_mark.line + 1, _plain(value, construct, within, values)
    return tree


def _scalar(node: ScalarNode, construct: Any) -> str | int | float | bool | None:
    kind = str(node.tag).removeprefix(CORE)
    if kind == "timestamp":
        raise _fault(node.start_mark, f"{node.value} is a date; write text in quotes")
    if kind in ("str", "value", "merge") or (kind in ("int", "float") and OLD_NUMBER.match(node.value)):
        return _text(node)
    if kind not in ("int", "float", "bool", "null"):
        raise _fault(node.start_mark, f"{node.tag}: leave the tag out")
    try:
        return construct(node)
    except (ValueError, KeyError):
        raise _fault(node.start_mark, f"{node.value[:40]!r} is no {kind} that can be read") from None


def _text(node: ScalarNode) -> str:
    """JSON writes characters beyond 16 bits as the two halves of a pair, which YAML takes for two characters."""
    try:
        text = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _fault(node.start_mark, "half a character; write it whole") from None
    if "\0" in text:
        raise _fault(node.start_mark, "text with a null character; write it without")
    return text


def _fault(mark: StringMark, what: str, opening: str = "") -> ConfigError:
    return ConfigError(f"{opening}line {mark.line + 1}, column {mark.column + 1}: {what}")
