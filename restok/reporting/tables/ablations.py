"""Tables 2 to 5: the ablations, and whether they are in the paper's order."""

from collections.abc import Callable, Sequence
from functools import partial

from restok.hierarchy import scale_grids
from restok.reporting.cells import frame, number
from restok.reporting.inputs import Inputs
from restok.reporting.measured import Row, rows
from restok.reporting.tables.orders import Claim, claims, explained, joined, unprinted
from restok.reporting.tables.table import Rows, Table, column, how, one, side_by_side, with_paper

PRINTED = ("rfid", "entropy", "usage", "gfid", "steps")


def ablation(inputs: Inputs, item: str, describe: Callable[[Row], str]) -> Table:
    """One row of the sheet a row, those which a user adds to it included; `describe` says what sets rows apart.

    Columns: `setting` and `description`; rfid, entropy (bits), usage (of the codebook, %) and gfid, each the mean over seeds
    with `_sd`, or of one seed with the interval `_low`, `_high`, and as printed `_paper`; `steps` of the generator; `agrees`,
    the paper's orders. `rfid_metric` and `gfid_metric` say what was measured: FID only of Inception's features.
    """
    measured = rows(inputs.tree, item)
    said = claims(inputs, item, measured)
    cells = [_row(inputs, item, row, describe(row), joined(said, row.key)) for row in measured]
    return Table(frame(cells), *_view(cells, said))


def _row(inputs: Inputs, item: str, row: Row, description: str, agrees: str) -> dict:
    paper = inputs.published.beside(item, row.key, PRINTED)
    usage = row.measure("usage").value
    return {
        "setting": row.key,
        "description": description,
        "tokens": row.params.tokenizer.latents,
        "rfid": row.measure("rfid"), "rfid_paper": paper["rfid_paper"],
        "entropy": row.measure("entropy"), "entropy_paper": paper["entropy_paper"],
        "usage": None if usage is None else 100 * usage, "usage_paper": paper["usage_paper"],
        "gfid": row.measure("gfid"), "gfid_paper": paper["gfid_paper"],
        "steps": row.first.generator["sampling_steps"] if row.first.generator else "", "steps_paper": paper["steps_paper"],
        "agrees": agrees,
        **row.about,
    }


def _view(cells: Rows, said: Sequence[Claim]) -> tuple[list, list[str], tuple[int, ...]]:
    own = [not any(row[f"{name}_paper"] for name in PRINTED) for row in cells]
    steps = side_by_side("steps", column(cells, "steps"), "steps", column(cells, "steps_paper"))
    columns = [
        ("setting", column(cells, "setting")), ("what it is", column(cells, "description")),
        *([("changes", [row["changes"] if mine else "" for row, mine in zip(cells, own, strict=True)])] if any(own) else []),
        *(steps if len(steps) > 1 else []),                          # the description says what sets the paper's rows apart
        *with_paper(cells, "rfid", one(column(cells, "rfid_metric")) + " ↓"),
        *with_paper(cells, "entropy", "entropy (bits) ↓"),
        ("codebook use (%)", [number(usage) for usage in column(cells, "usage")]),
        *with_paper(cells, "gfid", one(column(cells, "gfid_metric")) + " ↓"),
        ("the paper's order", column(cells, "agrees"))]
    printed = one(column(cells, "usage_paper"))
    paper = [f"Codebook use in the paper: {printed} % in each of its rows."] if printed else []
    notes = [*how(cells), *unprinted(cells, said), *paper, *explained(said)]
    return columns, notes, tuple(i for i, mine in enumerate(own) if mine)


def _design(row: Row) -> str:
    tokenizer = row.params.tokenizer
    levels = f"{len(tokenizer.levels)} levels" if tokenizer.latent_hierarchy else "no levels"
    residual = "image residual" if tokenizer.merge_residual else "no image residual"
    scales = f"S = {tokenizer.scales}, {residual}" if tokenizer.scales > 1 else "S = 1"
    return f"{tokenizer.latent_init} latents, {levels}; {scales}"


def _pooling(row: Row) -> str:
    tokenizer = row.params.tokenizer
    tokens = (str(height * width) for height, width in scale_grids(tokenizer.grid, tokenizer.merge_kernels))
    return f"factor {tokenizer.merge_factor}: {'-'.join(tokens)} image tokens"


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


table2 = partial(ablation, describe=_design)
table3 = partial(ablation, describe=_pooling)
table4 = partial(ablation, describe=_alignment)
table5 = partial(ablation, describe=_prediction)
