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
from rich.table import Table

from restok.config import Guidance, Params
from restok.params import ConfigError, load_params, load_protocol
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
AnyOutFile = option(Path | None, "JSON file to write.", "--out", "-o")
Checkpoint = option(str, "Label to train to, such as 250k.", "--checkpoint")
Previous = option(Path | None, "Folder of the checkpoint before it; none for the first.", "--previous")
Schedule = option(str, "constant, linear, step or cosine.", "--schedule")
Scale = option(float, "Largest scale; 1 is none.", "--scale")
Start = option(float, "Start ratio; 'step' only.", "--start")
GuidanceFile = option(Path, "File that `restok search-guidance` wrote.", "--guidance")
PerClass = option(int | None, "Samples of each class; as many as are evaluated, if not given.", "--per-class")
Classes = option(int | None, "How many classes to sample, spread evenly; every one, if not given.", "--classes")
Samples = option(list[Path] | None, "What to measure: an npz (arr_0), an image folder, or statistics files of all its shards "
                 "(repeat the option).", "--samples")
AnyParams = option(Path | None, "Parameter file; without one, the paper's protocol with Inception features.", "--params", "-p")
AnyTokenizer = option(Path | None, "Measure images straight from this tokenizer: reconstructions, or with --generator samples.",
                      "--tokenizer")
AnyGenerator = option(Path | None, "Generator to sample from, with --tokenizer and --guidance.", "--generator")
AnyGuidance = option(Path | None, "File that `restok search-guidance` wrote.", "--guidance")
Originals = option(Path | None, "Measure reconstructions of these, image by image: an npz, an image folder, or a folder that "
                   "`restok prepare` wrote.", "--originals")
Reference = option(Path, "A statistics file, an ADM npz, or images as in --originals.", "--reference")
AnyReference = option(Path | None, "A statistics file, an ADM npz, or images as in --originals; else the originals, or what "
                      "evaluation.reference names.", "--reference")
FeatureSet = option(str | None, "inception or digits; else evaluation.features.", "--features")
Weights = option(Path | None, "File of the Inception network; else evaluation.weights.", "--weights")
Crop = option(int | None, "Side of the centre crops of reference and originals in folders; else the tokenizer's image size.",
              "--crop")
Workers = option(int | None, "Threads that decode images; else data.workers.", "--workers")
Count = option(int | None, "Refuse any other number of images.", "--count")
State = option(Path | None, "Where an unfinished measurement keeps its sums (.safetensors); run again to resume.", "--state")
KeepStatistics = option(Path | None, "Keep what was measured in this file, to be --samples or --reference.", "--statistics")
Seed = option(int | None, "Seed to sample with; else the parameters'.", "--seed")
ShardOption = option(str | None, "Measure one shard alone, such as 0/4.", "--shard")
Images = Annotated[Path, typer.Argument(help="An npz (arr_0), an image folder, or a folder that `restok prepare` wrote.")]
SeedResults = Annotated[list[Path], typer.Argument(help="Results of `restok evaluate` that differ in their seed.")]
Results = option(Path, "Run folder, such as results/demo.", "--results")
Published = option(Path, "Published numbers.", "--published")
Reports = option(Path, "Folder with the tables and figures.", "--reports")
What = Annotated[str, typer.Argument(help="chain or metrics.")]
BenchSamples = option(int, "Samples, and references, of precision and recall.", "--samples")
BenchImages = option(int, "Images that go through the Inception network.", "--images")
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


def load_evaluator(params: Path | None, overrides: list[str] | None, features: str | None, weights: Path | None,
                   classifier: Path | None, crop: int | None, workers: int | None, paired: bool = False) -> tuple:
    """(Evaluator, Params or None). The command's options go before the parameter file, and that before the paper's protocol."""
    from restok.stages.measure import Evaluator
    overrides = list(overrides or [])
    overrides += [f"evaluation.features={features}"] if features else []
    overrides += [f"evaluation.weights={weights}"] if weights else []
    settings = load_params(params, overrides) if params else None
    if settings:
        crop, workers = crop or settings.tokenizer.image_size, settings.data.workers if workers is None else workers
    protocol = settings.evaluation if settings else load_protocol(overrides)
    return Evaluator.load(protocol, classifier, crop, workers or 0, paired), settings


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """'0/4' as (0, 4)."""
    if text is None:
        return None
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise ConfigError(f"shard {text!r}: expected PART/PARTS, counted from 0, such as 0/4 to 3/4")
    return int(part), int(parts)


def print_result(result: dict) -> None:
    """Every value with its interval, then what was not measured and why, and the warnings."""
    table = Table("metric", "value", "95 % interval", title=f"{result['protocol']}, n = {result['n']}: "
                  f"{result['samples']['name']}, against {result['reference']['name']}")
    for name, value in result["metrics"].items():
        interval = result["intervals"][name]
        if isinstance(value, float):
            table.add_row(name, f"{value:.5g}", f"{interval[0]:.5g} to {interval[1]:.5g}" if interval else "")
        if isinstance(value, dict):
            for part, bounds in interval.items():
                table.add_row(f"{name} {part}", f"{value[part]:.5g}", f"{bounds[0]:.5g} to {bounds[1]:.5g}" if bounds else "")
    CONSOLE.print(table)
    for name, reason in result["refused"].items():
        CONSOLE.print(f"{name}: not measured: {reason}", markup=False, highlight=False, soft_wrap=True)
    for warning in result["warnings"]:
        CONSOLE.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)


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
def score_guidance(params: ParamsFile, reference: Reference, tokenizer: TokenizerFolder, generator: GeneratorFolder,
                   out: OutFile, schedule: Schedule, scale: Scale, start: Start = 0.0, classifier: Classifier = None,
                   overrides: Overrides = None) -> None:
    """Measure one guidance setting on samples of its own."""
    with plain_errors():
        from restok.params import parse
        from restok.stages.measure import Evaluator, score_guidance
        guidance = parse(Guidance, {"schedule": schedule, "scale": scale, "start": start}, "guidance")
        settings = read(params, overrides)
        evaluator = Evaluator.load(settings.evaluation, classifier, settings.tokenizer.image_size, settings.data.workers)
        score_guidance(evaluator, settings, guidance, tokenizer, generator, reference, out)


@app.command()
def search_guidance(candidates: Candidates, out: OutFile) -> None:
    """Choose the guidance setting with the lowest distance (Table 6)."""
    with plain_errors():
        from restok.stages.search import search_guidance
        search_guidance(candidates, out)


@app.command()
def sample(params: ParamsFile, tokenizer: TokenizerFolder, generator: GeneratorFolder, guidance: GuidanceFile, out: OutFile,
           per_class: PerClass = None, classes: Classes = None, overrides: Overrides = None) -> None:
    """Draw images of every class into an npz (arr_0, labels)."""
    with plain_errors():
        from restok.stages.images import sample
        from restok.stages.search import read_guidance
        sample(read(params, overrides), tokenizer, generator, read_guidance(guidance), per_class, classes, out)


@app.command()
def reconstruct(params: ParamsFile, data: Data, tokenizer: TokenizerFolder, out: OutFile, overrides: Overrides = None) -> None:
    """Reconstruct the validation split into an npz (arr_0, labels, codes)."""
    with plain_errors():
        from restok.stages.images import reconstruct
        reconstruct(read(params, overrides), data, tokenizer, out)


@app.command()
def panel(data: Data, tokenizer: TokenizerFolder, out: OutFile) -> None:
    """What Fig. 5 shows: a few images from every prefix of their codes, and the encoder's attention (npz)."""
    with plain_errors():
        from restok.stages.images import panel
        panel(data, tokenizer, out)


@app.command()
def statistics(images: Images, out: OutFile, params: AnyParams = None, classifier: Classifier = None,
               features: FeatureSet = None, weights: Weights = None, crop: Crop = None, workers: Workers = None,
               shard: ShardOption = None, state: State = None, overrides: Overrides = None) -> None:
    """Measure images once (.safetensors), for any number of evaluations against them."""
    with plain_errors():
        from restok.stages.measure import write_statistics
        evaluator, _ = load_evaluator(params, overrides, features, weights, classifier, crop, workers)
        write_statistics(evaluator, images, parse_shard(shard), state, out)


@app.command()
def evaluate(samples: Samples = None, reference: AnyReference = None, originals: Originals = None, params: AnyParams = None,
             tokenizer: AnyTokenizer = None, generator: AnyGenerator = None, guidance: AnyGuidance = None,
             classifier: Classifier = None, features: FeatureSet = None, weights: Weights = None, crop: Crop = None,
             workers: Workers = None, count: Count = None, seed: Seed = None, state: State = None,
             statistics: KeepStatistics = None, out: AnyOutFile = None, overrides: Overrides = None) -> None:
    """Measure images: samples against a reference set (ADM's protocol), or with --originals reconstructions (TiTok's)."""
    with plain_errors():
        from restok.stages.measure import Request, evaluate
        from restok.stages.subjects import choose
        paired = originals is not None
        evaluator, settings = load_evaluator(params, overrides, features, weights, classifier, crop, workers, paired)
        subject, seed = choose(settings, samples or [], originals, tokenizer, generator, guidance, seed, evaluator.crop,
                               evaluator.workers)
        against = reference or originals or evaluator.settings.reference
        if against is None:
            raise ConfigError("nothing to measure against; name it with --reference, or in evaluation.reference")
        result = evaluate(evaluator, subject, Path(against), Request(out, count, state, statistics, seed))
        if result:
            print_result(result)


@app.command()
def average(results: SeedResults, out: OutFile) -> None:
    """Mean and standard deviation over runs that differ in their seed; refuses results that do not compare."""
    with plain_errors():
        from restok.files import write_json
        from restok.metrics.results import average
        write_json(out, average(results))


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
