"""search-guidance: the choice among measured candidates. Files only, no tensors."""

from pathlib import Path

from restok.config import Guidance
from restok.files import read_json, write_json
from restok.params import parse


class SearchError(ValueError):
    """Candidates that do not compare; the message names the file and the remedy."""


def search_guidance(candidates: list[Path], out: Path) -> dict:
    """Choose the candidate with the lowest distance. Writes it with all that were tried. Raises SearchError where candidates
    were measured with other features, references or sampling than the first."""
    rows = [read_json(path) for path in candidates]
    common = ("metric", "features", "reference", "sampling")
    for path, row in zip(candidates, rows, strict=True):
        for key in common:
            if row[key] != rows[0][key]:
                raise SearchError(f"{path}: its {key} differ from those of {candidates[0]}; delete both and score them again")
    metric = rows[0]["metric"]
    best = min(rows, key=lambda row: row[metric])
    result = {"chosen": {key: best[key] for key in ("schedule", "scale", "start")}, metric: best[metric],
              "top_k": best["sampling"]["top_k"], "top_p": best["sampling"]["top_p"],
              **{key: rows[0][key] for key in common},
              "candidates": [{key: value for key, value in row.items() if key not in common} for row in rows]}
    write_json(out, result)
    return result


def read_guidance(path: Path) -> Guidance:
    """The setting that a search chose."""
    return parse(Guidance, read_json(path)["chosen"], str(path))
