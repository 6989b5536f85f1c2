"""The `restok` command: one verb a step of the chain. Heavy imports wait until a verb runs."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.logging import RichHandler

from restok.config import Guidance, Params
from restok.params import ConfigError, load_params
from restok.progress import CONSOLE

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode="rich",
                  help="ResTok: images to 128 ordered codes, and codes to images in 9 steps. Every verb reads a parameter file "
                       "and folders that earlier verbs wrote; the workflow (`snakemake`) calls them in order.")

def option(kind: type, text: str, *names: str, **more: str) -> Any:
    return Annotated[kind, typer.Option(*names, help=text, **more)]


ParamsFile = option(Path, "Parameter file, such as params/demo.yaml.", "--params", "-p")
Overrides = option(list[str] | None, "Change one setting, such as tokenizer.width=512; repeatable.", "--set", "-s",
                   metavar="KEY=VALUE")
Data = option(Path, "Folder that `restok prepare` wrote.", "--data")
Classifier = option(Path | None, "Folder that `restok train-classifier` wrote; only 'digits' networks need it.", "--classifier")
TokenizerFolder = option(Path, "Folder that `restok train-tokenizer` wrote.", "--tokenizer")
GeneratorFolder = option(Path, "Folder that `restok train-generator` wrote.", "--generator")
Codes = option(Path, "Folder that `restok encode` wrote.", "--codes")
RunFolder = option(Path, "Where an unfinished run keeps its states; run again to resume.", "--run")
OutFolder = option(Path, "Folder to write; replaced whole, or not at all.", "--out", "-o")
OutFile = option(Path, "File to write.", "--out", "-o")
Checkpoint = option(str, "Label to train to, such as 250k.", "--checkpoint")
Previous = option(Path | None, "Folder of the checkpoint before it; none for the first.", "--previous")
Schedule = option(str, "constant, linear, step or cosine.", "--schedule")
Scale = option(float, "Largest scale; 1 is none.", "--scale")
Start = option(float, "Start ratio; 'step' only.", "--start")
GuidanceFile = option(Path, "File that `restok search-guidance` wrote.", "--guidance")
Panel = option(Path, "Second npz: a few images at every kept prefix, and the attention (Fig. 5).", "--panel")
Samples = option(Path, "npz of `restok sample` or `restok reconstruct`.", "--samples")
Results = option(Path, "Run folder, such as results/demo.", "--results")
Published = option(Path, "Published numbers.", "--published")
Reports = option(Path, "Folder with the tables and figures.", "--reports")
BatchSize = option(int, "Images a step.", "--batch-size")
Repeats = option(int, "Timed runs of each row, after a warm-up.", "--repeats")
Candidates = Annotated[list[Path], typer.Argument(help="Files that `restok score-guidance` wrote.")]


@app.callback()
def main() -> None:
    handler = RichHandler(console=CONSOLE, show_path=False) if CONSOLE.is_terminal else logging.StreamHandler(sys.stderr)
    pattern = "%(message)s" if CONSOLE.is_terminal else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=pattern, datefmt="%H:%M:%S", handlers=[handler])
    for chatty in ("httpx", "httpcore", "datasets", "fsspec", "filelock"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@contextmanager
def plain_errors() -> Iterator[None]:
    """What this package raises itself, and what the system says of files, is one message on standard error and exit code 1;
    anything else keeps its traceback."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = Path(last.filename).is_relative_to(Path(__file__).parent) and (last.line or "").startswith("raise ")
        if not ours and not isinstance(error, OSError):
            raise
        CONSOLE.print(f"[bold red]error[/]: {type(error).__name__}:", end=" ", highlight=False)
        CONSOLE.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def read(params: Path, overrides: list[str] | None) -> Params:
    return load_params(params, overrides or [])


@app.command()
def prepare(params: ParamsFile, out: OutFolder, overrides: Overrides = None) -> None:
    """Check every image once and pack both splits into random-access tables."""
    with plain_errors():
        from restok.data.sources import prepare
        settings = read(params, overrides)
        prepare(settings.data, settings.tokenizer.image_size, out)


@app.command()
def train_classifier(params: ParamsFile, data: Data, out: OutFolder, overrides: Overrides = None) -> None:
    """Train the demo's feature network on the training split; report its validation accuracy."""
    with plain_errors():
        from restok.training.classifier import train_classifier
        train_classifier(read(params, overrides), data, out)


@app.command()
def train_tokenizer(params: ParamsFile, data: Data, run: RunFolder, out: OutFolder, checkpoint: Checkpoint,
                    previous: Previous = None, classifier: Classifier = None, overrides: Overrides = None) -> None:
    """Train the tokenizer to a checkpoint, from the one before it (Table 7)."""
    with plain_errors():
        from restok.training.tokenizer import train_tokenizer
        train_tokenizer(read(params, overrides), checkpoint, data, classifier, previous, run, out)


@app.command()
def encode(params: ParamsFile, data: Data, tokenizer: TokenizerFolder, out: OutFolder, overrides: Overrides = None) -> None:
    """Encode every crop of the training split into one packed array."""
    with plain_errors():
        from restok.stages.codes import encode
        encode(read(params, overrides), data, tokenizer, out)


@app.command()
def train_generator(params: ParamsFile, codes: Codes, tokenizer: TokenizerFolder, run: RunFolder, out: OutFolder,
                    overrides: Overrides = None) -> None:
    """Train the generator on codes (Table 8)."""
    with plain_errors():
        from restok.training.generator import train_generator
        train_generator(read(params, overrides), codes, tokenizer, run, out)


@app.command()
def score_guidance(params: ParamsFile, data: Data, tokenizer: TokenizerFolder, generator: GeneratorFolder, out: OutFile,
                   schedule: Schedule, scale: Scale, start: Start = 0.0, classifier: Classifier = None,
                   overrides: Overrides = None) -> None:
    """Measure one guidance setting on samples of its own."""
    with plain_errors():
        from restok.params import parse
        from restok.stages.measure import score_guidance
        guidance = parse(Guidance, {"schedule": schedule, "scale": scale, "start": start}, "guidance")
        score_guidance(read(params, overrides), guidance, data, classifier, tokenizer, generator, out)


@app.command()
def search_guidance(candidates: Candidates, out: OutFile) -> None:
    """Choose the guidance setting with the lowest distance (Table 6)."""
    with plain_errors():
        from restok.stages.search import search_guidance
        search_guidance(candidates, out)


@app.command()
def sample(params: ParamsFile, tokenizer: TokenizerFolder, generator: GeneratorFolder, guidance: GuidanceFile, out: OutFile,
           overrides: Overrides = None) -> None:
    """Draw evaluation.samples_per_class images of every class into an npz (arr_0, labels)."""
    with plain_errors():
        from restok.stages.images import sample
        from restok.stages.search import read_guidance
        sample(read(params, overrides), tokenizer, generator, read_guidance(guidance), out)


@app.command()
def reconstruct(params: ParamsFile, data: Data, tokenizer: TokenizerFolder, out: OutFile, panel: Panel,
                overrides: Overrides = None) -> None:
    """Reconstruct the validation split into an npz (arr_0, labels, codes)."""
    with plain_errors():
        from restok.stages.images import reconstruct
        reconstruct(read(params, overrides), data, tokenizer, out, panel)


@app.command()
def evaluate(params: ParamsFile, data: Data, samples: Samples, out: OutFile, classifier: Classifier = None,
             overrides: Overrides = None) -> None:
    """Measure samples or reconstructions against the validation split."""
    with plain_errors():
        from restok.stages.measure import evaluate
        evaluate(read(params, overrides), samples, data, classifier, out)


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
def bench(params: ParamsFile, out: OutFile,
          batch_size: BatchSize = 16, repeats: Repeats = 5, overrides: Overrides = None) -> None:
    """Time tokenizer, generator, sampling and loading on the device at hand; write JSON."""
    with plain_errors():
        from restok.bench import benchmark
        benchmark(read(params, overrides), batch_size, repeats, out)
