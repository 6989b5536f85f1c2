"""What a run cost, by step of the chain: from the manifests of its results alone, so that it is known of pulled ones, too."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from restok.experiments.places import STAGES
from restok.files.making import Making, time_of
from restok.reporting.provenance import artifact_of

SAID = {"data": "preparing the images", "classifier": "training the feature network", "reference": "measuring the reference",
        "tokenizer": "training tokenizers", "codes": "encoding the images", "generator": "training generators",
        "candidate": "scoring candidates for guidance", "finalist": "measuring the best candidates again",
        "guidance": "choosing the guidance", "reconstruction": "measuring reconstructions",
        "generation": "drawing and measuring samples", "unguided": "drawing and measuring samples without guidance",
        "panel": "reconstructing for Fig. 5", "samples": "drawing for Fig. 6", "layout": "masks and positions"}
Makings = Sequence[Making] | None        # of one result; None: nobody knows


class Amount(NamedTuple):
    """A sum or a peak; None where nothing of it is known, and with `least` where not all of it is. 0 is none at all."""

    value: float | None
    least: bool = False

    def text(self, show) -> str:
        if self.value is None:
            return "unknown"
        return "at least " * self.least + show(self.value) if self.value or self.least else "–"


class Step(NamedTuple):
    """What one step of the chain took. Times in seconds: of the processes together, and of the longest result; memory in GB."""

    what: str
    verb: str
    results: int
    unknown: int                         # of these, how many do not say what they cost
    cpu: Amount
    gpu: Amount
    longest: Amount
    memory: Amount
    gpu_memory: Amount
    devices: str

    @property
    def cells(self) -> list[tuple[str, float | str]]:
        """What a reader sees of the amounts, each with what to sort it by."""
        amounts = [*((amount, time_of) for amount in self[4:7]), *((amount, "{:.2f} GB".format) for amount in self[7:9])]
        return [(amount.text(show), "" if amount.value is None else amount.value) for amount, show in amounts]


def costs(results: Mapping[Path, str]) -> list[Step]:
    """By step, in the order of the chain, and last of all together. `results` have their stages by their paths."""
    made = {path: makings_at(path) for path in results}
    by_stage = {name: [made[path] for path, stage in results.items() if stage == name] for name in STAGES}
    steps = [step(SAID[name], f"restok {STAGES[name].verb}", found) for name, found in by_stage.items() if found]
    return [*steps, step("all together", "", made.values())]


def makings_at(path: Path) -> Makings:
    """How a result was made, as its manifest says: of one that is not here, or has none, that is unknown."""
    artifact = artifact_of(path) if path.exists() else None
    return artifact and artifact.facts["made"]


def step(what: str, verb: str, results: Iterable[Makings]) -> Step:
    """What several results took together."""
    results = list(results)
    known = [makings for makings in results if makings is not None]
    every, unknown = [one for makings in known for one in makings], len(results) - len(known)
    on_cpu, on_gpu = ([one for one in every if (one["device"] == "cpu") == cpu] for cpu in (True, False))
    whole = [_time(makings, False, 0) for makings in known]
    devices = dict.fromkeys(f"{one['processes']} x {one['device']}" if one["processes"] > 1 else one["device"] for one in every)
    return Step(what, verb, len(results), unknown, _time(on_cpu, True, unknown), _time(on_gpu, True, unknown),
                Amount(_most([amount.value for amount in whole]), bool(unknown) or any(amount.least for amount in whole)),
                _peak(every, "memory_gb", unknown), _peak(on_gpu, "gpu_memory_gb", unknown), ", ".join(sorted(devices)))


def _time(makings: Sequence[Making], of_all: bool, unknown: int) -> Amount:
    """Of all processes together, or of one of them."""
    known = [one["seconds"] * (one["processes"] if of_all else 1) for one in makings if one["seconds"] is not None]
    least = bool(unknown) or any(one["seconds"] is None or one["unknown"] for one in makings)
    return Amount(sum(known) if known or not least else None, least)


def _peak(makings: Sequence[Making], key: str, unknown: int) -> Amount:
    known = [one.get(key) for one in makings]
    least = bool(unknown) or None in known
    return Amount(_most(known) if any(value is not None for value in known) or least else 0, least)


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
