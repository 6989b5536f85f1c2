"""The records of reports: beside tables, figures and pages, what each was made from, and the digests of what was written."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from restok.config import Params
from restok.config.load import canonical_json
from restok.experiments import Item, Tree
from restok.experiments.manifests import RECORDS, artifact_at
from restok.files import sha256_file, write_json
from restok.files.artifact import Origin
from restok.files.outputs import require_writable

KINDS = "table", "tables", "figure", "chart", "report", "metrics"


def record_path(out: Path, kind: str) -> Path:
    """reports/demo/provenance/table2.json; of a chart, which lies beside its table, table2.chart.json."""
    return out.parent / RECORDS / f"{out.stem}{'.chart' * (kind == 'chart')}.json"


def require_record(out: Path, kind: str) -> None:
    """Raises FileError or OSError where the record cannot be written."""
    require_writable(record_path(out, kind), folder=False, kinds=KINDS)


def write_record(kind: str, out: Path, settings: Mapping[str, Any], inputs: Iterable[Path], written: Iterable[Path]) -> None:
    """What `restok KIND` made of `inputs`, files and folders of which some may not be there."""
    record, there = record_path(out, kind), [path for path in inputs if path.exists()]
    names = {path.as_posix(): path for path in there}
    origin = Origin(kind, settings, {name: _digest(path) for name, path in names.items()}, names)
    files = {path.name: path for path in written if path.is_file()}
    write_json(record, origin.manifest(out) | {"bytes": {name: path.stat().st_size for name, path in files.items()},
                                               "files": {name: sha256_file(path) for name, path in files.items()}})


def _digest(path: Path) -> str | None:
    """What an input is known by in its own manifest; of what has none, the file's."""
    try:
        if artifact := artifact_at(path):
            return artifact.digest
    except Exception:                    # what is damaged was refused by its reader, or does not matter to it
        pass
    return sha256_file(path) if path.is_file() else None


def shown(tree: Tree, params: Params, *items: Item) -> dict[str, Any]:
    """The settings of a report: the rows of the sheet that it shows, each with its checkpoint, and the parameters."""
    rows = [[item.name, entry.name, entry.trial.name, entry.label] for item in items for entry in tree.sheet.feeding(item.name)]
    return {"rows": rows, **json.loads(canonical_json(params, *type(params).model_fields))}
