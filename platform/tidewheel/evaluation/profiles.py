"""Binned summaries of a column: decile edges frozen at training, counts that add up over hours and servers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
