"""The verbs that make tables, figures and the page from files, and the benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from restok.cli.base import AnyParams, OutFile, Overrides, ParamsFile, app, option, plain_errors, read
from restok.config.load import ConfigError
from restok.experiments import load_sheet

Results = option(Path, "Run folder, such as results/demo.", "--results")
Experiments = option(Path | None, "Experiments, one row a run; else experiments.tsv beside the parameters.", "--experiments")
Published = option(Path, "Published numbers.", "--published")
Orders = option(Path, "What the paper says of the order of its rows.", "--orders")
Switches = option(Path, "The release's choices, and the experiments that measure them.", "--switches")
Reports = option(Path, "Folder with the tables and figures.", "--reports")
RUN, LAYOUT, TABLE = ("--params", "--results"), ("--results",), ("--table",)
FIGURES = {"5": RUN, "6": RUN, "7": RUN, "8": LAYOUT, "9": LAYOUT, "codebook": RUN, "guidance": RUN, "table2": TABLE,
           "table3": TABLE, "table4": TABLE, "table5": TABLE}                     # and what each is drawn from
FigureName = Annotated[str, typer.Argument(help=f"{', '.join(FIGURES)}.")]
FigureParams = option(Path | None, "Parameter file; 8, 9 and tables go without.", "--params", "-p")
FigureResults = option(Path | None, "Run folder, such as results/demo; tables go without.", "--results")
TableFile = option(Path | None, "A table that `restok table` wrote; for tables only.", "--table")
What = Annotated[str, typer.Argument(help="chain or metrics.")]
BenchSamples = option(int, "Samples, and references, of precision and recall.", "--samples")
BenchImages = option(int, "Images that go through the Inception network.", "--images")
BatchSize = option(int, "Images a step.", "--batch-size")
Repeats = option(int, "Timed runs of each row, after a warm-up.", "--repeats")


@app.command()
def table(name: Annotated[str, typer.Argument(help="1 to 10, or release_switches.")], params: ParamsFile, results: Results,
          out: OutFile, experiments: Experiments = None, published: Published = Path("params/published.csv"),
          orders: Orders = Path("params/orders.csv"), switches: Switches = Path("params/release_switches.csv"),
          overrides: Overrides = None) -> None:
    """Write a table of the paper as CSV, or what the release's choices change, from files alone."""
    with plain_errors():
        from restok.reporting import tables
        settings, item = read(params, overrides), name if name == "release_switches" else f"table{name}"
        theirs, sheet = tables.Published(published), load_sheet(params, overrides or [], experiments)
        make = {"table1": lambda: tables.table1(results, sheet, theirs),
                **dict.fromkeys(tables.ABLATIONS, lambda: tables.ablation(item, results, sheet, theirs, orders)),
                "table6": lambda: tables.table6(results, sheet, theirs),
                **dict.fromkeys(("table7", "table8"), lambda: tables.settings(item, settings, theirs)),
                "table9": lambda: tables.table9(settings, theirs),
                "table10": lambda: tables.table10(results, sheet, theirs, orders),
                "release_switches": lambda: tables.release_switches(results, sheet, switches)}
        if item not in make:
            raise ConfigError(f"table {name}: choose one of {', '.join(key.removeprefix('table') for key in make)}")
        tables.write_csv(make[item](), out)


@app.command("tables")
def all_tables(params: ParamsFile, reports: Reports, out: OutFile) -> None:
    """Write the tables that are there as CSV on one Markdown page."""
    with plain_errors():
        from restok.reporting.tables.markdown import tables
        tables(reports, params.stem, out)


@app.command()
def figure(name: FigureName, out: OutFile, params: FigureParams = None, results: FigureResults = None, table: TableFile = None,
           experiments: Experiments = None, overrides: Overrides = None) -> None:
    """Draw a figure of the paper, from files alone: PNG and PDF and, but for a table's, its data as CSV, side by side."""
    with plain_errors():
        from restok.reporting import figures
        from restok.reporting.measured import best
        from restok.reporting.run import read as read_record
        given = {"--params": params, "--results": results, "--table": table}
        if name not in FIGURES:
            raise ConfigError(f"figure {name}: choose one of {', '.join(FIGURES)}")
        if missing := [flag for flag in FIGURES[name] if given[flag] is None]:
            raise ConfigError(f"figure {name}: give {' and '.join(missing)}")
        settings = read(params, overrides) if "--params" in FIGURES[name] else None
        sheet = load_sheet(params, overrides or [], experiments) if settings else None
        if name == "5":
            figures.fig5(results / "panel" / f"{best(results, sheet, 'fig5').first.label}.npz", out)
        elif name == "6":
            classes = read_record(results / "data" / "manifest.json")["splits"]["train"]["classes"]
            figures.fig6(results / "samples" / f"{best(results, sheet, 'fig6').first.label}.npz", classes, out)
        elif name == "7":
            figures.fig7(figures.fig7_data(figures.fig7_runs(results, sheet), settings), out)
        elif name == "8":
            figures.fig8(results / "layout.npz", out)
        elif name == "9":
            figures.fig9(results / "layout.npz", out)
        elif name == "codebook":
            figures.codebook(figures.codebook_data(results, sheet), out)
        elif name == "guidance":
            figures.guidance(figures.guidance_data(results, settings), out)
        else:
            figures.ablation(table, out)


@app.command()
def report(params: ParamsFile, results: Results, reports: Reports, out: OutFile, experiments: Experiments = None,
           published: Published = Path("params/published.csv"), orders: Orders = Path("params/orders.csv"),
           overrides: Overrides = None) -> None:
    """Write one HTML page with every table and figure."""
    with plain_errors():
        from restok.reporting.page import report
        from restok.reporting.tables import Published
        sheet = load_sheet(params, overrides or [], experiments)
        report(results, reports, read(params, overrides), sheet, Published(published), orders, out)


@app.command()
def bench(out: OutFile, what: What = "chain", params: AnyParams = None, batch_size: BatchSize = 16, repeats: Repeats = 5,
          samples: BenchSamples = 10_000, images: BenchImages = 64, overrides: Overrides = None) -> None:
    """Time the steps of the chain (of --params), or the metrics beside the field's usual way; write JSON."""
    with plain_errors():
        if what == "metrics":
            from restok.bench.metrics import Sizes, benchmark
            benchmark(Sizes(samples, 2048, images, 256, batch_size), repeats, out)
        elif what == "chain" and params:
            from restok.bench.chain import benchmark
            benchmark(read(params, overrides), batch_size, repeats, out)
        else:
            raise ConfigError(f"bench {what}: choose metrics, or chain with --params")
