"""Tables 1, 6 and 9, each a data frame whose every row names the file behind it."""

from pathlib import Path

import pandas as pd

from restok.config import Params
from restok.hierarchy import keep_probabilities
from restok.reporting.run import Record, ReportError, best, fault, read, require

RENAMED = {"rfid": "reconstruction_distance", "gfid": "generation_distance", "is": "score"}
TABLE1 = ["method", "family", "tokenizer_type", "tokenizer_params", "tokens", "reconstruction_distance",
          "generator_type", "generator_params", "steps", "generation_distance", "score", "precision", "recall",
          "features", "n", "notes", "source"]


def table1(published_csv: str | Path, run_dir: str | Path, params: Params, name: str) -> pd.DataFrame:
    """Table 1. The published systems, as printed, and below them this run's best checkpoint. Cells are text; unknown is blank.

    `features` says which network measured a row, and by which metrics: rows with different features do not compare.
    """
    if not Path(published_csv).is_file():
        raise ReportError(f"{published_csv}: missing; it comes with the repository: `git checkout {published_csv}`")
    published = read_csv(published_csv)
    unknown = set(published.columns) ^ ((set(TABLE1) - set(RENAMED.values()) - {"features", "n"}) | set(RENAMED))
    if unknown:
        raise ReportError(f"{published_csv}: missing or unknown columns {sorted(unknown)}")
    rows = published.rename(columns=RENAMED).assign(features="Inception (FID, IS)", n="")
    return pd.concat([rows, pd.DataFrame([_own_row(Path(run_dir), params, name)])], ignore_index=True)[TABLE1]


def table6(run_dir: str | Path, params: Params) -> pd.DataFrame:
    """Table 6. The guidance that the search chose for each tokenizer checkpoint, and the distance that chose it."""
    rows = []
    for label in params.tokenizer_training.checkpoints:
        found = read(Path(run_dir) / "guidance" / f"{label}.json")
        chosen = _chosen(found)
        rows.append({
            "checkpoint": label,
            "schedule": chosen["schedule"],
            "start_ratio": chosen["start"],
            "max_scale": chosen["scale"],
            "top_k": found["top_k"],
            "top_p": found["top_p"],
            "metric": found["metric"],
            "distance": chosen[found["metric"]],
            "n": chosen["n"],
            "candidates": len(found["candidates"]),
            "source": found.path.as_posix(),
        })
    return pd.DataFrame(rows)


def table9(params: Params) -> pd.DataFrame:
    """Table 9. How often nested dropout keeps how many latents, exactly and as a decimal."""
    settings = params.tokenizer
    kept = keep_probabilities(settings.latents, settings.keep_minimum, settings.drop_probability)
    return pd.DataFrame([{"tokens": tokens, "probability": str(p), "decimal": float(p)} for tokens, p in kept.items()])


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Write `frame` with its column names, making the folder where it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)


def read_csv(path: str | Path) -> pd.DataFrame:
    """A table whose cells are text, exactly as written; a blank cell is an empty string."""
    return pd.read_csv(require(path), dtype=str, keep_default_na=False)


def number(value: float | None) -> str:
    """Four significant digits, 18.12 or 0.7100; None, a metric that the features do not have, is blank."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1e3 else f"{value:#.4g}"


def count(parameters: int) -> str:
    """Parameters as Table 1 prints them, to three digits: 662M, 1.33B, 84.5K."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= size:
            return f"{parameters / size:.{3 - len(str(int(parameters / size)))}f}{unit}"
    return str(parameters)


def _own_row(run_dir: Path, params: Params, name: str) -> dict[str, str]:
    chosen = best(run_dir, params)
    tokenizer = read(run_dir / "tokenizer" / chosen.label / "metrics.json")
    generator = read(run_dir / "generator" / chosen.label / "metrics.json")
    measured = chosen.generation["metrics"]
    return {
        "method": f"ResTok, this run ({name}, {chosen.label})",
        "family": "query",
        "tokenizer_type": "VQ",
        "tokenizer_params": count(tokenizer["parameters"]),
        "tokens": str(params.tokenizer.latents),
        "reconstruction_distance": number(chosen.reconstruction["metrics"][chosen.distance]),
        "generator_type": "AR" if params.generator.ntp in ("all", params.generator.tokens) else "HAR",
        "generator_params": count(generator["parameters"]),
        "steps": str(generator["sampling_steps"]),
        "generation_distance": number(measured[chosen.distance]),
        "score": number(measured[chosen.score]),
        "precision": number(measured["precision"]),
        "recall": number(measured["recall"]),
        "features": chosen.features,
        "n": str(chosen.generation["n"]),
        "notes": f"reconstruction of {chosen.reconstruction['n']} images; against {chosen.generation['reference']['name']}",
        "source": f"{chosen.reconstruction.path.as_posix()}; {chosen.generation.path.as_posix()}",
    }


def _chosen(found: Record) -> Record:
    """The chosen setting's own entry among the candidates, which carries what was measured."""
    for candidate in found["candidates"]:
        if all(candidate[key] == found["chosen"][key] for key in ("schedule", "scale", "start")):
            return candidate
    raise fault(found.path, "the chosen setting is not among the candidates")
