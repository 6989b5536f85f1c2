"""The one way to read what the stages write as JSON: an object that fits a strict model. A reader never checks again."""

import json
import reprlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from restok.errors import InputError, RestokError, printable
from restok.files import FileError, require_no_pipe

M = TypeVar("M", bound=BaseModel)
Refuse = Callable[[str], RestokError]    # of what is wrong with a file, the error that says it with the file's name and remedy


class Known(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Record(dict):
    """An object of a JSON file that knows its file: a missing key raises what `refuse` makes of "has no 'key'"."""

    def __init__(self, pairs: Any, path: Path, refuse: Refuse):
        super().__init__(pairs)
        self.path, self._refuse = path, refuse

    def __missing__(self, key: str) -> Any:
        raise self._refuse(f"has no {key!r}")


def load_record(path: str | Path, model: type[BaseModel] = Known, refuse: Refuse | None = None) -> Record:
    """The object in a JSON file, as it stands, once it is sure that it fits `model`. Bytes of a name that are no text are
    escaped. Raises FileError, which names file, key and remedy, or what `refuse` makes of a fault."""
    return _load(Path(path), model, refuse)[0]


def load_model(path: str | Path, model: type[M], refuse: Refuse | None = None) -> M:
    """`load_record`, as the model itself."""
    return _load(Path(path), model, refuse)[1]


def _load(path: Path, model: type[M], refuse: Refuse | None) -> tuple[Record, M]:
    refuse = refuse or (lambda what: FileError(f"{path}: {what}; make it again with the step that writes it"))
    require_no_pipe(path)
    try:
        tree = json.loads(path.read_text("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
        record = _records(tree, path, refuse)
        if not isinstance(record, Record):
            raise refuse(f"expected a JSON object, found {type(record).__name__}")
        return record, checked(record, model)
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror})") from None
    except InputError as error:
        raise refuse(str(error)) from None
    except RestokError:
        raise
    except ValueError as error:
        raise refuse(f"not valid JSON ({error})") from None
    except RecursionError:
        raise refuse("not valid JSON (nested too deep)") from None


def checked(value: Any, model: type[M]) -> M:
    """A plain value, as JSON has it, as a model. Raises InputError, which names the first key that does not fit."""
    try:
        return model.model_validate_json(json.dumps(_records(value, Path(), InputError)))       # lists may stand for tuples
    except ValidationError as failure:
        raise InputError(_explained(failure.errors()[0])) from None


def _once(pairs: list[tuple[str, Any]]) -> dict:
    once = dict(pairs)
    if len(once) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {key!r} is there twice")
    return once


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _records(value: Any, *about: Any) -> Any:
    if isinstance(value, dict):
        return Record(((printable(key), _records(found, *about)) for key, found in value.items()), *about)
    if isinstance(value, list):
        return [_records(found, *about) for found in value]
    return printable(value) if isinstance(value, str) else value


def _explained(error: Any) -> str:
    """A fault, with the path of its key."""
    key = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"has no {key!r}"
    if error["type"] == "value_error":
        return f"{key}: {message}" if isinstance(error["input"], list) else f"{key}.{message}".lstrip(".")
    return f"{key}: {message[0].lower()}{message[1:]}, found {reprlib.repr(error['input'])}"
