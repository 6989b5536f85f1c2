"""Models, stores of codes, states of trainings, released weights and statistics."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spoilt.case import (
    DROP,
    Case,
    Spoil,
    altered,
    both,
    copied,
    cut,
    empty,
    garbage,
    keys,
    mishaps,
    pipe,
    written,
)
from spoilt.chain import C, E, G, P, R, T

TOK, GEN, CLS, CODES = f"{R}/tokenizer/750k", f"{R}/generator/750k", f"{R}/classifier", f"{R}/codes/750k"
WEIGHTS = "model.safetensors"
ENCODE, SAMPLE = f"encode {P} --data {R}/data {T} --out out", f"sample {T} {G} --per-class 1 --out s.npz"
MEASURE = f"evaluate {P} {E} --samples {R}/samples/750k.npz --out out.json"


def tensors(name: str, change: Callable[[dict], object]) -> Spoil:
    """Other tensors in a file of safetensors, whose header stays."""
    def spoil(home: Path) -> None:
        with safe_open(home / name, "pt") as file:
            about = file.metadata()
        held = load_file(home / name)
        changed = change(held)
        written(name, b"")(home)
        save_file({key: value.contiguous() for key, value in (changed or held).items()}, home / name, about)

    return spoil


def one(change: Callable[[torch.Tensor], torch.Tensor], at: int = 0) -> Callable[[dict], None]:
    """One of the tensors becomes another."""
    def changed(held: dict) -> None:
        name = sorted(name for name, value in held.items() if value.is_floating_point() and value.numel() > 1)[at]
        held[name] = change(held[name].clone())

    return changed


def spoiled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.view(-1).index_fill(0, torch.tensor(tensor.numel() // 2), value).view(tensor.shape)


def model(kind: str, folder: str, words: str, other: str) -> list[Case]:
    """What may happen to the folder of a model."""
    at, name = f"{folder}/{WEIGHTS}", folder.removeprefix(f"{R}/")
    return [
        *mishaps(f"{kind}, weights", at, words, name, without=("empty", "a link to itself")),
        *mishaps(f"{kind}, settings", f"{folder}/config.json", words, name, without=("cut short",)),
        *(Case(f"{kind}, {what}", words, f"{name}/.*safetensors", tensors(at, change)) for what, change in (
            ("NaN", one(spoiled(torch.nan))), ("infinity", one(spoiled(torch.inf), -1)),
            ("a tensor more", lambda held: held | {"more": torch.zeros(2)}),
            ("a tensor less", lambda held: dict(list(held.items())[1:])),
            ("a tensor of another shape", one(lambda value: value[..., :-1])),
            ("whole numbers", one(lambda value: value.long())))),
        Case(f"{kind}, another model", words, name, copied(f"{other}/{WEIGHTS}", at)),
        Case(f"{kind}, an unknown setting", words, r"config\.json.*more", keys(f"{folder}/config.json", {"more": 1})),
    ]


def settings(kind: str, words: str, at: str, *changes: tuple) -> list[Case]:
    return [Case(f"{kind}, {key} is {'missing' if value is DROP else value}", words,
                 rf"config\.json.*{named}|{at}.*config\.json",
                 keys(f"{at}/config.json", {key: value})) for key, value, named in changes]


MODELS = [
    *model("tokenizer", TOK, ENCODE, GEN), *model("generator", GEN, SAMPLE, TOK), *model("classifier", CLS, MEASURE, TOK),
    *settings("tokenizer", ENCODE, TOK, ("width", DROP, "width"), ("width", 10**9, "width|memory"),
              ("rope_base", 20000, "rope_base"),
              ("latent_init", "pooled", "x"), ("width", "64", "width"), ("heads", 3, "heads|width"),
              ("commitment", -1, "commitment")),
    *settings("generator", SAMPLE, GEN, ("layers", DROP, "layers"), ("layers", 10**6, "x"), ("rope_base", 5, "rope_base"),
              ("ntp", 0, "ntp"),
              ("classes", None, "classes")),
    *settings("classifier", MEASURE, CLS, ("channels", [], "channels"), ("channels", [16, 32, -64], "channels"),
              ("classes", DROP, "classes")),
    Case("generator of another tokenizer", SAMPLE, "750k", copied(f"{R}/generator/1M", GEN)),
    *(Case(f"generator, metrics.json {what}", SAMPLE, r"metrics\.json", spoil(f"{GEN}/metrics.json")) for what, spoil in (
        ("without its tokenizer", lambda at: keys(at, {"tokenizer": DROP})),
        ("with a number for it", lambda at: keys(at, {"tokenizer": 7})), ("cut", cut),
        ("a pipe", pipe))),
]

TRAIN = f"train-generator {P} --codes {CODES} {T} --run new --out out"


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(home: Path) -> None:
        value = change(np.load(home / name))
        written(name, b"")(home)
        np.save(home / name, value, allow_pickle=value.dtype.hasobject)

    return spoil


STORES = [
    *mishaps("codes", f"{CODES}/codes.npy", TRAIN, "codes/750k"),
    *mishaps("labels", f"{CODES}/labels.npy", TRAIN, "codes/750k", without=("of noise", "a link to nothing")),
    *mishaps("manifest of codes", f"{CODES}/manifest.json", TRAIN, "codes/750k"),
    *(Case(f"manifest of codes, {key} is {'missing' if value is DROP else value}", TRAIN, f"codes/750k.*{key}|generator.{key}",
           keys(f"{CODES}/manifest.json", {key: value}))
      for key, value in (("images", DROP), ("images", 0), ("images", "1437"), ("crops", -1), ("tokens", DROP), ("tokens", 8.5),
                         ("codebook_size", 10**9), ("codebook_size", 64),
                         ("classes", DROP), ("classes", 11), ("tokenizer", DROP), ("tokenizer", 5))),
    *(Case(f"codes, {what}", TRAIN, "codes/750k", array(f"{CODES}/codes.npy", change)) for what, change in (
        ("out of range", lambda codes: np.full_like(codes, 60000)), ("other codes", lambda codes: codes[::-1]),
        ("a row less", lambda codes: codes[1:]),
        ("of 64 bits", lambda codes: codes.astype(np.int64)), ("of floats", lambda codes: codes.astype(np.float16)),
        ("none", lambda codes: codes[:0]),
        ("of pickles", lambda codes: np.array([{}], object)))),
    Case("labels, out of range", TRAIN, "codes/750k", array(f"{CODES}/labels.npy", lambda labels: labels + 5)),
    Case("labels, shuffled", TRAIN, "labels.npy", array(f"{CODES}/labels.npy", lambda labels: np.roll(labels, 1))),
    Case("codes of another tokenizer", TRAIN, "tokenizer", copied(f"{R}/codes/1M", CODES)),
]

AFTER = f"train-tokenizer {P} --data {R}/data {C} --checkpoint 1M --previous {TOK} --run new --out out"


class Harmful:
    """Unpickled with code allowed, it makes a file."""

    def __reduce__(self):
        return (open, ("harm", "w"))


def pickled(value: object) -> bytes:
    import io
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def unfinished(*spoils: Callable[[str], Spoil]) -> Spoil:
    """A training of the generator that was killed after two states, newest first, which are then spoilt."""
    def spoil(home: Path) -> None:
        states = sorted(Path(home, "unfinished").glob("*/state_*.pt"), key=lambda path: -int(path.stem[6:]))
        for path, does in zip(states, spoils, strict=False):
            does(path.relative_to(home).as_posix())(home)

    return spoil


RESUME = f"train-generator {P} --codes {CODES} {T} --run unfinished --out out"
STATES = [
    *mishaps("a checkpoint's state", f"{TOK}/state.pt", AFTER, "tokenizer/750k"),
    *mishaps("a checkpoint's metrics", f"{TOK}/metrics.json", AFTER, "tokenizer/750k"),
    Case("a checkpoint's state, a changed byte", AFTER, "state.pt", altered(f"{TOK}/state.pt")),
    Case("a checkpoint's state, another's", AFTER, "state.pt", copied(f"{R}/tokenizer/1M/state.pt", f"{TOK}/state.pt")),
    Case("a checkpoint's state, a pickle that runs code", AFTER, "state.pt",
         written(f"{TOK}/state.pt", pickled({"a": Harmful()}))),
    Case("a checkpoint's weights, another's", AFTER, "750k", copied(f"{R}/tokenizer/1M/{WEIGHTS}", f"{TOK}/{WEIGHTS}")),
    Case("a checkpoint's settings, another's", AFTER, "config.json", keys(f"{TOK}/config.json", {"width": 32})),
    Case("a checkpoint of another step", AFTER, "not at step 4", keys(f"{TOK}/metrics.json", {"step": 5})),
    Case("a checkpoint without its step", AFTER, "metrics.json.*step", keys(f"{TOK}/metrics.json", {"step": DROP})),
    Case("the checkpoint itself as the one before", AFTER.replace(TOK, f"{R}/tokenizer/1M"), "not at step 4"),
    *(Case(f"states of a killed run, the newest {what}", RESUME,
           r"state_6\.pt: .*passed over.*state_4\.pt: resuming after step 4", unfinished(does), read=True)
      for what, does in (("cut short", cut), ("a changed byte", altered), ("empty", empty), ("noise", garbage),
                         ("a list", lambda name: written(name, pickled([1]))),
                         ("a pickle that runs code", lambda name: written(name, pickled({"a": Harmful()}))),
                         ("a state without its step", lambda name: written(name,
                             pickled({"identity": Path(name).parent.name}))),
                         ("the older one", lambda name: copied(name.replace("_6", "_4"), name)),
                         ("a mapping of nothing", lambda name: written(name, pickled({})))) ),
    Case("states of a killed run, both cut short", RESUME, r"state_6.*passed over.*state_4.*passed over.*generator 8/8",
         unfinished(cut, cut), read=True),
    Case("states of a killed run, the newest a pipe", RESUME, r"state_6\.pt", unfinished(pipe)),
    Case("states of a killed run, a log of noise", RESUME, r"resuming after step 6",
         lambda home: garbage(next(Path(home, "unfinished").glob("*/log.jsonl")).relative_to(home).as_posix())(home),
         read=True),
    Case("states of a killed run, a strange file among them", RESUME, "state_new|resuming",
         lambda home: next(Path(home, "unfinished").glob("*/state_6.pt")).with_name("state_new.pt").touch(), read=True),
]

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


STATISTICS = [
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
         "counted twice"),
    Case("weights as statistics", f"evaluate {P} {E} --samples {TOK}/{WEIGHTS} --out out.json", "model.safetensors"),
    Case("sums of another measurement", f"{MEASURE} --state sums.safetensors", "sums.safetensors: of other.*starting again",
         copied(REF, "sums.safetensors"), read=True),
    Case("sums cut short", f"{MEASURE} --state sums.safetensors", "sums.safetensors",
         both(copied(REF, "sums.safetensors"), cut("sums.safetensors"))),
]
