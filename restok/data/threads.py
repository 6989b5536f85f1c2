"""Reading in threads: pillow decodes, and hashes are taken, without the interpreter's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A, B = TypeVar("A"), TypeVar("B")
THREADS = 128                            # more only wait for each other


def map_ahead(function: Callable[[A], B], items: Iterable[A], workers: int = 1, ahead: int | None = None) -> Iterator[B]:
    """`map` in `workers` threads, at least one and at most `THREADS`, in order. At most `ahead` items (None: 64 a thread) are
    worked on before they are asked for, which bounds what is held."""
    workers, waiting = min(max(1, workers), THREADS), deque()
    ahead = 64 * workers if ahead is None else ahead
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
