"""The verbs of the chain, in its order: each writes what the next one reads."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from restok.cli.base import (
    FOLDER,
    Classifier,
    Experiment,
    Overrides,
    ParamsFile,
    Part,
    State,
    argument,
    option,
    out_file,
    parse_part,
    read,
    read_to_compute,
    verb,
)
from restok.cli.evaluate import print_choice, print_result
from restok.config import Guidance, Params
from restok.config.load import ConfigError

if TYPE_CHECKING:                        # torch takes seconds to import, and `--help` does without
    from restok.stages.evaluator import Evaluator

Data = option(Path, "Folder that `restok prepare` wrote.")
TokenizerFolder = option(Path, "Folder that `restok train-tokenizer` or `restok convert` wrote.")
GeneratorFolder = option(Path, "Folder that `restok train-generator` or `restok convert` wrote.")
ThreadsOf = option(Path | None, "Parameter file, of which the number of threads is taken.", "--params", "-p")
Codes = option(Path, "Folder that `restok encode` wrote.")
RunFolder = option(Path, "Folder for an unfinished run, to resume by the same command, and for what it made.", writes=FOLDER)
KeptFolder = option(Path | None, "Folder in which what is made is kept, for when --out is deleted.", "--run",
                    writes=FOLDER)
OutFolder = option(Path, "Folder to write; replaced whole, or not at all.", "--out", "-o", writes=FOLDER)
Checkpoint = option(str, "Label to train to, such as 250k.")
Previous = option(Path | None, "Folder of the checkpoint before it; none for the first.")
Schedule = option(str, "constant, linear, step or cosine.")
Scale = option(float, "Largest scale; 1 is none.")
Start = option(float, "Start ratio; 'step' only.")
Reference = option(Path, "A statistics file, an ADM npz, or images as in --originals.")
Parts = argument(list[Path] | None, "Folders that --part wrote, to gather; none to do the work itself.")
Candidates = argument(list[Path], "Files that `restok score-guidance` wrote.")
Finalists = option(list[Path] | None, "Files that `restok score-finalist` wrote of the best candidates; the choice is then "
                   "among these (repeat the option).", "--finalist")
Rank = option(int, "Which of the candidates, by their distance: 1 is the best.", min=1)


@verb
def prepare(params: ParamsFile, out: OutFolder, parts: Parts = None, run: KeptFolder = None, part: Part = None,
            overrides: Overrides = None) -> None:
    """Check every image once and pack both splits into random-access tables: all at once, or in parts.

    A part (--part 0/4) may be made by a job of its own. Named here, all parts are gathered into what one job would write."""
    from restok.data.prepare import gather, prepare, prepare_part
    settings = read(params, overrides)
    if part and (parts or run):
        raise ConfigError("--part: makes one part, of which --out is all that is kept; leave out --run and the parts' folders")
    if part:
        prepare_part(settings.data, settings.tokenizer.image_size, parse_part(part), out)
    elif parts:
        gather(settings.data, settings.tokenizer.image_size, parts, out, run)
    else:
        prepare(settings.data, settings.tokenizer.image_size, out, run)


@verb
def train_classifier(params: ParamsFile, data: Data, out: OutFolder, run: KeptFolder = None,
                     overrides: Overrides = None) -> None:
    """Train the demo's feature network on the training split; report its validation accuracy."""
    from restok.training.classifier import train_classifier
    train_classifier(read_to_compute(params, overrides), data, out, run)


@verb
def train_tokenizer(params: ParamsFile, data: Data, run: RunFolder, out: OutFolder, checkpoint: Checkpoint,
                    previous: Previous = None, classifier: Classifier = None, experiment: Experiment = None,
                    overrides: Overrides = None) -> None:
    """Train the tokenizer to a checkpoint, from the one before it (Table 7).

    On SIGTERM, SIGINT, SIGHUP or SIGUSR1 it finishes the step, saves a state and leaves with exit code 75; the same command
    goes on from there."""
    from restok.distributed import is_first, leave_together, processes
    from restok.mirror.child import beside
    from restok.training.tokenizer import train_tokenizer
    with processes(), beside(out) if is_first() else nullcontext():
        leave_together()
        train_tokenizer(read_to_compute(params, overrides, experiment), checkpoint, data, classifier, previous, run, out)


@verb
def encode(params: ParamsFile, data: Data, tokenizer: TokenizerFolder, out: OutFolder, parts: Parts = None, part: Part = None,
           run: KeptFolder = None, experiment: Experiment = None, overrides: Overrides = None) -> None:
    """Encode every crop of the training split into one packed array; or one part of it; or gather the parts.

    With --run, on SIGTERM, SIGINT, SIGHUP or SIGUSR1 it finishes the batch and leaves with exit code 75; the same command goes
    on from there, and so it does after a kill."""
    from restok.stages.codes import encode, gather
    settings, share = read_to_compute(params, overrides, experiment), parse_part(part)
    if parts and part:
        raise ConfigError(f"--part {part}: encodes, and {parts[0]} is to be gathered; give one of them")
    if parts:
        gather(settings, data, tokenizer, parts, out, run=run)
    else:
        encode(settings, data, tokenizer, out, run=run, part=share)


@verb
def train_generator(params: ParamsFile, codes: Codes, tokenizer: TokenizerFolder, run: RunFolder, out: OutFolder,
                    experiment: Experiment = None, overrides: Overrides = None) -> None:
    """Train the generator on codes (Table 8).

    On SIGTERM, SIGINT, SIGHUP or SIGUSR1 it finishes the step, saves a state and leaves with exit code 75; the same command
    goes on from there."""
    from restok.distributed import is_first, leave_together, processes
    from restok.mirror.child import beside
    from restok.training.generator import train_generator
    with processes(), beside(out) if is_first() else nullcontext():
        leave_together()
        train_generator(read_to_compute(params, overrides, experiment), codes, tokenizer, run, out)


@verb
def score_guidance(params: ParamsFile, reference: Reference, tokenizer: TokenizerFolder, generator: GeneratorFolder,
                   out: out_file("candidate"), schedule: Schedule, scale: Scale, start: Start = 0.0,
                   classifier: Classifier = None, state: State = None, experiment: Experiment = None,
                   overrides: Overrides = None) -> None:
    """Measure one guidance setting on samples of its own."""
    from restok.config.load import parse
    from restok.distributed import processes
    from restok.stages.measure import score_guidance
    guidance = parse(Guidance, {"schedule": schedule, "scale": scale, "start": start}, "guidance")
    settings = read_to_compute(params, overrides, experiment)
    with processes():
        evaluator = _searching(settings, classifier)
        score_guidance(evaluator, settings, guidance, tokenizer, generator, reference, state, out, print_result)


@verb
def score_finalist(candidates: Candidates, params: ParamsFile, reference: Reference, tokenizer: TokenizerFolder,
                   generator: GeneratorFolder, out: out_file("candidate"), rank: Rank, classifier: Classifier = None,
                   state: State = None, experiment: Experiment = None, overrides: Overrides = None) -> None:
    """Measure one of the best candidates again, on more samples."""
    from restok.distributed import processes
    from restok.stages.measure import score_finalist
    settings = read_to_compute(params, overrides, experiment)
    with processes():
        evaluator = _searching(settings, classifier)
        score_finalist(evaluator, settings, candidates, rank, tokenizer, generator, reference, state, out, print_result)


def _searching(settings: Params, classifier: Path | None) -> "Evaluator":
    from restok.stages.evaluator import Evaluator
    first = settings.evaluation.model_copy(update={"also": ()})
    return Evaluator.load(first, classifier, settings.tokenizer.image_size, settings.data.workers)


@verb
def search_guidance(candidates: Candidates, out: out_file("guidance"), finalists: Finalists = None) -> None:
    """Choose the guidance setting with the lowest distance (Table 6)."""
    from restok.stages.search import search_guidance
    search_guidance(candidates, finalists or [], out, print_choice)


@verb
def panel(data: Data, tokenizer: TokenizerFolder, out: out_file("panel"), params: ThreadsOf = None,
          experiment: Experiment = None, overrides: Overrides = None) -> None:
    """What Fig. 5 shows: a few images from every prefix of their codes, and the encoder's attention (npz)."""
    from restok.stages.images import panel
    if params:
        read_to_compute(params, overrides, experiment)
    elif experiment or overrides:
        raise ConfigError("--set and --experiment change a parameter file; name one with --params")
    panel(data, tokenizer, out)


@verb
def layout(params: ParamsFile, out: out_file("layout"), overrides: Overrides = None) -> None:
    """What Figs. 8 and 9 show: groups, attention masks and position ids of the models (npz)."""
    from restok.stages.layout import layout
    layout(read(params, overrides), out)
