"""Results, tables and settings as reports and searches read them."""

import numpy as np

from spoilt.case import DROP, Case, Spoil, both, bytes_of, copied, keys, mishaps, written
from spoilt.chain import SHOWN, E, G, P, R, T

GENERATION, RECONSTRUCTION = f"{R}/evaluation/main/750k/generation.json", f"{R}/evaluation/main/750k/reconstruction.json"
CANDIDATE, SEARCH = f"{R}/guidance/main/750k/step_2.0_0.25.json", f"{R}/guidance/main/750k.json"
TABLE1, CODEBOOK = f"table table1 {SHOWN} --out out.csv", f"figure codebook {SHOWN} --out out.png"
BOTH = f"{R}/guidance/main/750k/constant_1.0_0.0.json {CANDIDATE}"
CHOOSE, AGAIN = f"search-guidance {BOTH} --out out.json", f"score-finalist {BOTH} {P} {E} {T} {G} --out out.json --rank"
GUIDE, TABLE6 = f"figure guidance {SHOWN} --out out.png", f"table table6 {SHOWN} --out out.csv"
PAGE = f"report {SHOWN} --reports reports/run --out out.html"
FD = "metrics.FD-digits"


def record(name: str, words: str, key: str, value: object, named: str | None = None) -> Case:
    """A JSON file with another value; the message names the file, and the key or what is said of it."""
    short = name.removeprefix(f"{R}/")
    return Case(f"{short}, {key} is {'missing' if value is DROP else str(value)[:20]}", words,
                f"{short}.*{named or key.rpartition('.')[2]}",
                keys(name, {key: value}))


def arrays(name: str, **changes: object) -> Spoil:
    """An npz with other arrays; None takes one away."""
    def spoil(home) -> None:
        with np.load(home / name) as file:
            held = dict(file)
        held |= {key: change(held[key]) if callable(change) else change for key, change in changes.items()}
        held = {key: value for key, value in held.items() if value is not None}
        written(name, b"")(home)
        np.savez(home / name, **held)

    return spoil


def drawn(figure: str, name: str, what: str, **changes: object) -> Case:
    short = name.removeprefix(f"{R}/")
    return Case(f"{short}, {what}", f"figure {figure} {SHOWN} --out out.png", f"{short}.*{next(iter(changes))}",
                arrays(name, **changes))


RECORDS = [
    *mishaps("a result", GENERATION, TABLE1), *mishaps("a candidate", CANDIDATE, CHOOSE),
    *mishaps("a search", SEARCH, TABLE6, r"guidance/main/750k\.json"),
    *(record(GENERATION, TABLE1, key, value) for key, value in (
        ("metrics", DROP), ("metrics", []), ("intervals", DROP), ("names.distance", "FID"), ("names", DROP),
        ("features.sha256", DROP), ("n", 0), ("n", "100"), ("n", True),
        ("protocol", "other"), ("samples", None), ("reference", DROP), ("refused", []), ("warnings", DROP), (FD, "low"),
        (FD, -1.0), (FD, None), ("metrics.precision", 1.5),
        ("metrics.nosuch", 1.0), ("intervals.FD-digits", [9.0, 1.0]), ("intervals.FD-digits", [1.0]),
        ("intervals.FD-digits", DROP), ("metrics.IS-digits", 0.5))),
    Case("a result with NaN", TABLE1, r"generation\.json.*NaN",
         bytes_of(GENERATION, lambda data: data.replace(b'"n": 100', b'"n": NaN', 1))),
    Case("a result with a key twice", TABLE1, r"generation\.json.*'n'",
         bytes_of(GENERATION, lambda data: data.replace(b'"n": 100', b'"n": 100, "n": 1', 1))),
    Case("a result that is a list", TABLE1, r"generation\.json", written(GENERATION, "[]")),
    Case("a result nested deep", TABLE1, r"generation\.json", written(GENERATION, "[" * 10**5)),
    Case("a result in Latin-1", TABLE1, r"generation\.json",
         bytes_of(GENERATION, lambda data: data.replace(b"digits", b"d\xefgits"))),
    Case("a result in UTF-16", TABLE1, r"generation\.json", bytes_of(GENERATION, lambda data: data.decode().encode("utf-16"))),
    Case("the other protocol's result", TABLE1, "evaluation/main/750k", copied(RECONSTRUCTION, GENERATION)),
    Case("another reference's result", TABLE1, "do not compare", keys(GENERATION, {"reference.digest": "another"})),
    Case("another network's result", TABLE1, "features|not measured by the same",
         keys(GENERATION, {"features.sha256": "another"})),
    *(record(RECONSTRUCTION, CODEBOOK, key, value, "codebook") for key, value in (
        ("metrics.codebook", DROP), ("metrics.codebook.levels", []), ("metrics.codebook.levels.0.usage", 1.5),
        ("metrics.codebook.levels.0.entropy", -2.0),
        ("metrics.codebook.entropy", DROP), ("intervals.codebook.levels", []))),
    *(record(CANDIDATE, CHOOSE, key, value) for key, value in (
        ("schedule", DROP), ("schedule", 5), ("scale", "2"), ("start", None), ("sampling", DROP), ("sampling.top_p", 2.0),
        ("n", 7))),
    record(CANDIDATE, CHOOSE, "sampling.top_k", 3, "sampling"),
    Case("a candidate of another reference", CHOOSE, "reference", keys(CANDIDATE, {"reference.digest": "another"})),
    record(CANDIDATE, f"{AGAIN} 1", "samples.digest", "another", "its samples"),
    Case("a finalist of a rank that there is not", f"{AGAIN} 3", "rank 3"), Case("a finalist of rank 0", f"{AGAIN} 0", "rank"),
    Case("a finalist that is no candidate", f"{CHOOSE} --finalist f.json", r"f\.json.*best",
         both(copied(CANDIDATE, "f.json"), keys("f.json", {"scale": 7.5}))),
    Case("a result for a candidate", CHOOSE, "step_2.0_0.25.json", copied(GENERATION, CANDIDATE)),
    *(record(SEARCH, TABLE6, key, value) for key, value in (
        ("chosen", DROP), ("chosen.schedule", "stairs"), ("chosen.scale", -2), ("candidates", []), ("metric", "nosuch"),
        ("metric", DROP), ("candidates.0.scale", "1"), ("candidates.1.n", 7), ("finalists", 3))),
    Case("a choice that is no candidate", GUIDE, "chosen", keys(SEARCH, {"chosen.scale": 7.5})),
    record(f"{R}/tokenizer/main/750k/metrics.json", TABLE1, "parameters", DROP),
    record(f"{R}/tokenizer/main/750k/metrics.json", TABLE1, "step", 77),
    record(f"{R}/generator/main/750k/metrics.json", TABLE1, "sampling_steps", -3),
    record(f"{R}/generator/main/750k/metrics.json", TABLE1, "parameters", "many"),
    record(f"{R}/classifier/metrics.json", PAGE, "validation_accuracy", 1.5),
    record(f"{R}/classifier/metrics.json", PAGE, "n", DROP),
    record(f"{R}/data/manifest.json", f"figure fig6 {SHOWN} --out out.png", "splits.train.classes", DROP),
    *(Case(f"average of a result and {what}", f"average {GENERATION} other.json --out out.json", named, spoil) for what, named,
      spoil in (
        ("one of its seed", "seed", copied(GENERATION, "other.json")),
        ("another protocol's", "protocol", copied(RECONSTRUCTION, "other.json")),
        ("a candidate", "other.json|features|originals|compare|n", copied(CANDIDATE, "other.json")),
        ("nothing", "other.json", lambda home: None))),
]


def best(figure: str, folder: str, what: str, **changes: object) -> Case:
    """What a figure of the best checkpoint shows, of either one."""
    return Case(f"{folder}, {what}", f"figure {figure} {SHOWN} --out out.png", f"{folder}/.*{next(iter(changes))}",
                both(*(arrays(f"{R}/{folder}/main/{label}.npz", **changes) for label in ("750k", "1M"))))


LAID = f"{R}/layout.npz"
CHART = "figure table2 --table t.csv --out out.png"
WORDS = "setting,gfid,gfid_low,gfid_high,gfid_sd,rfid,entropy\nx,high,,,,low,1\n"
TABLES = [
    *mishaps("the paper's numbers", "params/published.csv", TABLE1, without=("of noise", "a link to nothing")),
    *mishaps("the layout", LAID, f"figure fig8 {SHOWN} --out out.png"),
    *mishaps("a table of the page", "reports/run/table1.csv", PAGE, without=("empty", "cut short", "of noise")),
    *mishaps("a figure of the page", "reports/run/fig7.png", PAGE, "fig7", without=("cut short", "a link to itself")),
    *(Case(f"the paper's numbers {what}", TABLE1, r"published\.csv.*" + named, bytes_of("params/published.csv", change))
      for what, change, named in (
        ("with semicolons", lambda data: data.replace(b",", b";"), "';'|semicolon|line"),
        ("with a row twice", lambda data: data + data.splitlines()[1] + b"\n", "twice"),
        ("without rows", lambda data: data.splitlines()[0] + b"\n", "no row"),
        ("with another column", lambda data: data.replace(b"quantity", b"number", 1), "columns"),
        ("with a column twice", lambda data: data.replace(b"item,row", b"row,row", 1), "column"),
        ("with a cell more", lambda data: data + b"a,b,c,d,e,f\n", "6 cells"),
        ("with an open quote", lambda data: data + b'a,b,c,"d\n', "line"),
        ("in UTF-16", lambda data: data.decode().encode("utf-16"), ""))),
    *(Case(f"orders {what}", f"report {SHOWN} --reports reports/run --out out.html --orders o.csv", r"o\.csv",
           written("o.csv", content)) for what, content in (
        ("empty", ""), ("of other columns", "a,b\n1,2\n"))),
    *(Case(f"a chart's table {what}", CHART, r"t\.csv", written("t.csv", content)) for what, content in (
        ("empty", ""), ("of other columns", "a,b\n1,2\n"), ("of words", WORDS), ("of noise", bytes(range(256))))),
    Case("a chart's table missing", CHART, r"t\.csv"),
    drawn("fig8", LAID, "no mask", encoder_mask=None), drawn("fig8", LAID, "a mask of numbers",
                                                             encoder_mask=lambda mask: mask.astype(float)),
    drawn("fig8", LAID, "a mask cut", encoder_mask=lambda mask: mask[:, :3]),
    drawn("fig8", LAID, "groups that do not add", encoder_groups=lambda groups: groups + 1),
    drawn("fig9", LAID, "places of halves", encoder_ids=lambda ids: ids + 0.5),
    best("fig5", "panel", "no originals", originals=None), best("fig5", "panel", "floats", originals=lambda x: x / 255),
    best("fig5", "panel", "no prefixes", prefixes=lambda x: x[:, :0]),
    best("fig5", "panel", "other lengths", psnr=lambda x: x[:1]),
    best("fig6", "samples", "no labels", labels=None), best("fig6", "samples", "labels of halves", labels=lambda x: x + 0.5),
    best("fig6", "samples", "no images", arr_0=None), best("fig6", "samples", "floats", arr_0=lambda x: x / 255),
    best("fig6", "samples", "labels of other classes", labels=lambda x: x + 50),
]
