"""Signals that ask a command to leave: at once, taking along what is unfinished; a training, once it has saved its state."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

EXIT = 75                        # EX_TEMPFAIL of sysexits.h: nothing is wrong, and the same command goes on
SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
PATIENCE = 5.0                   # seconds in which what is unfinished is removed, whatever comes


class Interrupted(KeyboardInterrupt):
    """A signal asked to leave; the message says what becomes of the work."""


def _leave(name: str) -> None:
    """Before a verb has begun, when there is nothing to remove."""
    os.write(sys.stderr.fileno(), f"interrupted by {name}, before anything was done\n".encode())
    os._exit(EXIT)


def _interrupt(name: str) -> None:
    global _heard
    if time.monotonic() - _heard > PATIENCE:
        _heard = time.monotonic()
        raise Interrupted(f"by {name}; what is finished stays, and the same command goes on from there")


def _remember(name: str) -> None:
    global _asked
    _asked = _asked or name


_answer: Callable[[str], None] = _leave
_asked: str | None = None
_heard = -PATIENCE


def install() -> None:
    """This process answers from here on, but for signals that who started it had ignored, as nohup does."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    _answer(signal.Signals(number).name)


@contextmanager
def answered() -> Iterator[None]:
    """A verb's work, in which a signal raises Interrupted; what comes after the work changes nothing."""
    global _answer, _asked, _heard
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _asked, _heard, _answer = None, -PATIENCE, _interrupt
    install()
    try:
        yield
    finally:
        for number, handler in before.items():         # Python gives up handlers as it ends, but leaves ignored signals ignored
            signal.signal(number, signal.SIG_IGN if handler is _handle else handler)


def defer() -> None:
    """From here to the end of the verb a signal does no more than to be `asked`."""
    global _answer
    _answer = _remember


def asked() -> str | None:
    """The first signal since `defer`, by its name."""
    return _asked


def leave_to_parent(worker: int) -> None:
    """In a process that reads images: a terminal or a scheduler signals all processes, and the parent answers for them. It ends
    this one itself, by SIGTERM."""
    for number in SIGNALS[1:]:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
