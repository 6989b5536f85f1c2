"""Weights as the authors release them, and statistics."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spoilt.case import DROP, Case, Spoil, both, copied, cut, keys, mishaps, written
from spoilt.chain import SAMPLES, C, E, P, R, T
from spoilt.models import GEN, MEASURE, TOK, WEIGHTS, Harmful, one, pickled, spoiled, tensors

CONVERT = "convert --from release theirs/tokenizer.pt theirs/generator.safetensors out"
PT, INDEX = "convert --from release theirs/a.pt - out", "theirs/model.safetensors.index.json"
BY_INDEX = f"convert --from release {INDEX} - out"


def released(what: str, named: str, spoil: Spoil, words: str = CONVERT) -> Case:
    return Case(f"released weights, {what}", words, named, spoil)


def checkpoint(what: str, value: object, named: str = r"a\.pt") -> Case:
    """A pickle, or bytes in the place of one."""
    return released(what, named, written("theirs/a.pt", value if isinstance(value, bytes) else pickled(value)), PT)


def tokenizers(change: Callable[[dict], object]) -> Spoil:
    def spoil(home: Path) -> None:
        held = torch.load(home / "theirs/tokenizer.pt")
        change(held)
        written("theirs/tokenizer.pt", pickled(held))(home)

    return spoil


def generators(change: Callable[[dict], object]) -> Spoil:
    return tensors("theirs/generator.safetensors", change)


RELEASED = [
    *mishaps("released tokenizer", "theirs/tokenizer.pt", CONVERT),
    *mishaps("released generator", "theirs/generator.safetensors", CONVERT, without=("a link to nothing", "of noise", "empty")),
    *mishaps("released settings", "theirs/tokenizer.json", CONVERT,
             without=("missing", "empty", "a pipe", "a link to nothing", "a link to itself", "a folder")),
    checkpoint("a pickle that runs code", {"model": Harmful()}), checkpoint("numbers alone", {"steps": 3}),
    checkpoint("a list", [torch.zeros(2)]), checkpoint("averages without names", {"ema": {"shadow_params": [torch.zeros(2)]}}),
    checkpoint("of another model", {"model": {"conv.weight": torch.zeros(3, 3)}}),
    checkpoint("a pickle cut short", pickled({"a": torch.zeros(99)})[:200]),
    checkpoint("a zip of something else", b"PK\x05\x06" + bytes(18)),
    checkpoint("sparse", {"model": {"a": torch.eye(3).to_sparse()}}),
    released("of another suffix", r"a\.onnx", written("theirs/a.onnx", b"x"), PT.replace("a.pt", "a.onnx")),
    released("a part alone", "00001-of-00002", copied("theirs/generator.safetensors",
                                                      "theirs/model-00001-of-00002.safetensors"),
             "convert --from release theirs/model-00001-of-00002.safetensors - out"),
    *(released(f"an index {what}", r"index\.json", written(INDEX, content), BY_INDEX) for what, content in (
        ("of nothing", "{}"), ("that is none", "[]"), ("of files that are missing", '{"weight_map": {"a": "b.safetensors"}}'),
        ("out of its folder", '{"weight_map": {"a": "../b.safetensors"}}'), ("cut short", '{"weight_map": {"a"'),
        ("of other tensors", '{"weight_map": {"nosuch": "generator.safetensors"}}'))),
    released("two files in a folder", "theirs.*name the file", copied("theirs/generator.safetensors", "theirs/b.safetensors"),
             "convert --from release theirs - out"),
    released("swapped", "generator.safetensors|tokenizer.pt", lambda home: None,
             "convert --from release theirs/generator.safetensors theirs/tokenizer.pt out"),
    released("NaN", r"tokenizer\.pt",
             tokenizers(lambda held: held.update({"quantize.embedding.weight": torch.full((64, 8), torch.nan)}))),
    released("a tensor of another shape", r"generator\.safetensors", generators(one(lambda value: value[..., :-1]))),
    released("a tensor less", r"generator\.safetensors.*missing", generators(lambda held: dict(list(held.items())[1:]))),
    *(released(f"{key} is {value}", "n_layer|layers", keys("theirs/generator.json", {key: value})) for key, value in (
        ("n_layer", 3), ("n_layer", "two"), ("n_layer", 10**9))),
    released("settings that are none", r"other\.yaml", written("other.yaml", "learning_rate: 1"),
             f"{CONVERT} --generator-config other.yaml"),
    released("to release a model of other sizes", "tokenizer", lambda home: None, f"convert --to release {TOK} {GEN} out"),
]

REF = f"{R}/reference/validation.safetensors"


def header(key: str, value: object) -> Spoil:
    """Another value in what the header of statistics says."""
    def spoil(home: Path) -> None:
        with safe_open(home / REF, "pt") as file:
            about = file.metadata()
        held, facts = load_file(home / REF), json.loads(about["facts"])
        node, (*parents, leaf) = facts, key.split(".")
        for parent in parents:
            node = node[parent]
        if value is DROP:
            del node[leaf]
        else:
            node[leaf] = value
        written(REF, b"")(home)
        save_file(held, home / REF, about | {"facts": json.dumps(facts)})

    return spoil


def cache(home: Path, **changes: object) -> None:
    """Statistics as torch-fidelity keeps them."""
    torch.save({"mu": np.zeros(64), "sigma": np.eye(64)} | changes, home / "theirs.pt")


FOREIGN = f"evaluate {P} {C} {SAMPLES} --reference theirs.pt --out out.json"
STATISTICS = [
    Case("a cache of torch-fidelity", FOREIGN, "theirs.pt", cache, read=True),
    *(case._replace(spoil=both(cache, case.spoil)) for case in mishaps("a cache of torch-fidelity", "theirs.pt", FOREIGN)),
    *(Case(f"a cache of torch-fidelity, {what}", FOREIGN, f"theirs.pt.*{named}", partial(cache, **changes))
      for what, named, changes in (("of NaN", "NaN", {"sigma": np.full((64, 64), np.nan)}),
                                   ("of another network", "2048", {"mu": np.zeros(2048), "sigma": np.eye(2048)}),
                                   ("with code in it", "no statistics", {"mu": Harmful()}),
                                   ("of no pair", "mean of shape", {"sigma": np.eye(3)}))),
    *mishaps("statistics", REF, MEASURE),
    *(Case(f"statistics, {key} is {'missing' if value is DROP else value}", MEASURE, "validation.safetensors",
           header(key, value))
      for key, value in (("images", DROP), ("images.n", 0), ("images.n", 10**15), ("images.n", "all"), ("features.dims", -3),
                         ("features.dims", 10**9), ("features.sha256", DROP),
                         ("levels", "none"), ("shift", None), ("batch_size", 0), ("spatial", 2.5), ("logits", 11))),
    Case("statistics, of another network", MEASURE, "features|network|sha256", header("features.sha256", "another")),
    *(Case(f"statistics, {what}", MEASURE, "validation", tensors(REF, change)) for what, change in (
        ("NaN", one(spoiled(torch.nan))), ("a tensor less", lambda held: dict(list(held.items())[1:])),
        ("a tensor more", lambda held: held | {"published.other.mean": torch.zeros(2)}),
        ("images missing", lambda held: held | {"seen": torch.zeros_like(held["seen"])}),
        ("half precision", lambda held: {key: value.half() if value.is_floating_point() else value for key,
                                         value in held.items()}))),
    Case("statistics, without a header", MEASURE, "validation.safetensors",
         lambda home: (written(REF, b"")(home), save_file({"a": torch.zeros(2)}, home / REF)) and None),
    Case("statistics, twice the same shard", f"evaluate {P} {E} --samples {REF} --samples {REF} --out out.json",
         "validation.safetensors: 360 of its images are in .*validation.safetensors"),
    Case("statistics, of other images than the models make", f"evaluate {P} {E} {T} --originals {R}/data --samples {REF} "
         "--out out.json", "validation.safetensors: not a part"),
    Case("weights as statistics", f"evaluate {P} {E} --samples {TOK}/{WEIGHTS} --out out.json", "model.safetensors"),
    Case("sums of another measurement", f"{MEASURE} --state sums.safetensors", "sums.safetensors: of other.*starting again",
         copied(REF, "sums.safetensors"), read=True),
    Case("sums cut short", f"{MEASURE} --state sums.safetensors", "sums.safetensors",
         both(copied(REF, "sums.safetensors"), cut("sums.safetensors"))),
]
