"""Records of events as the arrays that aggregations read. NumPy only.

A record is a row of 64-bit words: time (us), event id hash, filter bits with null bits in the upper half, columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.spans import Bools, Ints
from tidewheel.features.tiles import BoundPart

Records = NDArray[np.int64]

TIME, ID, BITS, COLUMNS = 0, 1, 2, 3  # positions of the fields in a record
MAX_FILTERS = 32  # as many integer columns may have null bits

_MASKS = tuple(np.uint64(1 << number).view(np.int64) for number in range(64))


def exact_names(name: str) -> tuple[str, str]:
    """Under which names requests carry the integers of a column that has nulls, and where it is null. No field is
    called so; the column itself is float64 then, for request functions."""
    return f"{name} exact", f"{name} null"


class RecordEvents:
    """Fields of records as arrays with one entry more than there are records, each made once."""

    def __init__(self, records: Records, integers: tuple[bool, ...]) -> None:
        self._records, self._integers = records, integers
        self._made: dict[Any, NDArray[Any]] = {}

    def bound(self, part: BoundPart) -> tuple[BoundEvents, Bools | None]:
        """Events as the part reads them, and which of them count."""
        return BoundEvents(self, part), None if part.filter is None else self.bit(part.filter)

    def word(self, position: int) -> Ints:
        made = self._made.get(position)
        if made is None:
            made = np.zeros(len(self._records) + 1, dtype=np.int64)
            made[:-1] = self._records[:, position]
            self._made[position] = made
        return made

    def bit(self, number: int) -> Bools:
        made = self._made.get(("bit", number))
        if made is None:
            made = self._made["bit", number] = (self.word(BITS) & _MASKS[number]) != 0
        return made

    def values(self, column: int) -> NDArray[Any]:
        word = self.word(COLUMNS + column)
        return word if self._integers[column] else word.view(np.float64)

    def valid(self, column: int) -> Bools:
        made = self._made.get(("valid", column))
        if made is None:
            values = self.values(column)
            made = ~self.bit(MAX_FILTERS + column) if self._integers[column] else values == values  # noqa: PLR0124
            self._made["valid", column] = made
        return made


@dataclass(frozen=True, eq=False)
class BoundEvents:
    """What ``partials.Events`` asks for."""

    _events: RecordEvents
    _part: BoundPart

    @property
    def times(self) -> Ints:
        return self._events.word(TIME)

    @property
    def ids(self) -> Ints:
        return self._events.word(ID)

    @property
    def values(self) -> NDArray[Any]:
        return self._events.values(_present(self._part.column))

    @property
    def valid(self) -> Bools:
        return self._events.valid(_present(self._part.column))

    @property
    def meets(self) -> Bools:
        return self._events.bit(_present(self._part.condition))


def _present(place: int | None) -> int:
    if place is None:
        raise TypeError("this part reads nothing but times and ids")
    return place
