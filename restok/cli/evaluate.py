"""The verbs that measure images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from restok.cli.base import AnyParams, Classifier, Experiment, OutFile, Overrides, State, app, option, plain_errors, read
from restok.config.load import ConfigError, load_protocol
from restok.progress import CONSOLE

if TYPE_CHECKING:
    from restok.distributed import Shard

AnyOutFile = option(Path | None, "JSON file to write.", "--out", "-o")
Samples = option(list[Path] | None, "What to measure: an npz (arr_0), an image folder, or statistics files of all its shards "
                 "(repeat the option).", "--samples")
AnyTokenizer = option(Path | None, "Measure images straight from this tokenizer: reconstructions, or with --generator samples.",
                      "--tokenizer")
AnyGenerator = option(Path | None, "Generator to sample from, with --tokenizer and --guidance.", "--generator")
AnyGuidance = option(Path | None, "File that `restok search-guidance` wrote; else sampling.guidance.", "--guidance")
Originals = option(Path | None, "Measure reconstructions of these, image by image: an npz, an image folder, or a folder that "
                   "`restok prepare` wrote.", "--originals")
AnyReference = option(Path | None, "A statistics file, an ADM npz, or images as in --originals; else the originals, or what "
                      "evaluation.reference names.", "--reference")
FeatureSet = option(str | None, "inception or digits; else evaluation.features.", "--features")
Weights = option(Path | None, "File of the Inception network; else evaluation.weights.", "--weights")
Crop = option(int | None, "Side of the centre crops of reference and originals in folders; else the tokenizer's image size.",
              "--crop")
Workers = option(int | None, "Threads that decode images; else data.workers.", "--workers")
Count = option(int | None, "Refuse any other number of images.", "--count")
KeepStatistics = option(Path | None, "Keep what was measured in this file, to be --samples or --reference.", "--statistics")
Seed = option(int | None, "Seed to sample with, else the parameters'; of --samples, the seed they were drawn from.", "--seed")
ShardOption = option(str | None, "Measure one shard alone, such as 0/4.", "--shard")
Images = Annotated[Path, typer.Argument(help="An npz (arr_0), an image folder, or a folder that `restok prepare` wrote.")]
SeedResults = Annotated[list[Path], typer.Argument(help="Results of `restok evaluate` that differ in their seed.")]


def load_evaluator(params: Path | None, overrides: list[str] | None, features: str | None, weights: Path | None,
                   classifier: Path | None, crop: int | None, workers: int | None, paired: bool = False,
                   experiment: str | None = None) -> tuple:
    """(Evaluator, Params or None). The command's options go before the parameter file, and that before the paper's protocol."""
    from restok.stages.evaluator import Evaluator
    overrides = list(overrides or [])
    overrides += [f"evaluation.features={features}"] if features else []
    overrides += [f"evaluation.weights={weights}"] if weights else []
    settings = read(params, overrides, experiment) if params else None
    if settings:
        crop, workers = crop or settings.tokenizer.image_size, settings.data.workers if workers is None else workers
    protocol = settings.evaluation if settings else load_protocol(overrides)
    return Evaluator.load(protocol, classifier, crop, workers or 0, paired), settings


def parse_shard(text: str | None) -> "Shard | None":
    """'0/4' as Shard(0, 4)."""
    from restok.distributed import Shard
    if text is None:
        return None
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise ConfigError(f"shard {text!r}: expected PART/PARTS, counted from 0, such as 0/4 to 3/4")
    return Shard(int(part), int(parts))


def print_result(result: dict) -> None:
    """Every value with its interval, then what was not measured and why, and the warnings."""
    table = Table("metric", "value", "95 % interval", title=f"{result['protocol']}, n = {result['n']}: "
                  f"{result['samples']['name']}, against {result['reference']['name']}")
    for name, value in result["metrics"].items():
        interval = result["intervals"][name]
        if isinstance(value, float):
            table.add_row(name, f"{value:.5g}", f"{interval[0]:.5g} to {interval[1]:.5g}" if interval else "")
        if isinstance(value, dict):
            for about, described, bounds in [("", value, interval), *((f" of level {level['level']}", level, bounds) for level,
                                             bounds in zip(value["levels"], interval["levels"], strict=True))]:
                for part in ("usage", "entropy", "perplexity", "dead"):
                    table.add_row(f"{name} {part}{about}", f"{described[part]:.5g}", "{:.5g} to {:.5g}".format(*bounds[part]))
    CONSOLE.print(table)
    for reason in dict.fromkeys(result["refused"].values()):
        names = ", ".join(name for name, why in result["refused"].items() if why == reason)
        CONSOLE.print(f"{names}: not measured: {reason}", markup=False, highlight=False, soft_wrap=True)
    for warning in result["warnings"]:
        CONSOLE.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def statistics(images: Images, out: OutFile, params: AnyParams = None, classifier: Classifier = None,
               features: FeatureSet = None, weights: Weights = None, crop: Crop = None, workers: Workers = None,
               shard: ShardOption = None, state: State = None, overrides: Overrides = None) -> None:
    """Measure images once (.safetensors), for any number of evaluations against them."""
    with plain_errors():
        from restok.distributed import processes
        from restok.stages.measure import write_statistics
        with processes():
            evaluator, _ = load_evaluator(params, overrides, features, weights, classifier, crop, workers)
            write_statistics(evaluator, images, parse_shard(shard), state, out)


@app.command()
def evaluate(samples: Samples = None, reference: AnyReference = None, originals: Originals = None, params: AnyParams = None,
             tokenizer: AnyTokenizer = None, generator: AnyGenerator = None, guidance: AnyGuidance = None,
             classifier: Classifier = None, features: FeatureSet = None, weights: Weights = None, crop: Crop = None,
             workers: Workers = None, count: Count = None, seed: Seed = None, state: State = None,
             statistics: KeepStatistics = None, out: AnyOutFile = None, experiment: Experiment = None,
             overrides: Overrides = None) -> None:
    """Measure images: samples against a reference set (ADM's protocol), or with --originals reconstructions (TiTok's)."""
    with plain_errors():
        from restok.distributed import processes
        from restok.stages.measure import Request, evaluate
        from restok.stages.subjects import choose
        with processes():
            paired = originals is not None
            evaluator, settings = load_evaluator(params, overrides, features, weights, classifier, crop, workers, paired,
                                                 experiment)
            subject, seed = choose(settings, samples or [], originals, tokenizer, generator, guidance, seed, evaluator.crop,
                                   evaluator.workers, evaluator.settings)
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
        found = average(results)
        write_json(out, found)
        table = Table("metric", "mean", "deviation", "95 % interval", title=f"{found['protocol']} over seeds {found['seeds']}")
        for name, value in found["metrics"].items():
            low, high = value["interval"]
            table.add_row(name, f"{value['mean']:.5g}", f"{value['deviation']:.3g}", f"{low:.5g} to {high:.5g}")
        CONSOLE.print(table)
        for name, reason in found["dropped"].items():
            CONSOLE.print(f"{name}: {reason}", markup=False, highlight=False, soft_wrap=True)
