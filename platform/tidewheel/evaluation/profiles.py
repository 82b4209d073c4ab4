"""Binned summaries of a column: decile edges frozen at training, counts that add up over hours and servers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Profile:
    """Counts of one column over frozen ``edges`` ([k] ascending, counts [k + 1]); missing values are counted apart.

    ``low`` and ``high`` are the least and the largest known value, None where there is none.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    n_missing: int = 0
    low: float | None = None
    high: float | None = None

    @property
    def n_known(self) -> int:
        return sum(self.counts)

    @property
    def n_rows(self) -> int:
        return self.n_known + self.n_missing

    @property
    def missing_ratio(self) -> float:
        return self.n_missing / self.n_rows if self.n_rows else 0.0

    @property
    def top_ratio(self) -> float:
        """Share of the fullest bin among known values: no single value can have more."""
        return max(self.counts) / self.n_known if self.n_known else 0.0


def decile_edges(values: NDArray[np.float64], bins: int = 10) -> NDArray[np.float64]:
    """Inner edges, at most ``bins`` - 1, distinct: ties (counts, flags) share a bin. Missing values do not count."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.empty(0)
    return np.unique(np.quantile(known, np.linspace(0.0, 1.0, bins + 1)[1:-1]))


def bin_counts(edges: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Values per bin, [len(edges) + 1]; a value equal to an edge is in the bin below it. NaN is counted nowhere."""
    known = values[~np.isnan(values)]
    return np.bincount(np.searchsorted(edges, known), minlength=len(edges) + 1).astype(np.int64)


def profile_of(edges: Iterable[float], values: NDArray[np.float64]) -> Profile:
    """Profile of float64 values [n]; infinities count as known and fall into an outer bin."""
    cut = np.asarray(tuple(edges), dtype=np.float64)
    known = values[~np.isnan(values)]
    return Profile(
        tuple(cut.tolist()),
        tuple(bin_counts(cut, known).tolist()),
        len(values) - len(known),
        float(known.min()) if len(known) else None,
        float(known.max()) if len(known) else None,
    )


def merged(profiles: Iterable[Profile]) -> Profile | None:
    """The profile of all rows together, None of no profile. Raises ValueError where edges differ."""
    total: Profile | None = None
    for one in profiles:
        if total is None:
            total = one
            continue
        if total.edges != one.edges:
            raise ValueError("profiles over different edges cannot be added")
        total = Profile(
            total.edges,
            tuple(a + b for a, b in zip(total.counts, one.counts, strict=True)),
            total.n_missing + one.n_missing,
            min((v for v in (total.low, one.low) if v is not None), default=None),
            max((v for v in (total.high, one.high) if v is not None), default=None),
        )
    return total
