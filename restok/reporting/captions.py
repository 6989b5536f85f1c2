"""What the numbers of a table or figure were measured on: a sentence or two for its caption, the same wherever it is shown."""

from collections.abc import Iterable, Sequence

from restok.experiments import Item
from restok.experiments.items import MEASURED
from restok.reporting.inputs import Inputs
from restok.reporting.measured import Row, checkpoints, chosen_guidance, lowest, rows
from restok.reporting.run import chosen_candidate
from restok.reporting.tables.table import column, one

BEST = "fig5", "fig6", "codebook"        # show one checkpoint of one row: that of the best generation, with its first seed


def measured_on(inputs: Inputs, item: Item) -> str:
    """Images, features, references, checkpoints and seeds of what an item shows. Raises what its rows raise."""
    if set(MEASURED) & set(item.reads):
        return _evaluations(inputs, item)
    if "guidance" in item.reads:
        return _searches(inputs, item)
    source = "the model's own functions, with" if item.reads else "the settings of"
    return f"Nothing is measured: from {source} params/{inputs.tree.sheet.run}.yaml."


def _evaluations(inputs: Inputs, item: Item) -> str:
    if item.name in BEST:
        return _best(inputs, item.name, lowest(checkpoints(inputs.tree, item.name)))
    shown = rows(inputs.tree, item.name)
    about = [row.about for row in shown]
    said = {name: one(column(about, name)) for name in about[0]}
    originals, against = _originals(shown), said["reconstruction_reference"]
    measured = [f"{said['rfid_metric']} of {_counts(about, 'reconstruction')} reconstructions {originals}, against "
                f"{'these images themselves' if originals == f'of {against}' else against}"]
    if said["gfid_metric"]:
        again = ", and of as many without guidance," * any(row.first.unguided is not None for row in shown)
        measured.append(f"{said['gfid_metric']} of {_counts(about, 'generation')} class-conditional samples{again} against "
                        f"{said['generation_reference']}")
    labels = _checkpoints(row.first.label for row in shown)
    if item.name == "table1" and len(shown) > 1:
        labels += f", of each row that of the lowest {said['gfid_metric']}"
    return f"Measured on {_images(inputs)}: {'; '.join(measured)}. Features: {said['features']}. {labels}; {_seeds(shown)}."


def _best(inputs: Inputs, item: str, row: Row) -> str:
    first, trial, said = row.first, row.trials[0], f"Measured on {_images(inputs)}."
    if item == "codebook":
        said = f"Measured on {_images(inputs)}: {first.reconstruction['n']:,} reconstructions {_originals([row])}."
    elif item == "fig6":
        guidance, search = chosen_guidance(inputs.tree, trial, first.label)
        start = f" from {guidance.start:g} on" * (guidance.schedule == "step")
        said = (f"Drawn by a model of {_images(inputs)}, with guidance as {'searched' if search else 'set'}: "
                f"{guidance.schedule}, at most {guidance.scale:g}{start}.")
    return f"{said} {_checkpoints([first.label])}, of the lowest generation {first.metric('gfid')}; {_seed([trial.seed])}."


def _searches(inputs: Inputs, item: Item) -> str:
    """Table 6, and the figure of its search."""
    entries = [entry for entry in inputs.tree.sheet.feeding(item.name) if not entry.trial.tokenizer]
    found = [record for _, trial, label in entries if (record := chosen_guidance(inputs.tree, trial, label)[1])]
    labels = f"{_checkpoints(entry.label for entry in entries)}; {_seed(entry.trial.seed for entry in entries)}."
    if not found:
        return f"Nothing was searched: params/{inputs.tree.sheet.run}.yaml sets the guidance. {labels}"
    metric, counts = one(record["metric"] for record in found), one(f"{chosen_candidate(record)['n']:,}" for record in found)
    known = [record for record in found if "reference" in record and "features" in record]     # earlier searches do not say
    against = one(f" against {record['reference']['name']} ({record['reference']['digest'][:12]})" for record in known)
    features = one(f"Features: {record['features']['name']}." for record in known)
    return (f"Measured on {_images(inputs)}: {metric} of {counts} class-conditional samples{against}, drawn from another seed "
            f"than the final ones. {features} {labels}")


def _images(inputs: Inputs) -> str:
    """'digits at 16 x 16 pixels'."""
    size = inputs.params.tokenizer.image_size
    return f"{inputs.params.data.name} at {size} x {size} pixels"


def _counts(about: Sequence[dict], protocol: str) -> str:
    return one(f"{each[f'{protocol}_n']:,}" for each in about if each[f"{protocol}_n"] != "")


def _originals(shown: Sequence[Row]) -> str:
    """'of the validation split (9c1f...)': what was reconstructed."""
    originals = [row.first.reconstruction["originals"] for row in shown]
    known = one(f"{each['name']} ({each['digest'][:12]})" for each in originals if each)
    return f"of {known}" if known else "of images that the results do not name"


def _checkpoints(labels: Iterable[str]) -> str:
    labels = list(dict.fromkeys(labels))
    return f"Checkpoint{'s' * (len(labels) > 1)} {', '.join(labels)}"


def _seeds(shown: Sequence[Row]) -> str:
    return _seed(trial.seed for row in shown for trial in row.trials)


def _seed(seeds: Iterable[int]) -> str:
    seeds = list(dict.fromkeys(seeds))
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
