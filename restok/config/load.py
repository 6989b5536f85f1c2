"""Reading `params/*.yaml`: overrides, errors that name the key and the remedy, and what of a file a result depends on."""

import difflib
import json
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from restok.config import Choice, Config, Evaluation, Params, Site
from restok.config.text import ConfigError, read_text, read_yaml

# What may change without changing any result: excluded from the identity of a run.
INCIDENTAL = {"data": {"workers"}, "codes": {"batch_size"}, "sampling": {"batch_size"},
              "tokenizer_training": {"log_every", "save_every", "checkpointing"},
              "generator_training": {"log_every", "save_every", "checkpointing"},
              "evaluation": {"save_every"}}


def settings_tree(params: Params) -> dict:
    """Every setting that a result may depend on, as plain values."""
    return params.model_dump(mode="json", exclude=INCIDENTAL)


def canonical_json(settings: Params | dict, *names: str) -> str:
    """The sections and keys (such as 'tokenizer', 'data.crop_scale') of parameters, or of their `settings_tree`, as JSON."""
    tree = settings if isinstance(settings, dict) else settings_tree(settings)
    return json.dumps({name: reduce(dict.__getitem__, name.split("."), tree) for name in names}, sort_keys=True)


def load_params(path: str | Path, overrides: Iterable[str] = ()) -> Params:
    """Read a parameter file, apply overrides such as 'tokenizer.width=512', and check it whole.

    Raises ConfigError, one line a fault, each with the key's path and, for an unknown key, the nearest valid one.
    """
    tree = read_tree(path)
    apply_overrides(tree, overrides)
    return parse(Params, tree, str(path))


def read_tree(path: str | Path) -> dict:
    """A parameter file as written, unchecked. Raises ConfigError."""
    text = read_text(path, "valid YAML")
    try:
        tree = read_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(tree).__name__}")
    return tree


# The paper's protocols, for images that belong to no parameter file: as params/imagenet256.yaml writes them, without DINOv2.
PROTOCOL = {"features": "inception", "also": [], "weights": None, "dinov2_weights": None, "fdr6_weights": {},
            "lpips": True, "lpips_weights": None, "reference": None, "samples_per_class": 50, "neighbours": 3,
            "distances": ["exact", "adm-fp16"], "batch_size": 64, "save_every": 5000}


def load_protocol(overrides: Iterable[str] = ()) -> Evaluation:
    """The settings of an evaluation without a parameter file; overrides as in 'evaluation.neighbours=5'. Raises ConfigError."""
    tree = {"evaluation": deepcopy(PROTOCOL)}
    apply_overrides(tree, overrides)
    if len(tree) > 1:
        raise ConfigError(f"{', '.join(list(tree)[1:])}: without a parameter file only evaluation.KEY can be set")
    return parse(Evaluation, tree["evaluation"], "evaluation")


CHOICE = "run.yaml"


def load_choice(given: dict | None = None) -> Choice:
    """What run.yaml in this folder chooses; `given` is what a workflow read of it, or was told instead. Raises ConfigError."""
    tree = read_tree(CHOICE) if given is None else {key: given.get(key) for key in Choice.model_fields}
    if tree.get("run") is not None:
        tree["run"] = str(tree["run"])                       # a file may be called 256.yaml
    return parse(Choice, tree, CHOICE)


def load_site(profile: dict) -> Site:
    """The block `site` of a profile, which need not have one. Raises ConfigError."""
    return parse(Site, profile.get("site") or {}, "site")


def parse(model: type[Config], tree: Any, source: str) -> Any:
    """`tree` as a `model`; ConfigError names `source` and every faulty key. JSON lets lists stand for tuples, and only that."""
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as failure:
        lines = [f"{source}: {_explain(model, error)}" for error in failure.errors()]
        raise ConfigError("\n".join(lines)) from None


def override_path(override: str) -> str:
    """Of 'SECTION.KEY=VALUE' what stands before the first '='."""
    return override.partition("=")[0].strip()


def apply_overrides(tree: dict, overrides: Iterable[str]) -> None:
    """Set each 'SECTION.KEY=VALUE', a value in YAML, in a tree of settings. Raises ConfigError, also where one would undo
    another one."""
    done = []
    for override in overrides:
        path, value = override_path(override), override.partition("=")[2]
        if any(f"{other}.".startswith(f"{path}.") for other in done):
            raise ConfigError(f"override {override!r}: undoes another one of {path}; leave one of them out")
        done.append(path)
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if "=" not in override or not leaf or not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: expected SECTION.KEY=VALUE with a section of the parameter file")
        try:
            node[leaf] = read_yaml(value)
        except ConfigError as error:
            raise ConfigError(f"override {override!r}: {error}") from None


def _explain(model: type[Config], error: dict) -> str:
    where = [str(part) for part in error["loc"]]
    path = ".".join(where)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], _fields(model, where[:-1]), n=1, cutoff=0.5)
        return f"{path}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    if error["type"] == "missing":
        return f"{path}: missing; every setting is written out, as in params/demo.yaml"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":          # opens with the key's own name
        return ".".join([*where, message])
    return f"{path}: {message[0].lower()}{message[1:]}, found {error['input']!r}"


def _fields(model: type[Config], path: Sequence[str]) -> list[str]:
    for name in path:
        field = model.model_fields[name].annotation
        options = [field, *getattr(field, "__args__", ())]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, Config))
    return list(model.model_fields)


def schema() -> str:
    """JSON schema of a parameter file, for editors; `workflow/schemas/params.json` holds it (`make schema`)."""
    return json.dumps(Params.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
