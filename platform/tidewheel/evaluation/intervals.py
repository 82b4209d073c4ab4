"""Intervals around metrics: a seeded bootstrap over whole cards or whole days.

Rows of one card resemble each other, so single rows are never resampled: their intervals would be too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewheel.evaluation.metrics import Floats, Ints, Ranking, card_precision_by_day

METRICS = ("average_precision", "auc_roc", "card_precision_at_100")
REPLICATES = 200
LEVEL = 0.95
SEED = 20180401


@dataclass(frozen=True)
class Estimate:
    """A metric over ``n`` rows with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def measure(
    metric: str, scores: Floats, labels: Ints, units: NDArray[np.generic], days: Ints, *, replicates: int = REPLICATES
) -> Estimate | None:
    """One of METRICS with its interval; None where it is not defined (no rows, or one class only).

    ``units`` are the cards whose rows belong together, ``days`` whole days of event time; all arrays are [n].
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; known are {', '.join(METRICS)}")
    n_positive = int((labels > 0).sum())
    if n_positive == 0 or (metric == "auc_roc" and n_positive == len(labels)):
        return None
    if metric == "card_precision_at_100":
        by_day = card_precision_by_day(scores, labels, units, days)
        low, high = bootstrap(lambda w: float(np.average(by_day, weights=w)), np.arange(len(by_day)), replicates)
        return Estimate(float(by_day.mean()), low, high, len(labels))
    ranking = Ranking.of(scores, labels)
    of_weights: Callable[..., float] = ranking.auc_roc if metric == "auc_roc" else ranking.average_precision
    low, high = bootstrap(of_weights, unit_codes(units), replicates)
    return Estimate(of_weights(), low, high, len(labels))


def paired_difference(
    metric: str, first: Floats, second: Floats, labels: Ints, units: NDArray[np.generic]
) -> Estimate | None:
    """``first`` minus ``second`` on the same rows, both resampled alike; average_precision or auc_roc."""
    if not 0 < int((labels > 0).sum()) < len(labels):
        return None
    a, b = Ranking.of(first, labels), Ranking.of(second, labels)

    def difference(weights: Floats | None = None) -> float:
        if metric == "auc_roc":
            return a.auc_roc(weights) - b.auc_roc(weights)
        return a.average_precision(weights) - b.average_precision(weights)

    low, high = bootstrap(difference, unit_codes(units), REPLICATES)
    return Estimate(difference(), low, high, len(labels))


def bootstrap(
    of_weights: Callable[[Floats], float], clusters: Ints, replicates: int = REPLICATES, seed: int = SEED
) -> tuple[float, float]:
    """Percentile interval; ``clusters`` int [n] says which rows belong together, 0 to the number of clusters - 1.

    Each replicate draws as many clusters as there are, with replacement; a row's weight is how often its cluster
    was drawn. Replicates in which the metric is not defined are left out. The same seed gives the same interval.
    """
    n_clusters = int(clusters.max()) + 1 if len(clusters) else 0
    if n_clusters == 0:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(replicates):
        drawn = np.bincount(rng.integers(0, n_clusters, n_clusters), minlength=n_clusters)
        value = of_weights(drawn[clusters].astype(np.float64))
        if np.isfinite(value):
            values.append(value)
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def unit_codes(units: NDArray[np.generic]) -> Ints:
    """Units of any type as 0 to m - 1."""
    codes: Ints = np.unique(units, return_inverse=True)[1]
    return codes
