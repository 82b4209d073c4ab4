"""What every candidate must beat: a logistic regression on three features. NumPy only, no randomness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewheel.evaluation.metrics import auc_roc
from tidewheel.training.frame import TrainingFrame

N_FEATURES = 3
RIDGE = 1.0
STEPS = 25
CLIP = 8.0  # standard deviations; beyond, one absurd amount would decide the slope


@dataclass(frozen=True, eq=False)
class Baseline:
    """``weights`` [m + 1], the last is the intercept, over standardised columns of ``names``."""

    names: tuple[str, ...]
    weights: NDArray[np.float64]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]

    def score(self, frame: TrainingFrame) -> NDArray[np.float64]:
        columns = [frame.names.index(name) for name in self.names]
        return _sigmoid(_design(frame.x[:, columns], self.centre, self.scale) @ self.weights)


def fit_baseline(frame: TrainingFrame) -> Baseline:
    """The three features that alone rank best (ties by their order), fitted by Newton's method with a small ridge."""
    alone = [abs(auc_roc(_filled(frame.x[:, index]), frame.y) - 0.5) for index in range(len(frame.names))]
    best = sorted(np.argsort(-np.array(alone), kind="stable")[:N_FEATURES])
    x = frame.x[:, best]
    centre, scale = _centre_and_scale(x)
    design = _design(x, centre, scale)
    weights = np.zeros(design.shape[1])
    penalty = np.diag([RIDGE] * (design.shape[1] - 1) + [1e-6])
    for _ in range(STEPS):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (frame.y - p) - penalty @ weights
        hessian = (design * (p * (1 - p))[:, None]).T @ design + penalty
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return Baseline(tuple(frame.names[index] for index in best), weights, centre, scale)


def _centre_and_scale(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and the spread of the middle 90 %: one absurd amount moves neither. A column without spread keeps 1."""
    known = np.where(np.isnan(x).all(axis=0), 0.0, x)
    low, middle, high = np.nanquantile(known, [0.05, 0.5, 0.95], axis=0)
    spread = np.where(high > low, (high - low) / 3.29, np.nanstd(known, axis=0))  # a normal's middle 90 % is 3.29 sd
    return middle, np.where(spread > 0, spread, 1.0)


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    missing = np.isnan(values)
    return np.where(missing, np.median(values[~missing]) if not missing.all() else 0.0, values)


def _design(x: NDArray[np.float64], centre: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    standard = np.clip(np.nan_to_num((x - centre) / scale, nan=0.0), -CLIP, CLIP)  # missing counts as the centre
    return np.column_stack([standard, np.ones(len(x))])


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    p: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(z, -30, 30)))
    return p
