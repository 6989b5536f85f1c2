"""Sending what lies on disk to a store of MLflow: once, or as it comes. One mirror at a time works for a run and a store."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

from restok.config import Params
from restok.config.load import ConfigError, load_params
from restok.errors import InputError, RestokError
from restok.experiments import Tree, load_sheet
from restok.experiments.manifests import ManifestError
from restok.files import FileError
from restok.files.owner import Owner
from restok.mirror import views
from restok.mirror.results import Results, Source, stamp
from restok.tracking import Store, TrackingError, address

FAILURES = 3                         # of single results, after which it is the store that fails
EVERY, AT_MOST = 10.0, 300.0         # seconds from one look to the next, and where the store does not answer, at the most
log = logging.getLogger("restok")


class BusyError(RestokError):
    """Another mirror is at work for a run and a store."""


class Mirror:
    """Of one run, params/RUN.yaml, of the clone in this folder."""

    def __init__(self, run: str):
        self.run, self.sent, self.parameters = run, {}, Path("params", f"{run}.yaml")
        self.store: Store | None = None
        self.owned, self._read = False, ()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises BusyError where another mirror is at work."""
        home = Path("runs", self.run, "tracking", sha256(address().encode()).hexdigest()[:8])
        home.mkdir(parents=True, exist_ok=True)
        with Owner(home, lambda other: BusyError(f"{self.run}: another mirror is at work ({other}), which sends the same")):
            self.owned = True
            yield

    def look(self) -> int:
        """Send what changed since the last look; returns how many runs of MLflow that was. Raises TrackingError."""
        tree, params = self._settings()
        results = Results(tree, params, Path("runs", self.run), Path("reports", self.run), self.parameters)
        changed = [source for source in results.sources() if self.sent.get(source.path) != source.stamp]
        self.store = self.store or Store(self.run)
        failed: list[TrackingError] = []
        for source in changed:
            try:
                self._send(source)
                self.sent[source.path] = source.stamp
            except TrackingError as error:                 # of one result, it may be; of three, the store's
                failed.append(error)
                if len(failed) == FAILURES:
                    break
        if failed:
            raise failed[0]
        self.store.tag_experiment(views.tags(views.views(results.tree, self.store.metrics())))
        return len(changed)

    def _settings(self) -> tuple[Tree, Params]:
        """Read again only when a file of them changed: a look should cost next to nothing."""
        if (now := stamp(self.parameters, self.parameters.with_name("experiments.tsv"))) != self._read:
            self._tree = Tree(Path("results", self.run), load_sheet(self.parameters))
            self._params, self._read = load_params(self.parameters), now
        return self._tree, self._params

    def _send(self, source: Source) -> None:
        try:
            one = source.read()
        except (FileError, InputError, ManifestError, KeyError, ValueError) as error:      # damaged, or of another version
            log.warning("%s: not sent to MLflow: %s", source.path, error)
            return
        if one:
            self.store.write(one)


def known(runs: Sequence[str]) -> list[str]:
    """Those that are named, or all that have results here. Raises ConfigError for one without a parameter file."""
    found = runs or [path.stem for path in sorted(Path("params").glob("*.yaml"))
                     if Path("results", path.stem).is_dir() or Path("runs", path.stem).is_dir()]
    for run in found:
        if not Path("params", f"{run}.yaml").is_file():
            raise ConfigError(f"params/{run}.yaml: not here; name runs by their parameter files, in the folder of the clone")
    return list(found)


def sync(runs: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Send all that is not there yet; yields each run with how many of its results were looked at. Raises TrackingError,
    BusyError."""
    for run in known(runs):
        with (mirror := Mirror(run)).held():
            yield run, mirror.look()


def follow(runs: Sequence[str], over: Callable[[], bool]) -> None:
    """Send what comes until it is `over`, then look once more. What cannot be sent is sent later: a store that does not answer
    is a warning, once."""
    mirrors, told = [Mirror(run) for run in known(runs)], set()
    with ExitStack() as held:
        while True:
            last, pause = over(), EVERY
            for mirror in mirrors:
                try:
                    if not mirror.owned:
                        held.enter_context(mirror.held())
                    mirror.look()
                except BusyError as busy:
                    _once(told, f"{busy}; this one waits to take over", logging.INFO)
                except (TrackingError, ConfigError, OSError) as error:         # ConfigError: of a file that is being edited
                    mirror.store, pause = None, min(2 * pause, AT_MOST)
                    _once(told, str(error))
            if last:
                return
            _wait(pause, over)


def _once(told: set[str], message: str, level: int = logging.WARNING) -> None:
    if message not in told:
        log.log(level, "%s", message)
    told.add(message)


def _wait(seconds: float, over: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not over():
        time.sleep(0.25)
