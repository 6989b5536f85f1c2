"""Models, stores of codes, and the states of trainings."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spoilt.case import DROP, Case, Spoil, altered, both, copied, cut, empty, garbage, gone, keys, mishaps, pipe, written
from spoilt.chain import SAMPLES, C, E, G, P, R, T

TOK, GEN, CLS, CODES = f"{R}/tokenizer/main/750k", f"{R}/generator/main/750k", f"{R}/classifier", f"{R}/codes/main/750k"
WEIGHTS = "model.safetensors"
ENCODE, SAMPLE = f"encode {P} --data {R}/data {T} --out out", f"sample {T} {G} --per-class 1 --out s.npz"
MEASURE = f"evaluate {P} {E} {SAMPLES} --out out.json"


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


def bare(folder: str, spoil: Spoil) -> Spoil:
    """The folder of a model without a manifest, as `convert` writes it: what a digest would refuse first is looked at."""
    return both(gone(f"{folder}/manifest.json"), spoil)


def model(kind: str, folder: str, words: str, other: str, *changes: tuple[str, object]) -> list[Case]:
    """What may happen to the folder of a model; `changes` of its settings."""
    at, name, settings = f"{folder}/{WEIGHTS}", folder.removeprefix(f"{R}/"), f"{folder}/config.json"
    return [
        *mishaps(f"{kind}, weights", at, words, name, without=("empty", "a link to itself")),
        *mishaps(f"{kind}, settings", settings, words, name, without=("cut short",)),
        *(Case(f"{kind}, {what}", words, f"{name}/model.safetensors", bare(folder, tensors(at, change))) for what, change in (
            ("NaN", one(spoiled(torch.nan))), ("infinity", one(spoiled(torch.inf), -1)),
            ("a tensor more", lambda held: held | {"more": torch.zeros(2)}),
            ("a tensor less", lambda held: dict(list(held.items())[1:])),
            ("a tensor of another shape", one(lambda value: value[..., :-1])),
            ("whole numbers", one(lambda value: value.long())))),
        Case(f"{kind}, a changed byte", words, f"{name}/model.safetensors", altered(at)),
        Case(f"{kind}, another model", words, f"{name}/model.safetensors", bare(folder, copied(f"{other}/{WEIGHTS}", at))),
        *(Case(f"{kind}, {key} is {'missing' if value is DROP else value}", words, rf"{name}/config\.json",
               bare(folder, keys(settings, {key: value}))) for key, value in (("more", 1), *changes)),
    ]


MODELS = [
    *model("tokenizer", TOK, ENCODE, GEN, ("width", DROP), ("width", 10**9), ("width", "64"), ("rope_base", 20000),
           ("latent_init", "pooled"), ("heads", 3), ("commitment", -1)),
    *model("generator", GEN, SAMPLE, TOK, ("layers", DROP), ("layers", 10**6), ("rope_base", 5), ("ntp", 0), ("classes", None)),
    *model("classifier", CLS, MEASURE, TOK, ("channels", []), ("channels", [16, 32, -64]), ("classes", DROP)),
    Case("generator of another tokenizer", SAMPLE, "750k", copied(f"{R}/generator/main/1M", GEN)),
    *(Case(f"generator, metrics.json {what}", SAMPLE, r"metrics\.json", bare(GEN, spoil(f"{GEN}/metrics.json")))
      for what, spoil in (
        ("without its tokenizer", lambda at: keys(at, {"tokenizer": DROP})), ("cut", cut), ("a pipe", pipe),
        ("with a number for it", lambda at: keys(at, {"tokenizer": 7})))),
]

TRAIN = f"train-generator {P} --codes {CODES} {T} --run new --out out"


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(home: Path) -> None:
        value = change(np.load(home / name))
        written(name, b"")(home)
        np.save(home / name, value, allow_pickle=value.dtype.hasobject)

    return spoil


STORES = [
    *mishaps("codes", f"{CODES}/codes.npy", TRAIN, "codes/main/750k"),
    *mishaps("labels", f"{CODES}/labels.npy", TRAIN, "codes/main/750k", without=("of noise", "a link to nothing")),
    *mishaps("manifest of codes", f"{CODES}/manifest.json", TRAIN, "codes/main/750k"),
    *(Case(f"manifest of codes, {key} is {'missing' if value is DROP else value}", TRAIN,
           f"codes/main/750k.*{key}|generator.{key}", keys(f"{CODES}/manifest.json", {key: value}))
      for key, value in (("images", DROP), ("images", 0), ("images", "1437"), ("crops", -1), ("tokens", DROP), ("tokens", 8.5),
                         ("codebook_size", 10**9), ("codebook_size", 64),
                         ("classes", DROP), ("classes", 11), ("tokenizer", DROP), ("tokenizer", 5))),
    *(Case(f"codes, {what}", TRAIN, "codes/main/750k", array(f"{CODES}/codes.npy", change)) for what, change in (
        ("out of range", lambda codes: np.full_like(codes, 60000)), ("other codes", lambda codes: codes[::-1]),
        ("a row less", lambda codes: codes[1:]),
        ("of 64 bits", lambda codes: codes.astype(np.int64)), ("of floats", lambda codes: codes.astype(np.float16)),
        ("none", lambda codes: codes[:0]),
        ("of pickles", lambda codes: np.array([{}], object)))),
    Case("labels, out of range", TRAIN, "codes/main/750k", array(f"{CODES}/labels.npy", lambda labels: labels + 5)),
    Case("labels, shuffled", TRAIN, "labels.npy", array(f"{CODES}/labels.npy", lambda labels: np.roll(labels, 1))),
    Case("codes of another tokenizer", TRAIN, "tokenizer", copied(f"{R}/codes/main/1M", CODES)),
    Case("a part of codes", TRAIN, "codes/main/750k.*codes_part", copied("parts/750k/0", CODES)),
]

GATHER = f"{ENCODE} parts/750k/0 parts/750k/1"
ALL = f"{GATHER} parts/750k/2"
PARTS = [
    *(case for name in ("codes.npy", "labels.npy", "manifest.json")
      for case in mishaps(f"{name} of a part", f"parts/750k/1/{name}", ALL, "750k/1")),
    *(Case(f"manifest of a part, {key} is {'missing' if value is DROP else value}", ALL, f"750k/1.*{named}",
           keys("parts/750k/1/manifest.json", {key: value}))
      for key, value, named in (
        ("kind", "codes", "kind"), ("rows", DROP, "rows"), ("rows", [459], "rows"), ("rows", [0, 459], "rows"),
        ("tokens", 8, "tokens"), ("crops", 0, "crops"), ("codebook_size", 64, "codebook_size"), ("files", DROP, "files"),
        ("settings.part", 0, "rows"), ("settings.part", -1, "part"), ("settings.parts", 4, "4 parts"),
        ("settings.threads", 8, "threads"), ("inputs.data", "d", "data"), ("inputs.tokenizer", "t", "tokenizer"))),
    Case("a part, altered", ALL, "750k/1/codes.npy", altered("parts/750k/1/codes.npy")),
    Case("a part is missing", GATHER, "part 2/3 is missing"),
    Case("a part twice", f"{ALL} parts/750k/1", "750k/1"),
    Case("a part of another tokenizer", f"{GATHER} parts/1M/2", "1M/2.*tokenizer"),
    Case("a part that is the whole", f"{GATHER} {CODES}", "codes/main/750k"),
    Case("a part that is nowhere", f"{GATHER} parts/nowhere", "nowhere"),
    Case("parts of another size of batch", f"{ALL} --set codes.batch_size=10", "750k/0.*images_a_batch"),
    Case("parts of other crops", f"{ALL} --set codes.five_crops=true", "750k/0.*codes.five_crops"),
    Case("parts and a part", f"{GATHER} --part 0/3", "--part"),
]

AFTER = f"train-tokenizer {P} --data {R}/data {C} --checkpoint 1M --previous {TOK} --run new --out out"


class Harmful:
    """Unpickled with code allowed, it makes a file."""

    def __reduce__(self):
        return (open, ("harm", "w"))


def pickled(value: object) -> bytes:
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
    *mishaps("a checkpoint's state", f"{TOK}/state.pt", AFTER, "tokenizer/main/750k"),
    *mishaps("a checkpoint's metrics", f"{TOK}/metrics.json", AFTER, "tokenizer/main/750k"),
    Case("a checkpoint's state, a changed byte", AFTER, "state.pt", altered(f"{TOK}/state.pt")),
    Case("a checkpoint's state, another's", AFTER, "state.pt", copied(f"{R}/tokenizer/main/1M/state.pt", f"{TOK}/state.pt")),
    Case("a checkpoint's state, a pickle that runs code", AFTER, "state.pt",
         written(f"{TOK}/state.pt", pickled({"a": Harmful()}))),
    Case("a checkpoint's weights, another's", AFTER, "750k", copied(f"{R}/tokenizer/main/1M/{WEIGHTS}", f"{TOK}/{WEIGHTS}")),
    Case("a checkpoint's settings, another's", AFTER, "config.json", keys(f"{TOK}/config.json", {"width": 32})),
    Case("a checkpoint of another step", AFTER, "not at step 4", keys(f"{TOK}/metrics.json", {"step": 5})),
    Case("a checkpoint without its step", AFTER, "metrics.json.*step", keys(f"{TOK}/metrics.json", {"step": DROP})),
    Case("the checkpoint itself as the one before", AFTER.replace(TOK, f"{R}/tokenizer/main/1M"), "not at step 4"),
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
