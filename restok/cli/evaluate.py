"""The verbs that measure images."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from restok.cli.base import Part, State, Written, argument, option, out_file, parse_part, say, verb
from restok.cli.measuring import NetworkOptions, SubjectOptions
from restok.config.load import ConfigError
from restok.progress import CONSOLE

if TYPE_CHECKING:
    from restok.metrics.statistics import Statistics

AnyOutFile = option(Path | None, "JSON file to write.", "--out", "-o", writes=Written(False, ("evaluation",)))
AnyReference = option(Path | None, "A statistics file, an npz of ADM, pytorch-fid or clean-fid, torch-fidelity's .pt, or "
                      "images as in --originals; else the originals, or what evaluation.reference names.")
Count = option(int | None, "Refuse any other number of images.")
KeepStatistics = option(Path | None, "Keep what was measured in this file, to be --samples or --reference.",
                        writes=Written(False, ("statistics",)))
Images = argument(Path | None, "An npz (arr_0), a folder of images, tar or parquet, or a folder that `restok prepare` wrote, "
                  "as a reference; else what the options name.")
SeedResults = argument(list[Path], "Results of `restok evaluate` that differ in their seed.")


def print_result(result: dict) -> None:
    """Every value with its interval, then what was not measured and why, and the warnings."""
    title = f"{result['protocol']}, n = {result['n']}: {result['samples']['name']}, against {result['reference']['name']}"
    table = Table("metric", "value", "95 % interval", title=Text(title))             # as it is: a name may hold brackets
    for name, value in result["metrics"].items():
        interval = result["intervals"][name]
        if isinstance(value, float):
            table.add_row(name, f"{value:.5g}", f"{interval[0]:.5g} to {interval[1]:.5g}" if interval else "")
        if isinstance(value, dict):
            for about, described, bounds in [("", value, interval), *((f" of level {level['level']}", level, bounds) for level,
                                             bounds in zip(value["levels"], interval["levels"], strict=True))]:
                for part in ("usage", "entropy", "perplexity", "dead"):
                    table.add_row(f"{name} {part}{about}", f"{described[part]:.5g}",
                                  "{:.5g} to {:.5g}".format(*bounds[part]) if bounds[part] else "")
    CONSOLE.print(table)
    for reason in dict.fromkeys(result["refused"].values()):
        names = ", ".join(name for name, why in result["refused"].items() if why == reason)
        say(f"{names}: not measured: {reason}")
    for warning in result["warnings"]:
        say(f"warning: {warning}")


def print_choice(search: dict) -> None:
    """What a search for guidance chose, its distance, and what it cost."""
    from restok.stages.search import among, cost
    chosen, metric = search["chosen"], search["metric"]
    say(f"{chosen['schedule']}, at most {chosen['scale']:g} from {chosen['start']:g} on: {metric} {search[metric]:.5g}, the "
        f"lowest of {among(search)}; {cost(search['samples'])}")


def print_statistics(statistics: "Statistics") -> None:
    """What was measured, of which everything but the sums themselves."""
    images = statistics.facts["images"]
    say(f"{statistics.name}: {int(statistics.seen.sum())} of {statistics.n} images measured with "
        f"{statistics.facts['features']['name']}, digest {images['digest']}")


@verb
def statistics(subject: SubjectOptions, network: NetworkOptions, out: out_file("statistics"), images: Images = None,
               part: Part = None, state: State = None) -> None:
    """Measure images once (.safetensors), for any number of evaluations of them or against them."""
    from restok.distributed import processes
    from restok.stages.measure import write_statistics
    params, protocol = network.read()
    shard = parse_part(part)
    if images is None:
        subject.require_one(params)
    elif subject != SubjectOptions():
        raise ConfigError(f"{images}: a reference is named alone; leave it out, or the options that name what to measure")
    with processes():
        evaluator = network.load(params, protocol, subject.originals is not None)
        chosen = subject.load(evaluator, params) if images is None else evaluator.open_reference(images)
        write_statistics(evaluator, chosen, shard, state, out, print_statistics)


@verb
def evaluate(subject: SubjectOptions, network: NetworkOptions, reference: AnyReference = None, count: Count = None,
             statistics: KeepStatistics = None, state: State = None, out: AnyOutFile = None) -> None:
    """Measure images: samples against a reference set (ADM's protocol), or with --originals reconstructions (TiTok's)."""
    from restok.distributed import processes
    from restok.stages.measure import evaluate
    params, protocol = network.read()
    subject.require_one(params)
    against = reference or subject.originals or protocol.reference
    if against is None:
        raise ConfigError("nothing to measure against; name it with --reference, or in evaluation.reference")
    with processes():
        spare = state is None                          # else a machine without the weights would begin those sums anew
        evaluator = network.load(params, protocol, subject.originals is not None, spare)
        evaluate(evaluator, subject.load(evaluator, params), Path(against), out, expected=count, state=state,
                 kept=statistics, seed=subject.drawn_from(params), show=print_result)


@verb
def average(results: SeedResults, out: out_file("average")) -> None:
    """Mean and standard deviation over runs that differ in their seed; refuses results that do not compare."""
    from restok.files import read_json, write_json
    from restok.files.artifact import Origin, body_of, digest_of
    from restok.metrics.results import average
    mean, paths = average(results), {path.as_posix(): path for path in results}
    made_of = Origin("average", {}, {name: digest_of(body_of(read_json(path))) for name, path in paths.items()}, paths)
    try:
        write_json(out, made_of.sealed(mean, out))
    finally:
        _print_mean(mean)


def _print_mean(mean: dict) -> None:
    table = Table("metric", "mean", "deviation", "95 % interval", title=f"{mean['protocol']} over seeds {mean['seeds']}")
    for name, value in mean["metrics"].items():
        low, high = value["interval"]
        table.add_row(name, f"{value['mean']:.5g}", f"{value['deviation']:.3g}", f"{low:.5g} to {high:.5g}")
    CONSOLE.print(table)
    for name, reason in mean["dropped"].items():
        say(f"{name}: {reason}")
