"""The verbs that make tables, figures and the page from files, and the benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from restok.cli.base import AnyParams, OutFile, Overrides, ParamsFile, app, option, plain_errors, read
from restok.params import ConfigError

Results = option(Path, "Run folder, such as results/demo.", "--results")
Published = option(Path, "Published numbers.", "--published")
Reports = option(Path, "Folder with the tables and figures.", "--reports")
What = Annotated[str, typer.Argument(help="chain or metrics.")]
BenchSamples = option(int, "Samples, and references, of precision and recall.", "--samples")
BenchImages = option(int, "Images that go through the Inception network.", "--images")
BatchSize = option(int, "Images a step.", "--batch-size")
Repeats = option(int, "Timed runs of each row, after a warm-up.", "--repeats")


@app.command()
def table(number: Annotated[int, typer.Argument(help="1, 6 or 9.")], params: ParamsFile, results: Results,
          out: OutFile, published: Published = Path("params/published.csv"), overrides: Overrides = None) -> None:
    """Write a table of the paper as CSV, from files alone."""
    with plain_errors():
        from restok.reporting import tables
        settings = read(params, overrides)
        make = {1: lambda: tables.table1(published, results, settings, params.stem),
                6: lambda: tables.table6(results, settings),
                9: lambda: tables.table9(settings)}
        if number not in make:
            raise ConfigError(f"table {number}: choose one of {', '.join(map(str, make))}")
        tables.write_csv(make[number](), out)


@app.command()
def figure(name: Annotated[str, typer.Argument(help="5, 6, 7 or codebook.")], params: ParamsFile,
           results: Results, out: OutFile, overrides: Overrides = None) -> None:
    """Draw a figure of the paper as PNG, from files alone; 7 and codebook write their data beside it as CSV."""
    with plain_errors():
        from restok.reporting import figures, run, tables
        settings = read(params, overrides)
        if name not in ("5", "6", "7", "codebook"):
            raise ConfigError(f"figure {name}: choose one of 5, 6, 7, codebook")
        if name in ("7", "codebook"):
            collect, draw = {"7": (figures.fig7_data, figures.fig7),
                             "codebook": (figures.codebook_data, figures.codebook)}[name]
            data = collect(results, settings)
            tables.write_csv(data, out.with_suffix(".csv"))
            draw(data, out)
            return
        best = run.best(results, settings).label
        if name == "5":
            figures.fig5(results / "panel" / f"{best}.npz", out)
        else:
            classes = run.read(results / "data" / "manifest.json")["splits"]["train"]["classes"]
            figures.fig6(results / "samples" / f"{best}.npz", classes, out)


@app.command()
def report(params: ParamsFile, results: Results, reports: Reports, out: OutFile, overrides: Overrides = None) -> None:
    """Write one HTML page with every table and figure."""
    with plain_errors():
        from restok.reporting.page import report
        report(results, reports, read(params, overrides), params.stem, out)


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
