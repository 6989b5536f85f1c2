"""Tables 2 to 5: the ablations, and whether they are in the paper's order."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from restok.experiments import Sheet
from restok.hierarchy import scale_grids
from restok.reporting.measured import Row, rows
from restok.reporting.tables.orders import agreement
from restok.reporting.tables.published import Published


def ablation(item: str, results: Path, sheet: Sheet, published: Published, orders_csv: str | Path) -> pd.DataFrame:
    """Table 2, 3, 4 or 5 ('table2', ...): one row of the sheet a row, those which a user adds to it included.

    Columns: `setting` and `description`; rfid, entropy (bits), usage (of the codebook, %) and gfid, each the mean over seeds
    with `_sd`, or of one seed with the interval `_low`, `_high`, and as printed `_paper`; `steps` of the generator; `agrees`,
    the paper's orders. `rfid_metric` and `gfid_metric` say what was measured: FID only of Inception's features.
    """
    measured = rows(results, sheet, item)
    agrees = agreement(item, measured, orders_csv, published.rows(item))
    return pd.DataFrame([_row(item, row, published, agrees) for row in measured])


def _row(item: str, row: Row, published: Published, agrees: dict[str, str]) -> dict:
    paper = published.beside(item, row.key, ("rfid", "entropy", "usage", "gfid", "steps"))
    return {
        "setting": row.key,
        "description": ABLATIONS[item](row),
        "tokens": row.params.tokenizer.latents,
        **row.summary("rfid"), "rfid_paper": paper["rfid_paper"],
        **row.summary("entropy"), "entropy_paper": paper["entropy_paper"],
        "usage": row.summary("usage", scale=100)["usage"], "usage_paper": paper["usage_paper"],
        **row.summary("gfid"), "gfid_paper": paper["gfid_paper"],
        "steps": row.first.generator["sampling_steps"] if row.first.generator else "", "steps_paper": paper["steps_paper"],
        "agrees": agrees.get(row.key, ""),
        **row.about,
    }


def _design(row: Row) -> str:
    t = row.params.tokenizer
    levels = f"{len(t.levels)} levels" if t.latent_hierarchy else "no levels"
    scales = f"S = {t.scales}, {'image' if t.merge_residual else 'no image'} residual" if t.scales > 1 else "S = 1"
    return f"{t.latent_init} latents, {levels}; {scales}"


def _pooling(row: Row) -> str:
    t = row.params.tokenizer
    tokens = (str(height * width) for height, width in scale_grids(t.grid, t.merge_kernels))
    return f"factor {t.merge_factor}: {'-'.join(tokens)} image tokens"


def _alignment(row: Row) -> str:
    if row.trials[0].tokenizer:
        return "finished weights"
    weights = row.params.objective.alignment
    return f"weights: encoder {weights.encoder:g}, decoder {weights.decoder:g}"


def _prediction(row: Row) -> str:
    if row.first.generator is None:
        return "no generator"
    generator = row.params.generator
    single, groups, steps = generator.ntp, generator.groups, len(generator.groups)
    if steps == generator.tokens:
        return f"vanilla autoregression, {steps} steps"
    return f"{single} next-token prediction{'s' * (single > 1)}, then groups up to {max(groups)}: {steps} steps"


ABLATIONS: dict[str, Callable[[Row], str]] = {       # by item: what sets its rows apart
    "table2": _design, "table3": _pooling, "table4": _alignment, "table5": _prediction}
