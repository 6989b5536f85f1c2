"""params/experiments.tsv, the sample sheet: one row a run."""

from restok.experiments.sheet import COLUMNS, load_sheet, load_trial
from restok.experiments.trials import Feed, Sheet, Trial

__all__ = ["COLUMNS", "Feed", "Sheet", "Trial", "load_sheet", "load_trial"]
