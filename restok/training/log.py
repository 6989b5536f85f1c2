"""The log of a training: what its rows say, the file that they stand in, and the warnings that they give cause to.

Nothing here waits for the device but the reading of a row: what a step measures is added up where it was computed.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from restok.distributed import is_first, peak_memory, summed
from restok.files import atomic_file
from restok.metrics.codebook import codebook_metrics
from restok.training.parallel import averaged, largest
from restok.training.state import not_written

T = TypeVar("T")
Row = dict[str, float]
LASTING, LONG = 3, 10      # rows in a row before a warning
KEPT = 100                 # rows that a warning looks back on


class Tally:
    """The sums over the steps since the last row, and the seconds that they took."""

    def __init__(self, on: torch.device, first: int, batch_size: int):
        self.on, self.batch_size, self.logged = on, batch_size, first
        self.start()

    def start(self) -> None:
        """What was measured so far belongs to no row, and what was done since, such as saving, to no step."""
        self.sums, self.counts, self.waited, self.since = {}, Counter(), 0.0, time.perf_counter()

    def next(self, batches: Iterator[T]) -> T:
        began = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - began
        return batch

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.counts.update(losses.keys())

    def row(self, done: int, measured: Callable[[], Row]) -> Row:
        """The means over the steps up to `done`, of all processes; `measured` reads what else there is to say of them. Of times
        and memory it is the process with the most. Losses may be not finite."""
        steps, self.logged = done - self.logged, done
        means = averaged(torch.stack(list(self.sums.values()))).tolist()        # waits for the device
        losses = {name: mean / self.counts[name] for name, mean in zip(self.sums, means, strict=True)}
        rate = steps / (time.perf_counter() - self.since)
        own = torch.tensor([self.waited / steps, peak_memory(self.on) / 1e9], dtype=torch.float64, device=self.on)
        waited, memory = largest(own).tolist()
        row = {"step": done, "time": round(time.time(), 3), **losses, **measured(), "steps_per_second": round(rate, 3),
               "images_per_second": round(rate * self.batch_size, 3), "data_seconds": round(waited, 6),
               "memory_gb": round(memory, 3)}
        self.start()
        return row


class CodebookUse:
    """How often each level chose each code since this was last read, counted on the device."""

    def __init__(self, size: int, levels: Sequence[int], on: torch.device):
        self.levels = tuple(levels)
        level = torch.arange(len(levels)).repeat_interleave(torch.tensor(levels))
        self.offsets = (level * size).to(on)                                            # n
        self.counts = torch.zeros(len(levels) * size, dtype=torch.int64, device=on)     # l * k

    def add(self, codes: Int[Tensor, "b n"]) -> None:
        where = (codes + self.offsets).flatten()
        self.counts.scatter_add_(0, where, torch.ones_like(where))

    def measured(self) -> Row:
        """Of all processes: the share of codes in use and their entropy in bits, of all tokens and of each level."""
        counts = summed(self.counts).cpu().view(len(self.levels), -1)
        self.counts.zero_()
        found = codebook_metrics(counts, self.levels)
        row = {"codebook_tokens": int(counts.sum()), "codebook_dead": found["dead"], "codebook_use": found["usage"],
               "codebook_entropy": found["entropy"]}
        for level in found["levels"]:
            row |= {f"codebook_{name}_{level['level']}": level[of] for name, of in (("use", "usage"), ("entropy", "entropy"))}
        return row


@contextmanager
def log_file(path: Path, step: int) -> Iterator[Callable[[Row], None]]:
    """Writes rows to the log, one JSON object a line, after those up to the step that a run resumes from, which alone are kept.
    Only the first process does."""
    if not is_first():
        yield lambda row: None
        return
    kept = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:              # the line a killed run was writing
            break
        if row["step"] <= step:
            kept.append(line)
    with atomic_file(path) as partial:
        partial.write_text("".join(line + "\n" for line in kept), "utf-8")
    with path.open("a", encoding="utf-8") as file:
        def write(row: Row) -> None:
            try:
                file.write(json.dumps(row) + "\n")
                file.flush()
            except OSError as error:
                raise not_written(path, error) from error

        yield write


# What to warn of: each looks at the rows so far, the newest last.

def collapsed(rows: Sequence[Row], warmup: int) -> bool:
    """Less than a tenth of the codebook is in use, though there were tokens enough to use it."""
    row = rows[-1]
    return (row["step"] > warmup and "codebook_use" in row and row["codebook_use"] < 0.1
            and row["codebook_tokens"] >= row["codebook_dead"])


def discriminator_won(rows: Sequence[Row], warmup: int) -> bool:
    """It tells all images apart for long, and what the tokenizer loses by it grows."""
    last = rows[-LONG:]
    return (len(last) == LONG and all("discriminator" in row and row["discriminator"] < 0.1 for row in last)
            and last[-1]["gan"] > last[0]["gan"])


def scale_fell(rows: Sequence[Row], warmup: int) -> bool:
    """Gradients overflow float16 though they are not scaled up at all."""
    return any(value <= 1 for key, value in rows[-1].items() if key.startswith("loss_scale"))


def slowed(rows: Sequence[Row], warmup: int) -> bool:
    """The rate is less than half of what it was, of steps that did the same."""
    alike = [row["images_per_second"] for row in rows if row.keys() == rows[-1].keys()]
    before, last = alike[:-LASTING], alike[-LASTING:]
    return len(before) >= LASTING and max(last) < median(before) / 2


def starved(rows: Sequence[Row], warmup: int) -> bool:
    """More than half of the time goes into waiting for data."""
    last = rows[-LASTING:]
    return len(last) == LASTING and all(row["data_seconds"] * row["steps_per_second"] > 0.5 for row in last)


CURES = {
    collapsed: "the codebook collapses: less than a tenth of it is in use. tokenizer.codebook_init data starts every entry on "
    "a latent, tokenizer.revive_after moves unused ones there; a lower learning rate and a longer warm-up help, too",
    discriminator_won: "the discriminator wins: its loss stays near 0 while the tokenizer's gan grows. Lower objective.gan or "
    "objective.discriminator.optimizer.learning_rate, or raise objective.discriminator.start or .lecam",
    scale_fell: "the loss scale has fallen to 1 or below: gradients overflow fp16, and such steps are skipped. Take precision "
    "bf16 (or fp32), or a lower learning rate",
    slowed: "images a second have halved. See whether the device is shared, hot or throttled, and whether the disk still "
    "delivers; a run that is stopped and started again resumes where it was",
    starved: "more time goes into waiting for data than into computing (data_seconds in log.jsonl). Raise data.workers up to "
    "the free cores, and put the data on a fast disk"}


class Watch:
    """Says what is wrong once, and again only after it was right."""

    def __init__(self, warmup: int):
        self.warmup, self.rows, self.present = warmup, [], set()

    def see(self, row: Row) -> list[str]:
        """The warnings that this row newly gives cause to."""
        self.rows = [*self.rows[1 - KEPT:], row]
        before, self.present = self.present, {wrong for wrong in CURES if wrong(self.rows, self.warmup)}
        return [cure for wrong, cure in CURES.items() if wrong in self.present - before]
