"""Tables 7, 8 and 9: the paper's settings beside the parameter file's."""

import json
import re
from typing import Any

from restok.config.text import ConfigError, read_yaml
from restok.hierarchy import keep_probabilities
from restok.reporting.cells import frame, short
from restok.reporting.inputs import Inputs
from restok.reporting.run import ReportError
from restok.reporting.tables.table import Table, column


def settings(inputs: Inputs, item: str) -> Table:
    """Table 7 or 8 ('table7'): each setting that the paper states, by our parameter's path, with its value there and here."""
    tree, published, rows = inputs.params.model_dump(mode="json"), inputs.published, []
    for path in published.rows(item):
        for name in published.quantities(item, path):
            paper, ours = published.value(item, path, name), _find(tree, path)
            rows.append({"name": name, "setting": path, "paper": paper, "ours": "" if ours is None else _shown(ours),
                         "same": "yes" if ours == _read(paper, f"{published.path}: {item}, {path}") else "no",
                         "source": published.source(item, path, name)})
    titles = {"name": "setting", "paper": "paper", "ours": "ours", "same": "same", "setting": "in the parameter file"}
    return Table(frame(rows), [(title, column(rows, name)) for name, title in titles.items()])


def table9(inputs: Inputs, item: str) -> Table:
    """Table 9. How often nested dropout keeps how many latents, exactly and as a decimal, beside the paper's."""
    tokenizer = inputs.params.tokenizer
    kept = keep_probabilities(tokenizer.latents, tokenizer.keep_minimum, tokenizer.drop_probability)
    rows = [{"tokens": tokens, "probability": str(p), "decimal": float(p),
             "probability_paper": inputs.published.value(item, str(tokens), "probability")} for tokens, p in kept.items()]
    return Table(frame(rows), [
        ("tokens kept", column(rows, "tokens")), ("probability", column(rows, "probability")),
        ("in the paper, of 128", column(rows, "probability_paper")), ("as a decimal", [short(row["decimal"]) for row in rows])])


def _find(tree: Any, path: str) -> Any:
    """The value at a path such as 'data.crop_scale'; None where there is none. A key may hold dots itself, as those of
    experiments.ablation do."""
    if not isinstance(tree, dict) or path in tree:
        return tree[path] if isinstance(tree, dict) else None
    head, _, rest = path.partition(".")
    return _find(tree.get(head), rest)


def _read(value: str, where: str) -> Any:
    """What the paper states, as a parameter file would."""
    try:
        return read_yaml(value)
    except ConfigError as error:
        raise ReportError(f"{where}: {value!r} is {error}; mend it") from None


def _shown(value: Any) -> str:
    """As a parameter file writes it, on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_shown(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return value if isinstance(value, str) else re.sub(r"^(-?\d+)e", r"\1.0e", json.dumps(value))
