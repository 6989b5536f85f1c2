"""search-guidance: the choice among measured candidates. Files only, no tensors."""

from collections.abc import Callable
from pathlib import Path

from restok.config import Guidance
from restok.errors import RestokError
from restok.experiments.loading import load_model, load_record
from restok.experiments.records import Choice, Scored
from restok.files import sha256_file, write_json
from restok.files.artifact import Origin
from restok.metrics.results import require_comparable


class SearchError(RestokError):
    """Candidates that do not compare; the message names the file and the remedy."""


def search_guidance(candidates: list[Path], out: Path, show: Callable[[dict], None] = lambda _: None) -> dict:
    """Choose the candidate with the lowest distance. Writes it with all that were tried; `show` is given it, even where it
    cannot be written.

    Raises ComparisonError where candidates were measured with other features or references than the first, SearchError for
    other sampling, FileError for what is no candidate.
    """
    rows = [load_record(path, Scored) for path in candidates]
    require_comparable(list(zip(candidates, rows, strict=True)))
    metric = rows[0]["names"]["distance"]
    for path, row in zip(candidates, rows, strict=True):
        for key in ("sampling", "n"):
            if row[key] != rows[0][key]:
                raise SearchError(f"{path}: its {key} differ from those of {candidates[0]}; delete both and score them again")
        if row["metrics"][metric] is None:
            raise SearchError(f"{path}: {metric} was not measured: {row['refused'][metric]}; score it again")
    best = min(rows, key=lambda row: row["metrics"][metric])
    own = ("schedule", "scale", "start", "n", "metrics", "intervals", "refused", "warnings")
    result = {"chosen": {key: best[key] for key in own[:3]}, "metric": metric, metric: best["metrics"][metric],
              "top_k": best["sampling"]["top_k"], "top_p": best["sampling"]["top_p"],
              **{key: rows[0][key] for key in ("features", "reference", "sampling", "seed", "made")},
              "candidates": [{key: row[key] for key in own} for row in rows]}
    result = Origin("guidance", {}, {str(path): sha256_file(path) for path in candidates}).sealed(result)
    try:
        write_json(out, result)
    finally:
        show(result)
    return result


def read_guidance(path: Path) -> Guidance:
    """The setting that a search chose. Raises FileError."""
    return load_model(path, Choice).chosen
