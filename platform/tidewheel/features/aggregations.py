"""What can be computed over a window: one object per aggregation, and no engine names any of them.

An aggregation turns the events of a segment into a partial (init and update), combines two partials (merge), ends
a partial in a value (finalize), and says the same as SQL. Engines only call these. A partial is a tuple of arrays
of one shape, one entry per window; missing is NaN.

Sums are pairwise over the segment alone, never differences of running sums, so a value depends on the events in
its window and on nothing else: the same alone or among many, offline or online.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Partial = tuple[NDArray[Any], ...]


class Segments(Protocol):
    """Many runs of events at once; the arrays given to it have one entry per event."""

    def count(self, member: Bools | None) -> NDArray[np.int64]: ...

    def reduce(self, ufunc: np.ufunc, values: Floats, empty: float) -> Floats: ...

    def squares(self, values: Floats, valid: Bools, center: Floats) -> Floats: ...


class Aggregation(Protocol):
    """``member`` marks the events that count (None: all); ``values`` is None where no column is read."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def needs_column(self) -> bool: ...

    def partial(self, segments: Segments, values: Floats | None, member: Bools | None) -> Partial: ...

    def merge(self, left: Partial, right: Partial) -> Partial: ...

    def finalize(self, partial: Partial) -> Floats: ...

    def sql(self, value: str, member: str, over: str) -> str:
        """An SQL aggregate over ``value`` where ``member`` holds; ``over`` is empty or an OVER clause."""
        ...


def _valid(values: Floats, member: Bools | None) -> Bools:
    present = ~np.isnan(values)
    return present if member is None else present & member


def _column(values: Floats | None) -> Floats:
    if values is None:
        raise TypeError("this aggregation reads a column")
    return values


@dataclass(frozen=True)
class Count:
    """How many events; 0 in an empty window."""

    name: str = "count"
    dtype: str = "int64"
    needs_column: bool = False

    def partial(self, segments: Segments, values: Floats | None, member: Bools | None) -> Partial:
        return (segments.count(member),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (left[0] + right[0],)

    def finalize(self, partial: Partial) -> Floats:
        return partial[0].astype(np.float64)

    def sql(self, value: str, member: str, over: str) -> str:
        return f"count(*) FILTER (WHERE {member}){over}"


@dataclass(frozen=True)
class Sum:
    """The sum of the values that are there; 0 in an empty window."""

    name: str = "sum"
    dtype: str = "float64"
    needs_column: bool = True

    def partial(self, segments: Segments, values: Floats | None, member: Bools | None) -> Partial:
        column = _column(values)
        return (segments.reduce(np.add, np.where(_valid(column, member), column, 0.0), 0.0),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (left[0] + right[0],)

    def finalize(self, partial: Partial) -> Floats:
        return np.asarray(partial[0], dtype=np.float64)

    def sql(self, value: str, member: str, over: str) -> str:
        return f"coalesce(sum({value}) FILTER (WHERE {member}){over}, 0.0)"


@dataclass(frozen=True)
class Mean:
    """The mean of the values that are there; missing in an empty window."""

    name: str = "mean"
    dtype: str = "float64"
    needs_column: bool = True

    def partial(self, segments: Segments, values: Floats | None, member: Bools | None) -> Partial:
        column = _column(values)
        valid = _valid(column, member)
        return segments.reduce(np.add, np.where(valid, column, 0.0), 0.0), segments.count(valid)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return left[0] + right[0], left[1] + right[1]

    def finalize(self, partial: Partial) -> Floats:
        total, count = partial
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def sql(self, value: str, member: str, over: str) -> str:
        return f"avg({value}) FILTER (WHERE {member}){over}"


@dataclass(frozen=True)
class Extreme:
    """The least or the greatest of the values that are there; missing in an empty window."""

    name: str
    ufunc: np.ufunc
    empty: float
    dtype: str = "float64"
    needs_column: bool = True

    def partial(self, segments: Segments, values: Floats | None, member: Bools | None) -> Partial:
        column = _column(values)
        return (segments.reduce(self.ufunc, np.where(_valid(column, member), column, self.empty), self.empty),)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (self.ufunc(left[0], right[0]),)

    def finalize(self, partial: Partial) -> Floats:
        return np.where(partial[0] == self.empty, np.nan, partial[0])

    def sql(self, value: str, member: str, over: str) -> str:
        return f"{self.name}({value}) FILTER (WHERE {member}){over}"


@dataclass(frozen=True)
class Std:
    """Population standard deviation (divides by n); missing in an empty window, 0 for one value.

    The partial is (n, mean, sum of squared distances from the mean), merged by Chan, Golub and LeVeque, 1979.
    """

    name: str = "std"
    dtype: str = "float64"
    needs_column: bool = True

    def partial(self, segments: Segments, values: Floats | None, member: Bools | None) -> Partial:
        column = _column(values)
        valid = _valid(column, member)
        count = segments.count(valid)
        mean = segments.reduce(np.add, np.where(valid, column, 0.0), 0.0) / np.maximum(count, 1)
        return count, mean, segments.squares(column, valid, mean)

    def merge(self, left: Partial, right: Partial) -> Partial:
        n_left, mean_left, squares_left = left
        n_right, mean_right, squares_right = right
        count = n_left + n_right
        share = n_right / np.maximum(count, 1)
        distance = mean_right - mean_left
        return count, mean_left + distance * share, squares_left + squares_right + distance**2 * n_left * share

    def finalize(self, partial: Partial) -> Floats:
        count, _, squares = partial
        return np.where(count > 0, np.sqrt(squares / np.maximum(count, 1)), np.nan)

    def sql(self, value: str, member: str, over: str) -> str:
        return f"stddev_pop({value}) FILTER (WHERE {member}){over}"


COUNT = Count()
SUM = Sum()
MEAN = Mean()
MIN = Extreme("min", np.minimum, np.inf)
MAX = Extreme("max", np.maximum, -np.inf)
STD = Std()
