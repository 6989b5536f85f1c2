"""What the verbs share: the application, options that several take, and how an error is shown."""

import inspect
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from types import GenericAlias, UnionType
from typing import Annotated, Any, NamedTuple, get_args

import typer
from rich.console import Console
from rich.logging import RichHandler

from restok.config import Params
from restok.config.load import ConfigError, load_params
from restok.errors import RestokError
from restok.experiments import load_trial
from restok.files.making import making
from restok.files.outputs import require_apart, require_writable
from restok.parts import WHOLE, Shard
from restok.progress import CONSOLE
from restok.signals import EXIT, Interrupted, answered

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode="rich",
                  help="ResTok: images to 128 ordered codes, and codes to images in 9 steps. Every verb reads a parameter file "
                       "and folders that earlier verbs wrote; the workflow (`snakemake`) calls them in order.")

Kind = type | GenericAlias | UnionType
UNREAD = 128 + signal.SIGPIPE             # as shells have it of a program that such a pipe ends


class Written(NamedTuple):
    """Marks the options that name what a verb writes; of other paths it reads."""

    folder: bool
    kinds: tuple[str, ...] = ()          # of files: those that it may replace


def option(kind: Kind, text: str, *names: str, writes: Written | None = None, **more: str | int) -> Any:
    """An option, called as its parameter is where no `names` are given."""
    return Annotated[kind, typer.Option(*names, help=text, **more), writes]


def out_file(*kinds: str) -> Any:
    """The option --out of a verb that writes one file of these kinds."""
    return option(Path, "File to write.", "--out", "-o", writes=Written(False, kinds))


def argument(kind: Kind, text: str) -> Any:
    return Annotated[kind, typer.Argument(help=text)]


FOLDER = Written(folder=True)

ParamsFile = option(Path, "Parameter file, such as params/demo.yaml.", "--params", "-p")
Overrides = option(list[str] | None, "Change one setting, such as tokenizer.width=512; repeatable.", "--set", "-s",
                   metavar="KEY=VALUE")
Experiment = option(str | None, "A row of experiments.tsv, beside the parameter file, and a seed: restok.10087.",
                    "--experiment", "-e")
Classifier = option(Path | None, "Folder that `restok train-classifier` wrote; only 'digits' networks need it.")
State = option(Path | None, "Where an unfinished measurement keeps its sums (.safetensors); run again to resume.",
               writes=Written(False, ("statistics",)))
Part = option(str | None, "Do one part of the work alone, such as 0/4, of 0/4 to 3/4.")
AnyParams = option(Path | None, "Parameter file; without one, the paper's protocol with Inception features.", "--params", "-p")


@app.callback()
def main() -> None:
    handler = RichHandler(console=CONSOLE, show_path=False) if CONSOLE.is_terminal else logging.StreamHandler(sys.stderr)
    pattern = "%(message)s" if CONSOLE.is_terminal else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=pattern, datefmt="%H:%M:%S", handlers=[handler])
    for chatty in ("httpx", "httpcore", "fsspec", "filelock", "fontTools"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a verb of the command; a parameter that is a dataclass of options becomes those options.

    What this package raises itself, and what the system says of files, is one message on standard error and exit code 1; a
    signal that asks to leave is one message and EXIT; a reader that has seen enough, as `head`, is no error and UNREAD;
    anything else keeps its traceback.
    """
    own = inspect.signature(function).parameters.values()
    groups = {each.name: each.annotation for each in own if is_dataclass(each.annotation)}
    flat = [one.replace(kind=one.KEYWORD_ONLY) for each in own for one in (
            inspect.signature(groups[each.name]).parameters.values() if each.name in groups else [each])]

    @wraps(function)
    def command(**given: Any) -> None:
        try:
            with making(), answered():
                _require_outputs(given, command.__annotations__)
                for name, group in groups.items():
                    given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
                function(**given)
                sys.stdout.flush()
        except Interrupted as stop:
            say(f"interrupted {stop}")
            raise typer.Exit(EXIT) from None
        except (RestokError, OSError) as error:
            if isinstance(error, BrokenPipeError) and _unread():
                raise typer.Exit(UNREAD) from None
            CONSOLE.print(f"[bold red]error[/]: {type(error).__name__}:", end=" ", highlight=False)
            say(str(error))
            raise typer.Exit(1) from None

    command.__signature__ = inspect.Signature(flat)
    command.__annotations__ = {each.name: each.annotation for each in flat}
    return app.command()(command)


def _require_outputs(given: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raises FileError or OSError where what the options name to be written cannot be, or where it would replace what is
    read."""
    paths = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
    paths = {name: values for name, values in paths.items() if values and all(isinstance(value, Path) for value in values)}
    marks = {name: mark for name in paths for mark in get_args(annotations[name]) if isinstance(mark, Written)}
    flags = {name: f"--{name.replace('_', '-')}" for name in paths}
    written = {flags[name]: (paths[name][0], mark.folder) for name, mark in marks.items()}
    require_apart(written, {flags[name]: paths[name] for name in paths if name not in marks})
    for name, mark in marks.items():
        require_writable(paths[name][0], mark.folder, mark.kinds)


def _unread() -> bool:
    """Whether nobody reads standard output any more. What is left of it is dropped then, or Python would complain at its end.
    """
    pipe = select.poll()
    pipe.register(sys.stdout.fileno(), 0)
    if not any(state & select.POLLERR for _, state in pipe.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError            # for the verb to end it


def output(wide: int = 200) -> Console:
    """Standard output, for what was asked for; `wide`: characters of a line where no terminal limits them."""
    console = _Output(highlight=False)
    if not console.is_terminal:
        console.width = wide
    return console


def say(text: str) -> None:
    """A line on standard error, as it is."""
    CONSOLE.print(text, markup=False, highlight=False, soft_wrap=True)


def parse_part(text: str | None) -> Shard:
    """'0/4' as Shard(0, 4); None as the whole. Raises ConfigError."""
    if text is None:
        return WHOLE
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise ConfigError(f"part {text!r}: expected PART/PARTS, counted from 0, such as 0/4 to 3/4")
    return Shard(int(part), int(parts))


def read_to_compute(params: Path, overrides: list[str] | None, experiment: str | None = None) -> Params:
    """The settings, whose number of threads torch takes from here on."""
    from restok.distributed import use_threads
    settings = read(params, overrides, experiment)
    use_threads(settings.threads)
    return settings


def read(params: Path, overrides: list[str] | None, experiment: str | None = None) -> Params:
    return load_trial(params, experiment, overrides or []) if experiment else load_params(params, overrides or [])
