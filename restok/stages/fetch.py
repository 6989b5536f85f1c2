"""fetch: every pretrained network that a run needs, brought once and verified, so that its jobs need no internet."""

import logging
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from restok.errors import RestokError
from restok.experiments.demand import Wanted
from restok.files import sha256_file, write_json
from restok.networks.backbone import create, source_of
from restok.networks.dinov2 import load_dinov2
from restok.networks.hub import Hosted
from restok.networks.inception import load_inception
from restok.networks.lpips import load_lpips
from restok.networks.pretrained import PRETRAINED, FetchError, Pretrained

log = logging.getLogger("restok")


class Held(NamedTuple):
    """A pretrained network as it lies on this machine."""

    network: str
    setting: str | None           # that names its file, where one does
    address: str | None
    licence: str | None
    file: str | None              # None: it is not there
    bytes: int | None
    sha256: str | None
    verified: str | None          # by what: 'sha256', or 'shapes' where no sha256 is published; None: it is not
    fault: str | None             # with the remedy


def fetch(networks: Iterable[Wanted], out: Path | None, show: Callable[[list[Held]], None]) -> None:
    """Bring what is not there, and verify all. Writes what lies where as JSON. Raises FetchError, a line a network, for those
    that could not be brought or are not what they should be; the others are there."""
    every = [_brought(wanted) for wanted in networks]
    if out is not None:
        write_json(out, {"kind": "fetch", "networks": [held._asdict() for held in every]})
    show(every)
    if faults := [held.fault for held in every if held.fault]:
        raise FetchError("\n".join(faults))


def _brought(wanted: Wanted) -> Held:
    source = None
    try:
        source = source_of(wanted.network, wanted.setting)
        if wanted.file is None and source.found() is None:
            log.info("fetch: %s, from %s", wanted.network, source.url)
            source.download()
    except RestokError as error:
        return _faulty(wanted, str(error), source)
    return held(wanted)


def held(wanted: Wanted) -> Held:
    """What is there of a network, verified; nothing is downloaded."""
    try:
        source = source_of(wanted.network, wanted.setting)
    except RestokError as error:
        return _faulty(wanted, str(error))
    file = source.found() if wanted.file is None else Path(wanted.file)
    published = source.published(file) if file and wanted.file is None else None
    try:
        if published is None:                # its own reader says, too, where nothing is there
            _read(wanted)
        digest, size = sha256_file(file), file.stat().st_size
    except (RestokError, OSError) as error:
        return _faulty(wanted, str(error), source)
    facts = _faulty(wanted, None, source)._replace(file=str(file), bytes=size, sha256=digest)
    if published not in (None, digest):
        return facts._replace(fault=f"{file}: its sha256 is {digest[:12]}, not {published[:12]} as published; it was cut short "
                              "or changed: delete it and run `restok fetch` again")
    return facts._replace(verified="shapes" if published is None else "sha256")


def _faulty(wanted: Wanted, fault: str | None, source: Pretrained | Hosted | None = None) -> Held:
    return Held(wanted.network, wanted.setting if wanted.file else None, source and source.url, source and source.licence,
                None, None, None, None, fault)


def _read(wanted: Wanted) -> None:
    """Read the weights as jobs do, into a network without memory: names and shapes must fit."""
    with torch.device("meta"), warnings.catch_warnings(action="ignore", category=UserWarning):   # torch's, that nothing is kept
        if wanted.network == "inception":
            load_inception(wanted.file, wanted.setting)
        elif wanted.network == "dinov2":
            load_dinov2(wanted.file, wanted.setting)
        elif wanted.network in PRETRAINED:
            load_lpips(wanted.network, wanted.file, wanted.setting)
        else:
            create(wanted.network, wanted.file, wanted.setting or "weights")
