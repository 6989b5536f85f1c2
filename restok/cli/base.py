"""What the verbs share: the application, options that several take, and how an error is shown."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Annotated, Any

import typer
from rich.logging import RichHandler

from restok.config import Params
from restok.config.load import load_params
from restok.errors import RestokError
from restok.experiments import load_trial
from restok.progress import CONSOLE

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode="rich",
                  help="ResTok: images to 128 ordered codes, and codes to images in 9 steps. Every verb reads a parameter file "
                       "and folders that earlier verbs wrote; the workflow (`snakemake`) calls them in order.")

def option(kind: type | UnionType, text: str, *names: str, **more: str | int) -> Any:
    return Annotated[kind, typer.Option(*names, help=text, **more)]


ParamsFile = option(Path, "Parameter file, such as params/demo.yaml.", "--params", "-p")
Overrides = option(list[str] | None, "Change one setting, such as tokenizer.width=512; repeatable.", "--set", "-s",
                   metavar="KEY=VALUE")
Experiment = option(str | None, "A row of experiments.tsv, beside the parameter file, and a seed: restok.10087.",
                    "--experiment", "-e")
Classifier = option(Path | None, "Folder that `restok train-classifier` wrote; only 'digits' networks need it.", "--classifier")
State = option(Path | None, "Where an unfinished measurement keeps its sums (.safetensors); run again to resume.", "--state")
OutFile = option(Path, "File to write.", "--out", "-o")
AnyParams = option(Path | None, "Parameter file; without one, the paper's protocol with Inception features.", "--params", "-p")


@app.callback()
def main() -> None:
    handler = RichHandler(console=CONSOLE, show_path=False) if CONSOLE.is_terminal else logging.StreamHandler(sys.stderr)
    pattern = "%(message)s" if CONSOLE.is_terminal else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=pattern, datefmt="%H:%M:%S", handlers=[handler])
    for chatty in ("httpx", "httpcore", "fsspec", "filelock", "fontTools"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@contextmanager
def plain_errors() -> Iterator[None]:
    """What this package raises itself, and what the system says of files, is one message on standard error and exit code 1;
    anything else keeps its traceback."""
    try:
        yield
    except (RestokError, OSError) as error:
        CONSOLE.print(f"[bold red]error[/]: {type(error).__name__}:", end=" ", highlight=False)
        CONSOLE.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def read(params: Path, overrides: list[str] | None, experiment: str | None = None) -> Params:
    return load_trial(params, experiment, overrides or []) if experiment else load_params(params, overrides or [])
