"""Whether the ONNX twin and the original model say the same on the rows of the holdout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewheel.findings import Finding

MAX_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Parity:
    """The largest absolute difference of two scores for one row, over ``n_rows`` rows."""

    max_difference: float
    n_rows: int


def parity(original: NDArray[np.float64], twin: NDArray[np.float64]) -> Parity:
    """Both float64 [n], same rows. A score that is not a number counts as an infinite difference."""
    difference = np.abs(original - twin)
    largest = float(np.where(np.isfinite(difference), difference, np.inf).max(initial=0.0))
    return Parity(largest, len(original))


def parity_finding(measured: Parity, limit: float = MAX_DIFFERENCE) -> Finding | None:
    """A ParityMismatch over ``limit``; exactly at the limit is equal enough."""
    if measured.max_difference <= limit:
        return None
    return Finding(
        "ParityMismatch",
        f"the ONNX twin differs by up to {measured.max_difference:g} on {measured.n_rows} rows, limit {limit:g}",
        "critical",
        value=measured.max_difference,
        limit=limit,
    )
