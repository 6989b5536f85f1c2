"""A trained network on disk: a folder with its weights and the settings that build it again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from restok.config.base import Config
from restok.config.load import ConfigError, parse
from restok.errors import RestokError
from restok.files import atomic_file, read_json, write_json

WEIGHTS, SETTINGS = "model.safetensors", "config.json"


class WeightsError(RestokError):
    """A folder without a network, or with one that is damaged or of another architecture; it names the file and the remedy."""


class NoWeightsError(WeightsError, FileNotFoundError):
    """A folder without a network."""


def save_network(folder: str | Path, network: nn.Module, settings: Mapping[str, Any]) -> None:
    """Write the weights and the settings into a folder, which is made where it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()})
    write_json(folder / SETTINGS, settings)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write safetensors, whole or not at all. Raises OSError where the file cannot be written, on a full disk above all."""
    with atomic_file(path) as partial:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, about)
        except SafetensorError as error:
            raise OSError(f"{path}: cannot be written ({error}); make room, or name another place") from error


def require_network(folder: str | Path, kind: str, command: str) -> None:
    """Raises NoWeightsError where a folder holds no network, as `load_network` does."""
    if not all(Path(folder, name).is_file() for name in (WEIGHTS, SETTINGS)):
        raise NoWeightsError(f"{folder}: no {kind} here ({WEIGHTS}, {SETTINGS}); `{command}` makes one")


def load_network(folder: str | Path, settings: type[Config], build: Callable[[Any], nn.Module], kind: str,
                 command: str) -> nn.Module:
    """What `build` makes of the saved settings, with the saved weights, in eval mode on the CPU. `kind` is what a network
    here is called, `command` what writes one.

    Raises NoWeightsError, ConfigError for settings that are none, WeightsError for weights that are damaged or do not fit.
    """
    require_network(folder, kind, command)
    weights, written = Path(folder, WEIGHTS), Path(folder, SETTINGS)
    try:
        network = build(parse(settings, read_json(written), str(written)))
    except ConfigError as error:
        raise ConfigError(f"{error}; `{command}` makes a {kind} that fits") from None
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{weights}: damaged or cut short ({error}); delete {folder} and run `{command}` again") from error
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    saved = {name: tensor.shape for name, tensor in state.items()}
    if wanted != saved:
        names = sorted(dict(wanted.items() ^ saved.items()))
        raise WeightsError(f"{weights}: does not fit the {SETTINGS} beside it, first at {names[0]!r}; run `{command}` again")
    network.load_state_dict(state, assign=True)
    return network.eval()
