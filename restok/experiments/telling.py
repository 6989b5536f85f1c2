"""What the terminal of the workflow says of long jobs while they go on, whose own words go into log files."""

import logging
import time
from pathlib import Path
from threading import Thread
from typing import Any

from restok.experiments.underway import Running, running, runs_at

LOOK = 30.0                          # seconds from one look at the notes to the next
SOONEST, LATEST = 60.0, 900.0        # seconds between two lines of one job: a tenth of its time, within these


class Telling(logging.Handler):
    """Of Snakemake's log: once its jobs start, says now and then how far the long ones are. A dry run has none, and --quiet
    hides it. What fails here stops nothing."""

    def __init__(self, workflow: Any, log: logging.Logger, runs: Path = Path("runs")):
        super().__init__()
        self.workflow, self.log, self.runs, self.told = workflow, log, runs, {}
        self.thread: Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        begins = getattr(record, "event", None) == "run_info" and self.workflow.is_main_process
        if begins and self.thread is None and not self.workflow.dryrun and not quiet(self.workflow):
            self.thread = Thread(target=self._go_on, daemon=True)
            self.thread.start()

    def _go_on(self) -> None:
        while True:
            time.sleep(LOOK)
            try:
                self.tell(time.time())
            except Exception as error:           # of a folder that cannot be read, which the jobs themselves would say
                self.log.debug(f"progress: {type(error).__name__}: {error}")

    def tell(self, now: float) -> None:
        for each in (one for root in runs_at(self.runs) for one in running(root) if one.stopped is None):
            work = each.run, each.place, each.began
            if now - self.told.get(work, each.began) >= _pause(each, now):
                self.told[work] = now
                self.log.info(f"{time.strftime('%H:%M', time.localtime(now))}  {each.run} {each.place}: {each}, {each.speed}")


def quiet(workflow: Any) -> bool:
    """Whether the user wants to hear of the jobs alone, or of nothing."""
    return "PROGRESS" in {hidden.name for hidden in workflow.output_settings.quiet or ()}


def _pause(each: Running, now: float) -> float:
    return min(max(SOONEST, (now - each.began + each.left) / 10), LATEST)
