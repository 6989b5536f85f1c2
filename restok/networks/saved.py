"""A trained network on disk: a folder with its weights and the settings that build it again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from restok.config.base import Config
from restok.config.load import ConfigError, parse
from restok.errors import RestokError
from restok.files import atomic_file, read_json, reading, write_json
from restok.files.artifact import digest_of, verify
from restok.nn.finite import NotFiniteError, not_finite

WEIGHTS, SETTINGS = "model.safetensors", "config.json"


class WeightsError(RestokError):
    """A folder without a network, or with one that is damaged or of another architecture; it names the file and the remedy."""


class NoWeightsError(WeightsError, FileNotFoundError):
    """A folder without a network."""


def save_network(folder: str | Path, network: nn.Module, settings: Mapping[str, Any]) -> None:
    """Write the weights and the settings into a folder, which is made where it is missing. The weights carry a digest of the
    settings that they belong to. Raises NotFiniteError for weights that hold NaN or infinity."""
    folder, state = Path(folder), {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    if bad := not_finite(state):
        raise NotFiniteError(f"{bad[0]} holds NaN or infinity, so the {type(network).__name__} is not saved; train it with a "
                             "lower learning rate or a higher precision")
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, state, {"settings": digest_of(settings)})
    write_json(folder / SETTINGS, settings)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write safetensors, whole or not at all. Raises OSError where the file cannot be written, on a full disk above all."""
    with atomic_file(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode                  # as the umask gives it; the writer's own file is its owner's alone
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, about)
        except SafetensorError as error:
            raise OSError(f"{path}: cannot be written ({error}); make room, or name another place") from error
        partial.chmod(mode)


def require_network(folder: str | Path, kind: str, command: str) -> None:
    """Raises NoWeightsError where a folder holds no network, as `load_network` does."""
    if not all(Path(folder, name).is_file() for name in (WEIGHTS, SETTINGS)):
        raise NoWeightsError(f"{folder}: no {kind} here ({WEIGHTS}, {SETTINGS}); `{command}` makes one")


def load_network(folder: str | Path, settings: type[Config], build: Callable[[Any], nn.Module], kind: str,
                 command: str) -> nn.Module:
    """What `build` makes of the saved settings, with the saved weights, in eval mode on the CPU. `kind` is what a network
    here is called, `command` what writes one. Weights in half precision arrive in the network's own.

    Raises NoWeightsError, ConfigError for settings that are none, FileError for files that cannot be read, WeightsError for
    weights that are damaged, hold NaN or infinity, or do not belong to the settings.
    """
    require_network(folder, kind, command)
    verify(Path(folder), WEIGHTS)
    weights, written = Path(folder, WEIGHTS), Path(folder, SETTINGS)
    found = read_json(written)
    try:
        network = build(parse(settings, found, str(written)))
    except ConfigError as error:
        raise ConfigError(f"{error}; `{command}` makes a {kind} that fits") from None
    except (RuntimeError, MemoryError) as error:       # torch's, for sizes beyond all memory
        raise ConfigError(f"{written}: no {kind} of these sizes can be made ({error}); run `{command}` again") from None
    state, digest = _read(weights, f"delete {folder} and run `{command}` again")
    wanted, saved = _shapes(network.state_dict()), _shapes(state)
    if wanted != saved:
        names = sorted(dict(wanted.items() ^ saved.items()))
        raise WeightsError(f"{weights}: does not fit the {SETTINGS} beside it, first at {names[0]!r}; run `{command}` again")
    if digest not in (None, digest_of(found)):
        raise WeightsError(f"{weights}: does not belong to {written}, changed or replaced since the two were written; "
                           f"put the {SETTINGS} back that came with the weights, or run `{command}` again")
    state = {name: tensor.to(network.get_parameter(name).dtype) for name, tensor in state.items()}
    if bad := not_finite(state):
        raise WeightsError(f"{weights}: {bad[0]} holds NaN or infinity; run `{command}` again")
    network.load_state_dict(state, assign=True)
    return network.eval()


def _read(weights: Path, remedy: str) -> tuple[dict[str, Tensor], str | None]:
    """The tensors and the digest of their settings; files of earlier versions have none."""
    with reading(weights, lambda error: WeightsError(f"{weights}: damaged or cut short ({error}); {remedy}")):
        with safe_open(weights, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get("settings")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple]:
    """What fits where: the shape, and whether numbers are whole."""
    return {name: (tensor.shape, tensor.is_floating_point()) for name, tensor in state.items()}
