"""Work in parts: which of n things one of several jobs or processes does."""

from typing import NamedTuple


class Shard(NamedTuple):
    """Part number `part`, from 0, of `parts`."""

    part: int
    parts: int

    def bounds(self, n: int, unit: int = 1) -> tuple[int, int]:
        """The start and stop of this part of n things, which are cut at multiples of `unit` alone."""
        units = -(-n // unit)
        start, stop = (min(i * units // self.parts * unit, n) for i in (self.part, self.part + 1))
        return start, stop

    def divided(self, by: "Shard") -> "Shard":
        """That part of this part."""
        return Shard(self.part * by.parts + by.part, self.parts * by.parts)


WHOLE = Shard(0, 1)
