"""Places to write that are taken, or cannot be written."""

import numpy as np

from spoilt.case import Case, both, linked, pipe, written
from spoilt.chain import SHOWN, C, E, G, P, R, T

HOME = both(written("thesis.txt", "mine"), written("thesis.json", '{"mine": 1}'), written("home/thesis.txt", "mine"),
            written("thesis.npz", "mine"), linked("loop", "loop"), linked("nothing", "nowhere"),
            pipe("pipe.json"), pipe("pipe.npz"),
            lambda home: np.savez(home / "s.npz", arr_0=np.zeros((3, 16, 16, 3), np.uint8)))
CANDIDATE, RESULT = f"{R}/guidance/main/750k/step_2.0_0.25.json", f"{R}/evaluation/main/750k/generation.json"
REFERENCE, WEIGHTS = f"{R}/reference/validation.safetensors", f"{R}/tokenizer/main/750k/model.safetensors"
GENERATE, EVALUATE = f"train-generator {P} --codes {R}/codes/main/750k {T}", f"evaluate {P} {E} --samples s.npz --out"

# What is written there would be lost, or cannot be: the command up to the place, and the places.
PLACES = {
    f"encode {P} --data {R}/data {T} --out": (
        f"{R}/tokenizer/main/750k", f"{R}/data/codes", ".", "home", f"{R}/classifier", "thesis.txt", "thesis.txt/codes",
        "/proc/codes", "loop", "nothing", "pipe.npz", "x" * 300, "parts/750k/1"),
    f"encode {P} --data {R}/data {T} parts/750k/0 parts/750k/1 parts/750k/2 --out": ("parts/750k/1", "parts/750k", "home"),
    f"encode {P} --data {R}/data {T} --out out --run": (f"{R}/data/run", f"{R}/tokenizer/main/750k", "out", "thesis.txt"),
    f"{GENERATE} --out out --run": (f"{R}/codes/main/750k", "thesis.txt", ".", "unfinished/inner", "out", "loop"),
    f"{GENERATE} --run new --out": (f"{R}/codes/main/750k", f"{R}/codes/main/1M", f"{R}/tokenizer/main/1M", "new/model"),
    f"{GENERATE} --run new/run --out": ("new",),
    f"train-tokenizer {P} --data {R}/data {C} --checkpoint 750k --run new --out": (
        f"{R}/classifier", f"{R}/generator/main/750k", "home"),
    f"train-classifier {P} --data {R}/data --out": (f"{R}/data", f"{R}/generator/main/750k"),
    f"prepare {P} --out": ("home", f"{R}/tokenizer/main/750k", "params", RESULT),
    EVALUATE: ("s.npz", "home", "thesis.txt", "thesis.json", "thesis.json/r.json", f"{R}/tokenizer/main/750k/config.json",
               "params/run.yaml", "pipe.json"),
    f"{EVALUATE} r.json --statistics": ("home", "r.json", "s.npz", "thesis.txt", "pipe.npz"),
    f"{EVALUATE} r.json --state": ("home", "r.json", "s.npz", "thesis.txt", WEIGHTS, REFERENCE),
    f"sample {T} {G} --per-class 1 --out": ("s.npz", "thesis.npz", "home", "nosuffix", "thesis.txt", "pipe.npz"),
    f"reconstruct s.npz {T} --out": ("s.npz", "thesis.npz", "home", R, "thesis.txt", f"{R}/tokenizer/main/750k", "pipe.npz"),
    f"convert --to release {R}/tokenizer/main/750k {R}/generator/main/750k": ("home", "thesis.txt", R),
    "convert --from release theirs/tokenizer.pt -": ("theirs", "home"),
    f"search-guidance {CANDIDATE} --out": (CANDIDATE, "thesis.json"),
    f"average {RESULT} {R}/evaluation/main/1M/generation.json --out": (RESULT, "thesis.json"),
    f"table table1 {SHOWN} --out": ("home", "params/published.csv", "thesis.txt"),
    f"figure fig8 {SHOWN} --out": ("home", "thesis.txt", f"{R}/layout.npz"),
    f"report {SHOWN} --reports reports/run --out": ("home", "thesis.txt"),
    f"layout {P} --out": (f"{R}/data", "s.npz"), f"panel --data {R}/data {T} --out": ("s.npz", f"{R}/data"),
    f"statistics s.npz {P} {C} --out": (WEIGHTS, "s.npz"), "bench metrics --out": ("thesis.json",)}

OUTPUTS = [Case(f"{words.split()[0]} {words.split()[-1]} {place[:60]}", f"{words} {place}", place.removeprefix(f"{R}/"), HOME)
           for words, places in PLACES.items() for place in places]
