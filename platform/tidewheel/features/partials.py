"""What aggregations add up: one object per kind of partial result, over events or over stored tiles. NumPy only.

A part turns the events of a run into a partial (``partial``), takes events into stored partials in their order of
arrival (``fold``: one by one, so that it does not matter how events were cut into batches), combines the stored
partials of a run (``combine``) and two partials (``merge``). A partial is a tuple of arrays of one shape, one per
field. Floats are summed pairwise over the run alone, never as differences of running sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.spans import Bools, Floats, Ints, Spans

Partial = tuple[NDArray[Any], ...]
FieldKind = Literal["count", "int", "float"]  # count: 32 bits when stored, the others 64

Reads = Literal["events", "values", "condition"]

NEVER_US = -(2**62)  # before any event
_LOW = np.int64(2**32 - 1)
_LEAST, _GREATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class Events(Protocol):
    """Events as one part reads them; arrays have one entry more than there are events (see Spans)."""

    @property
    def times(self) -> Ints: ...

    @property
    def ids(self) -> Ints: ...

    @property
    def values(self) -> NDArray[Any]:
        """float64, NaN for null; int64 where the column is kept as integers."""
        ...

    @property
    def valid(self) -> Bools: ...

    @property
    def meets(self) -> Bools:
        """Whether the event meets the condition that the aggregation is of."""
        ...


class Part(Protocol):
    """``member`` marks the events that count (None: all)."""

    @property
    def reads(self) -> Reads:
        """Which of the events' arrays it needs besides times and ids."""
        ...

    @property
    def fields(self) -> tuple[tuple[FieldKind, Any], ...]:
        """Kind of each field, and its value where there was no event; none where tiles cannot hold it."""
        ...

    def partial(self, spans: Spans, events: Events, member: Bools | None) -> Partial: ...

    def fold(self, stored: Partial, tile_of: Ints, events: Events, member: Bools | None) -> None:
        """Take n events, in order of arrival, into ``stored`` in place; ``tile_of`` [n]."""
        ...

    def combine(self, spans: Spans, stored: Partial) -> Partial:
        """``stored`` runs parallel to time and has one entry more than there are partials."""
        ...

    def merge(self, left: Partial, right: Partial) -> Partial: ...


def _both(left: Bools, right: Bools | None) -> Bools:
    return left if right is None else left & right


@dataclass(frozen=True)
class Tally:
    """How many events: all members, those with a value, or those that meet the condition."""

    reads: Reads

    @property
    def fields(self) -> tuple[tuple[FieldKind, Any], ...]:
        return (("count", 0),)

    def _counted(self, events: Events, member: Bools | None) -> Bools | None:
        if self.reads == "events":
            return member
        return _both(events.valid if self.reads == "values" else events.meets, member)

    def partial(self, spans: Spans, events: Events, member: Bools | None) -> Partial:
        return (spans.count(self._counted(events, member)),)

    def fold(self, stored: Partial, tile_of: Ints, events: Events, member: Bools | None) -> None:
        counted = self._counted(events, member)
        tiles = tile_of if counted is None else tile_of[counted[: len(tile_of)]]
        stored[0][:] += np.bincount(tiles, minlength=len(stored[0]))

    def combine(self, spans: Spans, stored: Partial) -> Partial:
        return (spans.reduce(np.add, stored[0], 0),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (left[0] + right[0],)


@dataclass(frozen=True)
class Reduced:
    """One ufunc over one or more numbers that each event contributes; ``empty`` is what a non-member contributes."""

    name: str
    ufunc: np.ufunc
    fields: tuple[tuple[FieldKind, Any], ...]
    contribution: Callable[[Events], tuple[NDArray[Any], ...]]
    reads: Reads = "values"  # an event without a value then contributes nothing

    def _contributed(self, events: Events, member: Bools | None) -> tuple[NDArray[Any], ...]:
        counted = _both(events.valid, member) if self.reads == "values" else member
        numbers = self.contribution(events)
        if counted is None:
            return numbers
        return tuple(np.where(counted, one, empty) for one, (_, empty) in zip(numbers, self.fields, strict=True))

    def partial(self, spans: Spans, events: Events, member: Bools | None) -> Partial:
        return self.combine(spans, self._contributed(events, member))

    def fold(self, stored: Partial, tile_of: Ints, events: Events, member: Bools | None) -> None:
        for field, numbers in zip(stored, self._contributed(events, member), strict=True):
            self.ufunc.at(field, tile_of, numbers[: len(tile_of)])

    def combine(self, spans: Spans, stored: Partial) -> Partial:
        pairs = zip(stored, self.fields, strict=True)
        return tuple(spans.reduce(self.ufunc, numbers, empty) for numbers, (_, empty) in pairs)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return tuple(self.ufunc(one, other) for one, other in zip(left, right, strict=True))


def _value(events: Events) -> tuple[NDArray[Any], ...]:
    return (events.values,)


def _halves(events: Events) -> tuple[NDArray[Any], ...]:
    return events.values >> 32, events.values & _LOW


def _time(events: Events) -> tuple[NDArray[Any], ...]:
    return (events.times,)


EVENTS = Tally("events")
VALUES = Tally("values")
MET = Tally("condition")
FLOAT_SUM = Reduced("sum", np.add, (("float", 0.0),), _value)
INT_SUM = Reduced("sum", np.add, (("int", 0), ("int", 0)), _halves)  # upper and lower halves cannot overflow
FLOAT_MIN = Reduced("min", np.minimum, (("float", np.inf),), _value)
FLOAT_MAX = Reduced("max", np.maximum, (("float", -np.inf),), _value)
INT_MIN = Reduced("min", np.minimum, (("int", _GREATEST),), _value)
INT_MAX = Reduced("max", np.maximum, (("int", _LEAST),), _value)
NEWEST_TIME = Reduced("newest", np.maximum, (("int", NEVER_US),), _time, "events")


@dataclass(frozen=True)
class Spread:
    """(n, center, sum of distances from it, sum of their squares): what a standard deviation is made of.

    A run's center is its mean (two passes); a tile's is the first value that came, as a mean is not known yet.
    Merged as by Chan, Golub and LeVeque, 1979.
    """

    reads: Reads = "values"

    @property
    def fields(self) -> tuple[tuple[FieldKind, Any], ...]:
        return ("count", 0), ("float", 0.0), ("float", 0.0), ("float", 0.0)

    def partial(self, spans: Spans, events: Events, member: Bools | None) -> Partial:
        values = events.values.astype(np.float64, copy=False)
        valid = _both(events.valid, member)
        count = spans.count(valid)
        mean = spans.reduce(np.add, np.where(valid, values, 0.0), 0.0) / np.maximum(count, 1)
        distances = values[spans.index] - np.repeat(mean.ravel(), spans.lengths.ravel())
        distances = np.where(valid[spans.index], distances, 0.0)
        squares = spans.flat.reduce(np.add, np.append(distances**2, 0.0), 0.0)
        return count, mean, np.zeros_like(mean), squares

    def fold(self, stored: Partial, tile_of: Ints, events: Events, member: Bools | None) -> None:
        count, center, total, squares = stored
        valid = _both(events.valid, member)[: len(tile_of)]
        tiles, values = tile_of[valid], events.values[: len(tile_of)][valid].astype(np.float64, copy=False)
        touched, first = np.unique(tiles, return_index=True)
        new = count[touched] == 0
        center[touched[new]] = values[first[new]]
        distances = values - center[tiles]
        count[:] += np.bincount(tiles, minlength=len(count))
        np.add.at(total, tiles, distances)
        np.add.at(squares, tiles, distances**2)

    def combine(self, spans: Spans, stored: Partial) -> Partial:
        index, lengths = spans.index, spans.lengths.ravel()
        count, mean, within = (np.append(one[index], 0) for one in _moments(stored))
        n = spans.flat.reduce(np.add, count, 0)
        grand = spans.flat.reduce(np.add, count * mean, 0.0) / np.maximum(n, 1)
        away = np.append(mean[:-1] - np.repeat(grand.ravel(), lengths), 0.0)
        squares = spans.flat.reduce(np.add, within + count * away**2, 0.0)
        return n, grand, np.zeros_like(grand), squares

    def merge(self, left: Partial, right: Partial) -> Partial:
        n_left, mean_left, squares_left = _moments(left)
        n_right, mean_right, squares_right = _moments(right)
        count = n_left + n_right
        share = n_right / np.maximum(count, 1)
        distance = mean_right - mean_left
        mean = mean_left + distance * share
        return count, mean, np.zeros_like(mean), squares_left + squares_right + distance**2 * n_left * share


def _moments(partial: Partial) -> tuple[Ints, Floats, Floats]:
    """n, mean and sum of squared distances from the mean."""
    count, center, total, squares = partial
    offset = total / np.maximum(count, 1)
    return count, center + offset, np.maximum(squares - total * offset, 0.0)


SPREAD = Spread()


@dataclass(frozen=True)
class Edge:
    """(time, id hash, value) of the newest or the oldest event with a value; id hashes, as int64, order equal times."""

    newest: bool
    integer: bool
    reads: Reads = "values"

    @property
    def fields(self) -> tuple[tuple[FieldKind, Any], ...]:
        return ("int", NEVER_US), ("int", 0), (("int", 0) if self.integer else ("float", 0.0))

    def partial(self, spans: Spans, events: Events, member: Bools | None) -> Partial:
        return self._at(spans, _both(events.valid, member), (events.times, events.ids, events.values))

    def combine(self, spans: Spans, stored: Partial) -> Partial:
        return self._at(spans, stored[0] != NEVER_US, stored)

    def _at(self, spans: Spans, member: Bools, arrays: Partial) -> Partial:
        found = spans.last(member) if self.newest else spans.first(member)
        return tuple(
            np.where(found >= 0, one[found], empty) for one, (_, empty) in zip(arrays, self.fields, strict=True)
        )

    def fold(self, stored: Partial, tile_of: Ints, events: Events, member: Bools | None) -> None:
        n = len(tile_of)
        rows = np.flatnonzero(_both(events.valid, member)[:n])
        rows = rows[np.lexsort((events.ids[rows], events.times[rows], tile_of[rows]))]
        tiles = tile_of[rows]
        turns = np.append(tiles[1:] != tiles[:-1], True) if self.newest else np.append(True, tiles[1:] != tiles[:-1])
        rows, tiles = rows[turns[: len(rows)]], tiles[turns[: len(rows)]]
        mine = tuple(one[tiles] for one in stored)
        merged = self.merge(mine, (events.times[rows], events.ids[rows], events.values[rows]))
        for field, new in zip(stored, merged, strict=True):
            field[tiles] = new

    def merge(self, left: Partial, right: Partial) -> Partial:
        later = (right[0] > left[0]) | ((right[0] == left[0]) & (right[1] > left[1]))
        takes = later if self.newest else ~later
        takes = np.where(left[0] == NEVER_US, True, takes & (right[0] != NEVER_US))
        return tuple(np.where(takes, other, one) for one, other in zip(left, right, strict=True))


@dataclass(frozen=True)
class Different:
    """The set of values: an object array with a sorted int64 array (the bits of floats) per run."""

    reads: Reads = "values"

    @property
    def fields(self) -> tuple[tuple[FieldKind, Any], ...]:
        return ()

    def partial(self, spans: Spans, events: Events, member: Bools | None) -> Partial:
        counted = _both(events.valid, member)[spans.index]
        bits = events.values.view(np.int64)[spans.index][counted]
        run_of = np.repeat(np.arange(spans.lengths.size), spans.lengths.ravel())[counted]
        order = np.lexsort((bits, run_of))
        bits, run_of = bits[order], run_of[order]
        new = np.ones(len(bits), dtype=bool)
        new[1:] = (bits[1:] != bits[:-1]) | (run_of[1:] != run_of[:-1])
        bits, run_of = bits[new], run_of[new]
        ends = np.searchsorted(run_of, np.arange(spans.lengths.size), side="right")
        bounds = [0, *ends.tolist()]
        return (_sets([bits[start:end] for start, end in itertools.pairwise(bounds)], spans.lengths.shape),)

    def fold(self, stored: Partial, tile_of: Ints, events: Events, member: Bools | None) -> None:
        raise TypeError("tiles cannot hold a set")

    def combine(self, spans: Spans, stored: Partial) -> Partial:
        raise TypeError("tiles cannot hold a set")

    def merge(self, left: Partial, right: Partial) -> Partial:
        one, other = np.broadcast_arrays(left[0], right[0])
        pairs = zip(one.ravel(), other.ravel(), strict=True)
        return (_sets([np.union1d(a, b) if len(b) else a for a, b in pairs], one.shape),)


def _sets(sets: list[Ints], shape: tuple[int, ...]) -> NDArray[Any]:
    made = np.empty(len(sets), dtype=object)
    for number, one in enumerate(sets):  # an assignment of the whole list would make a matrix of equal lengths
        made[number] = one
    return made.reshape(shape)


DIFFERENT = Different()
