"""Manifests, records and what they are of, as `restok provenance` walks them."""

from spoilt.case import DROP, Case, keys, mishaps
from spoilt.chain import R

TABLE, PICTURE = "reports/run/table1.csv", "reports/run/fig6.png"
GENERATION, MODEL = f"{R}/evaluation/main/750k/generation.json", f"{R}/tokenizer/main/750k"
ABSENT = "missing", "a link to nothing", "a link to itself"         # as after a partial pull: said, and no fault


def edited(key: str, value: object) -> Case:
    return Case(f"a manifest, {key} is {'missing' if value is DROP else str(value)[:20]}", f"provenance {TABLE}",
                "tokenizer/main/750k", keys(f"{MODEL}/manifest.json", {key: value}))


WALKED = [
    *mishaps("a table", TABLE, f"provenance {TABLE}"), *mishaps("its record", "reports/run/provenance/table1.json",
                                                               f"provenance {TABLE}"),
    *mishaps("a picture", PICTURE, f"provenance {PICTURE}"),
    *mishaps("a result", GENERATION, f"provenance {TABLE}", without=ABSENT),
    *mishaps("a manifest", f"{MODEL}/manifest.json", f"provenance {TABLE}", "tokenizer/main/750k"),
    *mishaps("weights", f"{MODEL}/model.safetensors", f"provenance {TABLE}"),
    *mishaps("packed images", f"{R}/data/train/00000.arrow", f"provenance --full {TABLE}"),
    *mishaps("sums", f"{R}/reference/validation.safetensors", f"provenance {TABLE}", without=ABSENT),
    *mishaps("samples", f"{R}/samples/main/750k.npz", f"provenance {PICTURE}", without=ABSENT),
    *(edited(key, value) for key, value in (
        ("format", DROP), ("format", 0), ("format", "1"), ("kind", 7), ("inputs", DROP), ("inputs.data", 5), ("settings", []),
        ("paths", []), ("paths", {"data": "../../../.."}), ("made", []), ("made", DROP), ("made.0.commit", 1),
        ("made.0.seconds", "long"), ("made.0.weather", "fine"), ("files", {}), ("files", 3), ("bytes", {}))),
]
