"""Tiles of precision hop: which there are, how one is stored, and how events get into them. NumPy only.

Tile k of hop h holds the partials of events with k*h < time <= (k+1)*h. A tile is a row of 64-bit words: its number
(level and k) and counts, 32 bits each, then one word per other field. Only tiles that had an event are stored,
sorted by level and k.

    level 4 bits, k + 1 28 bits | count 0   count 2 | count 1 ...   float64 or int64 ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.partials import Part, Partial
from tidewheel.features.spans import Ints

Tiles = NDArray[np.int64]  # [n, width]

INDEX_BITS = 28
MAX_LEVELS = 7
_INDEX = 2**INDEX_BITS - 1


@dataclass(frozen=True)
class Level:
    """Tiles of one length. ``longest_us`` is the longest window of this hop, 0 where only heads are read here."""

    hop_us: int
    longest_us: int


@dataclass(frozen=True)
class BoundPart:
    """A part of one column (its place in the state), one condition and one filter (their bits)."""

    part: Part
    column: int | None
    condition: int | None
    filter: int | None


@dataclass(frozen=True)
class TileLayout:
    """Tiles of one state; ``levels`` from the finest to the coarsest."""

    levels: tuple[Level, ...]
    delay_us: int
    lateness_us: int
    parts: tuple[BoundPart, ...]

    @cached_property
    def hops_us(self) -> Ints:
        return np.array([level.hop_us for level in self.levels], dtype=np.int64)

    @cached_property
    def _slots(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """Per part and field: its kind and its column, of 32 bits for counts, of 64 bits for the others."""
        kinds = [kind for bound in self.parts for kind, _ in bound.part.fields]
        # Column 1 is the upper half of the first word: the tile's number.
        counts = iter([0, *range(2, kinds.count("count") + 1)])
        words = iter(range(-(-(1 + kinds.count("count")) // 2), 2**16))
        return tuple(
            tuple((kind, next(counts if kind == "count" else words)) for kind, _ in bound.part.fields)
            for bound in self.parts
        )

    @cached_property
    def width(self) -> int:
        """64-bit words per tile."""
        kinds = [kind for bound in self.parts for kind, _ in bound.part.fields]
        return -(-(1 + kinds.count("count")) // 2) + len(kinds) - kinds.count("count")

    def numbers(self, level: int, times_us: Ints) -> Ints:
        """Number of the tile of one level that holds each time."""
        return (level << INDEX_BITS) + (times_us - 1) // self.levels[level].hop_us + 1

    def starts(self, asked_us: Ints) -> Ints:
        """First tile that a request at ``asked_us`` or later may read, per level: int64 [n, levels] of numbers."""
        starts = np.empty((len(asked_us), len(self.levels)), dtype=np.int64)
        for number, level in enumerate(self.levels):
            first = np.full(len(asked_us), np.iinfo(np.int64).max)
            if level.longest_us:
                first = (asked_us - self.delay_us - level.longest_us) // level.hop_us
            # The head of the next coarser level; the heads of those beyond begin there.
            for coarser in self.levels[number + 1 : number + 2] if not self.delay_us else ():
                first = np.minimum(first, (asked_us - 1) // coarser.hop_us * (coarser.hop_us // level.hop_us))
            starts[:, number] = (number << INDEX_BITS) + np.clip(first + 1, 0, _INDEX)
        return starts

    def tile_numbers(self, tiles: Tiles) -> Ints:
        return tiles[:, 0] >> 32

    def fields(self, tiles: Tiles, part: int) -> Partial:
        """The stored partial of a part, one entry more than there are tiles."""
        return tuple(self._field(tiles, kind, column) for kind, column in self._slots[part])

    def _field(self, tiles: Tiles, kind: str, column: int) -> NDArray[np.int64] | NDArray[np.float64]:
        padded = np.zeros(len(tiles) + 1, dtype=np.int64)
        padded[:-1] = tiles.view(np.uint32)[:, column] if kind == "count" else tiles[:, column]
        return padded.view(np.float64) if kind == "float" else padded

    def packed(self, tiles: Tiles, numbers: Ints, partials: Sequence[Partial]) -> None:
        """Write numbers and partials (entries beyond the tiles are left out) into ``tiles``."""
        tiles[:, : -(-(1 + sum(kind == "count" for slot in self._slots for kind, _ in slot)) // 2)] = 0
        halves = tiles.view(np.uint32)
        halves[:, 1] = numbers
        for slots, partial in zip(self._slots, partials, strict=True):
            for (kind, column), field in zip(slots, partial, strict=True):
                if kind == "count":
                    halves[:, column] = field[: len(tiles)]
                else:
                    tiles[:, column] = field[: len(tiles)].view(np.int64)

    def empty(self, n: int) -> Tiles:
        """Tiles without events and without numbers."""
        row = np.zeros((1, self.width), dtype=np.int64)
        partials = [tuple(np.array([value], "f8" if kind == "float" else "i8") for kind, value in bound.part.fields)
                    for bound in self.parts]  # fmt: skip
        self.packed(row, np.zeros(1, dtype=np.int64), partials)
        return np.repeat(row, n, axis=0)
