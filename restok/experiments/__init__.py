"""What is run and shown: the sample sheet (params/experiments.tsv), the tables and figures, the one tree of results."""

from restok.experiments.items import ITEMS, Item
from restok.experiments.places import Tree
from restok.experiments.sheet import COLUMNS, load_sheet, load_trial
from restok.experiments.trials import Feed, Sheet, Trial

__all__ = ["COLUMNS", "ITEMS", "Feed", "Item", "Sheet", "Tree", "Trial", "load_sheet", "load_trial"]
