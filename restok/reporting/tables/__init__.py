"""Every table: a data frame whose rows name the files behind them, and how a reader sees it."""

from restok.reporting.tables.ablations import ABLATIONS, ablation
from restok.reporting.tables.cells import count, number, read_csv, spread, write_csv
from restok.reporting.tables.published import Published
from restok.reporting.tables.settings import settings, table9
from restok.reporting.tables.switches import release_switches
from restok.reporting.tables.systems import table1, table6, table10

__all__ = ["ABLATIONS", "Published", "ablation", "count", "number", "read_csv", "release_switches", "settings", "spread",
           "table1", "table6", "table9", "table10", "write_csv"]
