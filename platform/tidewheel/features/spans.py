"""Runs of rows in one array, many at once: the reductions that every aggregation is made of. NumPy only.

Each result depends on its own run alone, bit for bit: the same alone or among many, offline or online.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Spans:
    """Runs [start, end) of one array; ``starts`` and ``ends`` share any shape, which results have too.

    The arrays given to its methods have one entry more than there are rows, so that an end is an index.
    """

    def __init__(self, starts: Ints, ends: Ints) -> None:
        self.starts, self.ends = starts, ends
        self.filled: Bools = ends > starts  # which runs have a row
        self._bounds = np.empty(2 * starts.size, dtype=np.int64)
        self._bounds[0::2] = starts.ravel()
        self._bounds[1::2] = ends.ravel()

    @property
    def lengths(self) -> Ints:
        return np.asarray(np.maximum(self.ends - self.starts, 0))

    @cached_property
    def index(self) -> Ints:
        """Rows of all runs on end."""
        lengths = self.lengths.ravel()
        return np.arange(lengths.sum()) + np.repeat(self.starts.ravel() - np.cumsum(lengths) + lengths, lengths)

    @cached_property
    def flat(self) -> Spans:
        """The same runs over rows that were taken by ``index``."""
        ends = np.cumsum(self.lengths.ravel()).reshape(self.lengths.shape)
        return Spans(ends - self.lengths, ends)

    def count(self, member: Bools | None) -> Ints:
        """How many rows of each run are members."""
        if member is None:
            return self.lengths
        if self.starts.size <= 64:
            return self.reduce(np.add, member.view(np.int8), 0, np.int64)
        total = np.zeros(len(member) + 1, dtype=np.int64)
        np.add.accumulate(member, dtype=np.int64, out=total[1:])
        return np.where(self.filled, total[self.ends] - total[self.starts], 0)

    def reduce(self, ufunc: np.ufunc, values: NDArray[Any], empty: Any, dtype: Any = None) -> NDArray[Any]:
        """The ufunc over each run, ``empty`` where it has no row."""
        reduced = ufunc.reduceat(values, self._bounds, dtype=dtype)[0::2].reshape(self.starts.shape)
        return np.where(self.filled, reduced, empty)

    def last(self, member: Bools) -> Ints:
        """Index of each run's last member, -1 where it has none."""
        newest = np.maximum.accumulate(np.where(member, np.arange(len(member)), -1))
        found = newest[np.maximum(self.ends - 1, 0)]
        return np.where(self.filled & (found >= self.starts), found, -1)

    def first(self, member: Bools) -> Ints:
        """Index of each run's first member, -1 where it has none."""
        none = len(member)
        following = np.minimum.accumulate(np.where(member, np.arange(none), none)[::-1])[::-1]
        found = following[np.minimum(self.starts, none - 1)]
        return np.where(self.filled & (found < self.ends), found, -1)


class Singles(Spans):
    """Runs of one row each, [n, 1]: a reduction of one value is that value, bit for bit."""

    def __init__(self, n: int) -> None:
        rows = np.arange(n + 1)
        self.starts, self.ends = rows[:-1, None], rows[1:, None]

    def count(self, member: Bools | None) -> Ints:
        if member is None:
            return np.ones(self.starts.shape, dtype=np.int64)
        return member[:-1, None].astype(np.int64)

    def reduce(self, ufunc: np.ufunc, values: NDArray[Any], empty: Any, dtype: Any = None) -> NDArray[Any]:
        return values[:-1, None] if dtype is None else values[:-1, None].astype(dtype)

    def last(self, member: Bools) -> Ints:
        return np.where(member[:-1, None], self.starts, -1)

    first = last
