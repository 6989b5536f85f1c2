"""The search for guidance (Table 6), in one round or two: the order of what was measured, the choice, and what it cost. Files
only, no tensors.

Both rounds draw image i of every setting from one seed and i, so that what two of them differ in is the setting.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from restok.config import Guidance
from restok.config.load import parse
from restok.errors import RestokError
from restok.experiments.searched import Choice, Scored
from restok.files import write_json
from restok.files.artifact import Origin, body_of, digest_of
from restok.files.loading import Record, load_model, load_record
from restok.metrics.results import require_comparable

HILL_CLIMB = 50_000      # samples that the release's own search draws for each of its steps, of 0.25 on the largest scale
SETTING = ("schedule", "scale", "start")


class SearchError(RestokError):
    """Candidates that do not compare; the message names the file and the remedy."""


def search_guidance(candidates: list[Path], finalists: list[Path], out: Path,
                    show: Callable[[dict], None] = lambda _: None) -> dict:
    """Choose the setting with the lowest distance: among the finalists, which are the best candidates measured again on more
    samples; where there are none, among the candidates. Writes it with all that were tried; `show` is given it, even where it
    cannot be written.

    Raises ComparisonError where files were measured with other features or references than the first, SearchError for other
    sampling, for finalists that are not the best candidates, and where nothing has a distance, FileError for what is no
    candidate.
    """
    rows, finals = scored(candidates), scored(finalists) if finalists else []
    if finals:
        _require_best(rows, finals)
    best, metric = ranked(finals or rows)[0], rows[0]["names"]["distance"]
    if best["metrics"][metric] is None:
        raise SearchError(f"{best.path}: {metric} was not measured: {best['refused'][metric]}; nor was it of any other; score "
                          "them again once that is mended")
    kept = (*SETTING, "n", "metrics", "intervals", "refused", "warnings")
    tried = {"candidates": [{key: row[key] for key in kept} for row in rows],
             "finalists": [{key: row[key] for key in kept} for row in finals]}
    result = {"chosen": {key: best[key] for key in SETTING}, "metric": metric, metric: best["metrics"][metric],
              "top_k": best["sampling"]["top_k"], "top_p": best["sampling"]["top_p"],
              **{key: best[key] for key in ("features", "reference", "sampling", "seed")},
              "samples": drawn(tried), "hill_climb_step": HILL_CLIMB, **tried}
    made_from = {f"{kind} {' '.join(map(str, _setting(row)))}": row
                 for kind, each in (("candidate", rows), ("finalist", finals)) for row in each}
    digests = {name: digest_of(body_of(row)) for name, row in made_from.items()}
    paths = {name: row.path for name, row in made_from.items()}
    result = Origin("guidance", {}, digests, paths).sealed(result, out)
    try:
        write_json(out, result)
    finally:
        show(result)
    return result


def scored(paths: Sequence[Path]) -> list[Record]:
    """What `restok score-guidance` or `restok score-finalist` wrote, each of another setting, all of them comparable."""
    rows = [load_record(path, Scored) for path in paths]
    require_comparable([(row.path, row) for row in rows])
    settings = {}
    for row in rows:
        _require_equal(row, rows[0], "sampling", "seed", "n")
        if (other := settings.setdefault(_setting(row), row)) is not row:
            raise SearchError(f"{row.path}: of the same setting as {other.path}; name each setting once")
    return rows


def ranked(rows: Sequence[Record]) -> list[Record]:
    """The lowest distance first; of equal ones the weaker guidance; what has no distance last."""
    def place(row: Record) -> tuple:
        distance = row["metrics"][row["names"]["distance"]]
        return distance is None, distance or 0, row["scale"], row["schedule"], row["start"]

    return sorted(rows, key=place)


def setting(row: Record) -> Guidance:
    """What a candidate was drawn with. Raises ConfigError for what is no guidance."""
    return parse(Guidance, {key: row[key] for key in SETTING}, str(row.path))


def _require_best(rows: Sequence[Record], finals: Sequence[Record]) -> None:
    """Raises SearchError, or ComparisonError, unless the finalists are the first of the candidates, measured like them."""
    require_comparable([(row.path, row) for row in (rows[0], finals[0])])
    _require_equal(finals[0], rows[0], "sampling", "seed")
    best = [_setting(row) for row in ranked(rows)[:len(finals)]]
    for row in finals:
        if _setting(row) not in best:
            raise SearchError(f"{row.path}: of none of the best candidates, of which there are as many as finalists; delete it "
                              "and score the finalists again")


def _require_equal(row: Record, first: Record, *keys: str) -> None:
    for key in keys:
        if row[key] != first[key]:
            raise SearchError(f"{row.path}: its {key} differ from those of {first.path}; delete both and score them again")


def _setting(row: Mapping) -> tuple:
    return tuple(row[key] for key in SETTING)


def finalists_of(search: Mapping) -> list[Mapping]:
    """Of what `search_guidance` wrote, now or in an earlier version, which measured nothing again."""
    return search["finalists"] if "finalists" in search else []


def drawn(search: Mapping) -> int:
    """The samples of a search, all together."""
    return sum(row["n"] for row in (*search["candidates"], *finalists_of(search)))


def cost(samples: int) -> str:
    """The samples of a search, beside those of the release's own."""
    return (f"{samples:,} samples in all; the release's hill-climb takes {HILL_CLIMB:,} a step, so as many as "
            f"{samples / HILL_CLIMB:.3g} of its steps")


def among(search: Mapping) -> str:
    """What was chosen from: '3 finalists over 50,000 samples each, the best of 17 candidates over 10,000 samples each'."""
    rounds = (("finalists", finalists_of(search)), ("candidates", search["candidates"]))
    return ", the best of ".join(f"{len(rows)} {name} over {rows[0]['n']:,} samples each" for name, rows in rounds if rows)


def read_guidance(path: Path) -> Guidance:
    """The setting that a search chose. Raises FileError."""
    return load_model(path, Choice).chosen
