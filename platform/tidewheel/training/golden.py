"""Picks the golden requests of a version: typical rows, extreme scores, and rows with missing values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tidewheel.bundle.golden import GoldenRequests
from tidewheel.features.vector import model_input
from tidewheel.training.trainer import score

if TYPE_CHECKING:
    import xgboost

N_SPREAD = 40
N_MISSING = 10
SEED = 7


def golden_of(booster: xgboost.Booster, x: NDArray[np.float64], scores: NDArray[np.float64]) -> GoldenRequests:
    """About 50 vectors of the holdout: spread evenly over the ranks of the scores, and ten with values taken away.

    Vectors are float32 values, so that reading them back gives the very same input. The last vector is all missing.
    """
    by_rank = np.argsort(scores, kind="stable")
    spread = by_rank[np.unique(np.linspace(0, len(by_rank) - 1, N_SPREAD).astype(np.int64))]
    rng = np.random.default_rng(SEED)
    missing = x[rng.choice(len(x), N_MISSING)].copy()
    missing[rng.random(missing.shape) < 0.4] = np.nan
    missing[-1] = np.nan
    vectors = model_input(np.vstack([x[spread], missing])).astype(np.float64)
    return GoldenRequests(vectors, score(booster, vectors))
