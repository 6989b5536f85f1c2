"""encode: a split's codes, into the packed store; or a part of them, and the parts gathered."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Integer

from restok import config
from restok.data.codes import fill_store
from restok.data.loader import crop_batches, images_a_batch, lost_readers
from restok.data.parts import open_parts, part_origin
from restok.data.table import Split, open_split
from restok.distributed import device
from restok.experiments.places import origin
from restok.files import FileError, sha256_file
from restok.files.artifact import Origin, makings_of
from restok.files.journal import Journal
from restok.files.run import MARK, RunFolder, make, make_resumed
from restok.parts import WHOLE, Shard
from restok.progress import track
from restok.signals import Interrupted, asked, defer
from restok.tokenizer.model import ResTok
from restok.weights import load_tokenizer, require_tokenizer

log = logging.getLogger("restok")
Batches = Iterator[tuple[Integer[np.ndarray, "b crops n"], Integer[np.ndarray, " b"]]]


class Work(NamedTuple):
    """What is encoded: every crop of every image of a split, `unit` images at a time."""

    images: Split
    settings: config.Codes
    store: Origin
    unit: int

    @classmethod
    def read(cls, params: config.Params, data: Path, tokenizer: Path, split: str) -> "Work":
        images = open_split(data, split, params.data.decoder)
        require_tokenizer(tokenizer)
        inputs = {"data": images.digest, "tokenizer": sha256_file(tokenizer / "model.safetensors")}
        made_of = origin("codes", params, paths={"data": data, "tokenizer": tokenizer}, **inputs)
        return cls(images, params.codes, made_of, images_a_batch(params.codes))

    def fill(self, folder: Path, batches: Batches, count: int, tokens: int, codebook_size: int) -> dict:
        """Returns what the manifest is to say."""
        return fill_store(folder, batches, count, self.settings.crop_count, tokens, codebook_size, len(self.images.classes),
                          self.store.inputs["tokenizer"], self.images.digest)


def encode(params: config.Params, data: Path, tokenizer: Path, out: Path, split: str = "train", run: Path | None = None,
           part: Shard = WHOLE) -> None:
    """Codes of every crop (`params.codes`) of every image of a split, or of a part of them, which `gather` takes.

    In the folder `run`, where it is named, they are kept, and so are batches that are finished: after a signal, a kill or a
    crash the same call goes on from there. Raises signals.Interrupted between two batches.
    """
    work, on = Work.read(params, data, tokenizer, split), device()
    rows = range(*part.bounds(len(work.images), work.unit))

    def write(folder: Path, kept: Path | None) -> dict:
        model, journal = load_tokenizer(tokenizer).to(on), kept and Journal(kept / f"batches_of_{work.unit}.journal")
        if journal:
            defer()
        with torch.inference_mode(), lost_readers(data):
            batches = _batches(work, model, rows, journal, params.data.workers, on)
            facts = work.fill(folder, batches, len(rows), model.config.latents, model.config.codebook_size)
        return facts if part == WHOLE else {"rows": [rows.start, rows.stop]} | {k: facts[k] for k in facts if k != "images"}

    make_resumed(out, part_origin(work.store, part, work.unit), run and _run(run, part), write)


def gather(params: config.Params, data: Path, tokenizer: Path, parts: Sequence[Path], out: Path, split: str = "train",
           run: Path | None = None) -> None:
    """Parts that `encode` made become the store that it makes as a whole. No image is read. What `run` kept of the parts has
    served then. Raises CodesError for parts that are missing, doubled, damaged, or of another store."""
    work = Work.read(params, data, tokenizer, split)
    found = open_parts(parts, work.store, work.unit, len(work.images))

    def write(folder: Path) -> dict:
        batches = (batch for part in track(found, "gather codes", len(found), "parts") for batch in part.batches())
        facts = work.fill(folder, batches, len(work.images), found[0].about["tokens"], found[0].about["codebook_size"])
        return facts | {"makings": makings_of(part.folder for part in found)}

    make(out, work.store, run, write)
    for part in found if run else ():
        root, identity = _run(run, part.shard), part_origin(work.store, part.shard, work.unit).identity
        if root.exists():
            with suppress(FileError), RunFolder(root, identity) as kept:        # held: somebody makes the part again
                shutil.rmtree(kept.folder)
            if [path.name for path in root.iterdir()] == [MARK]:
                shutil.rmtree(root)


def _run(run: Path, part: Shard) -> Path:
    """Parts have folders of their own, side by side."""
    return run if part == WHOLE else run.with_name(f"{run.name}.part{part.part}of{part.parts}")


def _batches(work: Work, model: ResTok, rows: range, journal: Journal | None, workers: int, on: torch.device) -> Batches:
    """Codes and labels of some rows: those in the journal, then the others, which go there."""
    crops, done = work.settings.crop_count, rows.start
    for record in journal.read() if journal else ():
        codes = np.frombuffer(record, np.uint16).reshape(-1, crops, model.config.latents)
        yield codes, work.images.labels[done:done + len(codes)]
        done += len(codes)
    if done > rows.start:
        log.info("%s: resuming after image %d of %d", journal.path, done - rows.start, len(rows))
    left = range(done, rows.stop)
    source = crop_batches(work.images, model.config.image_size, work.settings, workers, left)
    for views, labels in track(source, "encode", len(rows), "images", before=done - rows.start,
                               size=lambda batch: len(batch[1])):
        codes = model.encode(views.to(on)).cpu().unflatten(0, (len(labels), crops)).numpy()
        if journal:
            journal.append(codes.astype(np.uint16).tobytes())
        yield codes, labels.numpy()
        done += len(codes)
        if journal and asked() and done < rows.stop:
            raise Interrupted(f"by {asked()} after image {done - rows.start} of {len(rows)}, which are kept in {journal.path}; "
                              "the same command goes on from there")
