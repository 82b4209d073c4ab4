"""The one hand-over from features to a model: float64 values to the float32 array every scorer is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def model_input(values: NDArray[Any]) -> NDArray[np.float32]:
    """float64 [n, k] to C-ordered float32 [n, k]; NaN stays missing, values beyond float32 become missing too.

    Training, parity checks and serving all call this, so that they round alike.
    """
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(values, dtype=np.float32)
    if np.isinf(rounded).any():
        rounded = np.where(np.isinf(rounded), np.float32(np.nan), rounded)
    return rounded
