"""A journal: what a long step has finished, kept as it goes, so that a killed one goes on from there."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

HEAD = 8                                 # bytes of a record that say how long the rest is: then its sha256, and the record


class Journal:
    """Records, appended to a file, each behind its length and its sha256.

    A record is with the system when `append` returns: a killed process loses none. A machine that fails loses what the system
    had not written to the disk yet. Whatever is left, `read` gives the records before the first that is not whole.
    """

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> Iterator[bytes]:
        """The records that are whole; what comes after them is cut off."""
        if not self.path.exists():
            return
        with open(self.path, "r+b") as file:
            end, size = 0, self.path.stat().st_size
            while (length := int.from_bytes(file.read(HEAD))) and length <= size - end:
                digest, record = file.read(32), file.read(length)
                if sha256(record).digest() != digest:
                    break
                end = file.tell()
                yield record
            file.truncate(end)

    def append(self, record: bytes) -> None:
        """Raises OSError, which names the file, where there is no room."""
        try:
            with open(self.path, "ab") as file:
                file.write(len(record).to_bytes(HEAD) + sha256(record).digest() + record)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
