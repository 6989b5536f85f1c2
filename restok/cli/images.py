"""The verbs that make images to look at, or to measure elsewhere: samples and reconstructions."""

from collections.abc import Sequence
from pathlib import Path

from restok.cli.base import Experiment, Overrides, Written, argument, option, read_to_compute, say, verb
from restok.cli.chain import GeneratorFolder, Start, TokenizerFolder
from restok.config import Sampling
from restok.config.base import LARGEST_SEED
from restok.config.load import ConfigError, parse

PRINTED = 64                             # lines of single images at most

SampleParams = option(Path | None, "Parameter file; without one, the published settings, and no guidance unless named.",
                      "--params", "-p")
GuidanceFile = option(Path | None, "File that `restok search-guidance` wrote; else --schedule and --scale, else "
                      "sampling.guidance of --params; without --params none.")
AnySchedule = option(str | None, "Guidance: constant, linear, step or cosine.")
AnyScale = option(float | None, "Guidance: largest scale; 1 is none.")
ClassNumbers = option(list[int] | None, "Number of a class to sample, from 0; repeatable.", "--class")
Classes = option(int | None, "How many classes to sample, spread evenly; every one, if not given, and in a picture 10.", min=1)
PerClass = option(int | None, "Samples of each class, if not given 16; into an .npz with --params, as many as are evaluated.",
                  "--per-class", "--count", min=1, max=100_000)
Temperature = option(float | None, "Else sampling.temperature, or 1.")
TopK = option(int | None, "Draw from the k likeliest codes; 0 is off. Else sampling.top_k, or 0.")
TopP = option(float | None, "Draw from the likeliest codes of this probability in all; 0 is off. Else sampling.top_p, or 0.95.")
Seed = option(int | None, "Else the parameters', or 0.", min=0, max=LARGEST_SEED)
SamplesFile = option(Path, "File to write: .npz (arr_0, labels), or .png or .jpg with a class a row.", "--out", "-o",
                     writes=Written(False, ("samples", "picture")))
Images = argument(list[Path], "Image files, folders of them, folders that `restok prepare` wrote (their validation "
                  "split), npz files (arr_0).")
Reconstructions = option(Path, "What to write: .png or .jpg with the originals above, .npz (arr_0, codes, labels), or a "
                         "folder, replaced whole.", "--out", "-o")
Keep = option(int | None, "Decode the first so many codes alone.")
BatchSize = option(int, "Images at once.", min=1)
Workers = option(int, "Threads that decode images.", min=0, max=256)


@verb
def sample(tokenizer: TokenizerFolder, generator: GeneratorFolder, out: SamplesFile, params: SampleParams = None,
           chosen: ClassNumbers = None, classes: Classes = None, per_class: PerClass = None, guidance: GuidanceFile = None,
           schedule: AnySchedule = None, scale: AnyScale = None, start: Start = 0.0, temperature: Temperature = None,
           top_k: TopK = None, top_p: TopP = None, seed: Seed = None, experiment: Experiment = None,
           overrides: Overrides = None) -> None:
    """Draw images of classes into a picture or an npz; without a parameter file, by the paper's settings."""
    from restok.stages.images import PICTURES, SAMPLING, sample
    from restok.stages.search import read_guidance
    if (overrides or experiment) and not params:
        raise ConfigError("--set and --experiment change a parameter file; name one with --params")
    if chosen and classes:
        raise ConfigError("--class names classes, --classes says how many to spread evenly; leave one of them out")
    if (schedule is None) != (scale is None) or (start and schedule is None) or (schedule and guidance):
        raise ConfigError("guidance: name --schedule and --scale (and --start), or a file with --guidance")
    settings = read_to_compute(params, overrides, experiment) if params else None
    named = schedule and {"schedule": schedule, "scale": scale, "start": start}
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p,
             "guidance": read_guidance(guidance).model_dump() if guidance else named}
    base = settings.sampling.model_dump(mode="json") if settings else SAMPLING
    sampling = parse(Sampling, base | {key: value for key, value in given.items() if value is not None}, "sampling")
    if settings:
        if sampling.guidance is None:
            raise ConfigError(f"{params}: sampling.guidance is null; name --guidance, or --schedule constant --scale 1 for "
                              "none")
        seed = settings.seed if seed is None else seed
        per_class = per_class or (None if out.suffix.lower() in PICTURES else settings.evaluation.samples_per_class)
    sample(tokenizer, generator, sampling, seed or 0, chosen or [], classes, per_class, out, guidance)


@verb
def reconstruct(images: Images, tokenizer: TokenizerFolder, out: Reconstructions, keep: Keep = None,
                batch_size: BatchSize = 16, workers: Workers = 0) -> None:
    """Reconstruct images, as centre crops of the tokenizer's size, and print their PSNR."""
    from restok.stages.reconstruct import reconstruct
    reconstruct(images, tokenizer, out, keep, batch_size, workers, _print_values)


def _print_values(values: Sequence[tuple[str, float]]) -> None:
    for name, value in values if len(values) <= PRINTED else ():
        say(f"{name}: {value:.2f} dB")
    if values:
        say(f"PSNR, mean of {len(values)}: {sum(value for _, value in values) / len(values):.2f} dB")
