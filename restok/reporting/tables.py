"""Tables 1, 6 and 9, each a data frame whose every row names the file behind it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from restok.config import Params
from restok.files import atomic_file
from restok.hierarchy import keep_probabilities
from restok.reporting.run import ReportError, best, chosen_candidate, read, require, require_metric

RENAMED = {"rfid": "reconstruction_distance", "gfid": "generation_distance", "is": "score"}
TABLE1 = ["method", "family", "tokenizer_type", "tokenizer_params", "tokens", "reconstruction_distance",
          "generator_type", "generator_params", "steps", "generation_distance", "score", "precision", "recall",
          "intervals", "features", "n", "notes", "source"]
OURS = {"intervals", "features", "n"}    # columns that published.csv does not have


def table1(published_csv: str | Path, run_dir: str | Path, params: Params, name: str) -> pd.DataFrame:
    """Table 1. The published systems, as printed, and below them this run's best checkpoint. Cells are text; unknown is blank.

    `features` says which network measured a row, and by which metrics: rows with different features do not compare.
    `intervals` are the 95 % intervals of this run's values.
    """
    if not Path(published_csv).is_file():
        raise ReportError(f"{published_csv}: missing; it comes with the repository: `git checkout {published_csv}`")
    published = read_csv(published_csv)
    unknown = set(published.columns) ^ ((set(TABLE1) - set(RENAMED.values()) - OURS) | set(RENAMED))
    if unknown:
        raise ReportError(f"{published_csv}: missing or unknown columns {sorted(unknown)}")
    rows = published.rename(columns=RENAMED).assign(intervals="", features="Inception (rFID, FID, IS)", n="")
    return pd.concat([rows, pd.DataFrame([_own_row(Path(run_dir), params, name)])], ignore_index=True)[TABLE1]


def table6(run_dir: str | Path, params: Params) -> pd.DataFrame:
    """Table 6. The guidance that the search chose for each tokenizer checkpoint, and the distance that chose it."""
    rows = []
    for label in params.tokenizer_training.checkpoints:
        found = read(Path(run_dir) / "guidance" / f"{label}.json")
        chosen, metric = chosen_candidate(found), found["metric"]
        rows.append({
            "checkpoint": label,
            "schedule": chosen["schedule"],
            "start_ratio": chosen["start"],
            "max_scale": chosen["scale"],
            "top_k": found["top_k"],
            "top_p": found["top_p"],
            "metric": metric,
            "distance": require_metric(chosen, metric),
            "interval": spread(chosen["intervals"][metric]),
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
    with atomic_file(path) as partial:
        frame.to_csv(partial, index=False)


def read_csv(path: str | Path) -> pd.DataFrame:
    """A table whose cells are text, exactly as written; a blank cell is an empty string."""
    return pd.read_csv(require(path), dtype=str, keep_default_na=False)


def number(value: float | None) -> str:
    """Four significant digits, 18.12 or 0.7100; None, a metric that was not measured, is blank."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1e3 else f"{value:#.4g}"


def spread(interval: Sequence[float] | None, show: Callable[[float], str] = number) -> str:
    """An interval, '2.280 to 2.400'; blank where there is none."""
    return " to ".join(map(show, interval or ()))


def count(parameters: int) -> str:
    """Parameters as Table 1 prints them, to three digits: 662M, 1.33B, 84.5K."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= size:
            return f"{parameters / size:.{3 - len(str(int(parameters / size)))}f}{unit}"
    return str(parameters)


def _as_adm(measured: dict[str, float | None]) -> str:
    """Precision and recall as the published ones are computed, where they were measured so."""
    if "precision adm-fp16" not in measured or measured["precision adm-fp16"] is None:
        return ""
    return (f"as ADM rounds distances, precision {number(measured['precision adm-fp16'])}, recall "
            f"{number(measured['recall adm-fp16'])}; ")


def _own_row(run_dir: Path, params: Params, name: str) -> dict[str, str]:
    chosen = best(run_dir, params)
    tokenizer = read(run_dir / "tokenizer" / chosen.label / "metrics.json")
    generator = read(run_dir / "generator" / chosen.label / "metrics.json")
    reconstruction, generation = chosen.reconstruction, chosen.generation
    sure = {chosen.reconstruction_distance: reconstruction["intervals"][chosen.reconstruction_distance],
            **{metric: generation["intervals"][metric] for metric in (chosen.distance, chosen.score, "precision", "recall")}}
    return {
        "method": f"ResTok, this run ({name}, {chosen.label})",
        "family": "query",
        "tokenizer_type": "VQ",
        "tokenizer_params": count(tokenizer["parameters"]),
        "tokens": str(params.tokenizer.latents),
        "reconstruction_distance": number(reconstruction["metrics"][chosen.reconstruction_distance]),
        "generator_type": "AR" if params.generator.ntp in ("all", params.generator.tokens) else "HAR",
        "generator_params": count(generator["parameters"]),
        "steps": str(generator["sampling_steps"]),
        "generation_distance": number(generation["metrics"][chosen.distance]),
        "score": number(generation["metrics"][chosen.score]),
        "precision": number(generation["metrics"]["precision"]),
        "recall": number(generation["metrics"]["recall"]),
        "intervals": "; ".join(f"{metric} {spread(interval)}" for metric, interval in sure.items() if interval),
        "features": chosen.features,
        "n": str(generation["n"]),
        "notes": f"{_as_adm(generation['metrics'])}reconstruction of {reconstruction['n']} images; against "
                 f"{generation['reference']['name']}",
        "source": f"{reconstruction.path.as_posix()}; {generation.path.as_posix()}",
    }
