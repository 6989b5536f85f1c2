"""The verbs that make tables, figures and the page from files, and the benchmarks."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restok.cli.base import AnyParams, Overrides, ParamsFile, argument, option, out_file, read, read_to_compute, verb
from restok.config.load import ConfigError
from restok.experiments import ITEMS, Item, Tree, load_sheet

if TYPE_CHECKING:
    from restok.reporting.inputs import Inputs

Experiments = option(Path | None, "Experiments, one row a run; else experiments.tsv beside the parameters.")
Reports = option(Path, "Folder with the tables and figures.")
TableFile = option(Path | None, "Of a table that is drawn: the file that `restok table` wrote.")
FigureParams = option(Path | None, "Parameter file; tables go without.", "--params", "-p")
FigureResults = option(Path | None, "Run folder, such as results/demo; tables go without.")
What = argument(str, "chain, sampling, metrics or codes.")
BenchSamples = option(int, "Samples, and references, of precision and recall; images whose codes are read.")
BenchImages = option(int, "Images that go through the Inception network.")
BatchSize = option(int, "Images a step; of sampling, the largest batch to try.")
Everything = option(bool, "Both trainings at each micro-batch that fits, compiled and not, then the chain and the loading of "
                    "images, of --params, else of params/imagenet256.yaml; write Markdown beside the JSON, too.", "--all")
Repeats = option(int, "Timed runs of each row, after a warm-up.")


def named(*kinds: str) -> str:
    return ", ".join(item.name for item in ITEMS.values() if item.kind in kinds)


TableName = argument(str, f"{named('table', 'chart')}.")
FigureName = argument(str, f"{named('figure')}; of tables, {named('chart')}.")


def chosen(name: str, *kinds: str) -> Item:
    """Raises ConfigError for what is none of these kinds."""
    if name not in ITEMS or ITEMS[name].kind not in kinds:
        raise ConfigError(f"{name}: choose one of {named(*kinds)}")
    return ITEMS[name]


@dataclass(frozen=True)
class InputOptions:
    """What tables, figures and the page are made from."""

    params: ParamsFile
    results: option(Path, "Run folder, such as results/demo.")
    experiments: Experiments = None
    published: option(Path, "Published numbers.") = Path("params/published.csv")
    orders: option(Path, "What the paper says of the order of its rows.") = Path("params/orders.csv")
    switches: option(Path, "The release's choices, and the experiments that measure them.") = Path(
        "params/release_switches.csv")
    overrides: Overrides = None

    def load(self) -> "Inputs":
        from restok.reporting.inputs import Inputs
        from restok.reporting.published import Published as Numbers
        tree = Tree(self.results, load_sheet(self.params, self.overrides or [], self.experiments))
        return Inputs(tree, read(self.params, self.overrides), Numbers(self.published), self.orders, self.switches)

    @property
    def printed(self) -> list[Path]:
        """What comes with the repository."""
        return [self.published, self.orders, self.switches]


@verb
def table(name: TableName, inputs: InputOptions, out: out_file(".csv")) -> None:
    """Write a table of the paper as CSV, or what the release's choices change, from files alone."""
    from restok.reporting.cells import write_csv
    from restok.reporting.inputs import table_of
    from restok.reporting.record import require_record, shown, write_record
    item = chosen(name, "table", "chart")
    require_record(out, "table")
    given = inputs.load()
    write_csv(table_of(given, item).frame, out)
    write_record("table", out, shown(given.tree, given.params, item), [*given.tree.inputs(item), *inputs.printed], [out])


@verb
def tables(inputs: InputOptions, out: out_file(".md")) -> None:
    """Write every table whose file is beside --out on one Markdown page, from the results."""
    from restok.reporting.record import require_record, shown, write_record
    from restok.reporting.tables.markdown import tables
    require_record(out, "tables")
    given = inputs.load()
    made = tables(given, out)
    write_record("tables", out, shown(given.tree, given.params, *made),
                 [*(out.with_name(f"{item.name}.csv") for item in made), *inputs.printed], [out])


@verb
def figure(name: FigureName, out: out_file("picture", ".pdf"), params: FigureParams = None, results: FigureResults = None,
           table: TableFile = None, experiments: Experiments = None, overrides: Overrides = None) -> None:
    """Draw a figure, from files alone: PNG and PDF and, but for a table's, its data as CSV, side by side."""
    from restok.reporting.figures.bars import chart
    from restok.reporting.inputs import draw
    from restok.reporting.record import require_record, shown, write_record
    item = chosen(name, "figure", "chart")
    if out.suffix.lower() not in (".png", ".pdf"):
        raise ConfigError(f"{out}: a figure is written as PNG and PDF, side by side; name a .png")
    given = {"--params": params, "--results": results, "--table": table}
    needed = ("--table",) if item.kind == "chart" else ("--params", "--results")
    if missing := [flag for flag in needed if given[flag] is None]:
        raise ConfigError(f"figure {name}: give {' and '.join(missing)}")
    require_record(out, item.kind)
    files = [out.with_suffix(suffix) for suffix in (".png", ".pdf", ".csv")]
    if item.kind == "chart":
        chart(table, out)
        write_record("chart", out, {"item": name}, [table], files[:2])
    else:
        inputs = InputOptions(params, results, experiments, overrides=overrides)
        given = inputs.load()
        draw(given, item, out)
        write_record("figure", out, shown(given.tree, given.params, item), [*given.tree.inputs(item), *inputs.printed], files)


@verb
def report(inputs: InputOptions, reports: Reports, out: out_file(".html")) -> None:
    """Write one HTML page with the main run's tables and figures, and with the others that are there."""
    from restok.reporting.page import report
    from restok.reporting.record import require_record, shown, write_record
    require_record(out, "report")
    given = inputs.load()
    made = report(given, reports, out)
    write_record("report", out, shown(given.tree, given.params, *made),
                 [*(reports / file for item in made for file in item.files), *inputs.printed], [out])


@verb
def bench(out: out_file("benchmark"), what: What = "chain", params: AnyParams = None, batch_size: BatchSize = 16,
          repeats: Repeats = 5, samples: BenchSamples = 10_000, images: BenchImages = 64, everything: Everything = False,
          overrides: Overrides = None) -> None:
    """Time the steps of the chain (of --params), or sampling at each batch that fits; or the metrics, or the reading of codes,
    beside the field's usual way. Write JSON."""
    if what in ("metrics", "codes") and (params or overrides):
        raise ConfigError(f"bench {what}: takes no parameters; leave --params and --set out")
    if everything and what == "chain":
        from restok.stages.bench.training import benchmark
        benchmark(read_to_compute(params or Path("params/imagenet256.yaml"), overrides), batch_size, repeats, out)
    elif what == "metrics" and not everything:
        from restok.stages.bench.metrics import Sizes, benchmark
        benchmark(Sizes(samples, 2048, images, 256, batch_size), repeats, out)
    elif what == "codes" and not everything:
        from restok.stages.bench.codes import benchmark
        benchmark(samples, batch_size, repeats, out)
    elif what == "sampling" and not everything:
        from restok.stages.bench.sampling import benchmark
        benchmark(read_to_compute(params or Path("params/imagenet256.yaml"), overrides), batch_size, repeats, out)
    elif what == "chain" and params:
        from restok.stages.bench.chain import benchmark
        benchmark(read_to_compute(params, overrides), batch_size, repeats, out)
    else:
        raise ConfigError(f"bench {what}: choose sampling, metrics or codes, or chain with --params")
