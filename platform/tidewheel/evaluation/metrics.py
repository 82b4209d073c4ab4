"""How well scores rank: average precision, ROC AUC and card precision, weighted so that a bootstrap costs little.

Called by training, backtest and the monitor. Labels are 0 or 1, scores rank the likely positives first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows sorted once by falling score. A row's weight is how often it counts; equal scores count as one step."""

    order: NDArray[np.intp]
    positive: Floats  # labels in that order
    last: NDArray[np.intp]  # position of the last row of each run of equal scores

    @classmethod
    def of(cls, scores: Floats, labels: Ints) -> Ranking:
        """Both [n], n >= 1."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
        return cls(order, labels[order].astype(np.float64), last)

    def average_precision(self, weights: Floats | None = None) -> float:
        """Sum of precision times the gain in recall, step by step (no interpolation). NaN without a positive."""
        true, all_ = self._steps(weights)
        if true[-1] == 0:
            return float("nan")
        precision = np.divide(true, all_, out=np.zeros_like(true), where=all_ > 0)
        return float(np.dot(np.diff(true, prepend=0.0), precision) / true[-1])

    def auc_roc(self, weights: Floats | None = None) -> float:
        """Probability that a positive outranks a negative, ties counting half. NaN where a class is missing."""
        true, all_ = self._steps(weights)
        false = all_ - true
        if true[-1] == 0 or false[-1] == 0:
            return float("nan")
        below = false[-1] - false
        ties = np.diff(false, prepend=0.0)
        return float(np.dot(np.diff(true, prepend=0.0), below + 0.5 * ties) / (true[-1] * false[-1]))

    def _steps(self, weights: Floats | None) -> tuple[Floats, Floats]:
        """Weight of positives and of all rows at or above each distinct score."""
        if weights is None:
            return np.cumsum(self.positive)[self.last], (self.last + 1).astype(np.float64)
        ranked = weights[self.order]
        return np.cumsum(ranked * self.positive)[self.last], np.cumsum(ranked)[self.last]


def average_precision(scores: Floats, labels: Ints) -> float:
    return Ranking.of(scores, labels).average_precision()


def auc_roc(scores: Floats, labels: Ints) -> float:
    return Ranking.of(scores, labels).auc_roc()


def card_precision_by_day(scores: Floats, labels: Ints, keys: NDArray[np.generic], days: Ints, k: int = 100) -> Floats:
    """Per day, oldest first: of the ``k`` cards with the highest score that day, the share that is compromised.

    A card counts once a day with its highest score, and is compromised when it has a positive row that day. Cards
    found compromised on an earlier day are not looked at again. The divisor is ``k`` even on a day with fewer cards.
    Source: Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection, "Precision top-k metrics".
    """
    names, codes = np.unique(keys, return_inverse=True)
    found = np.zeros(len(names), dtype=bool)
    precisions: list[float] = []
    for day in np.unique(days):
        rows = np.flatnonzero((days == day) & ~found[codes])
        best = np.full(len(names), -np.inf)
        np.maximum.at(best, codes[rows], scores[rows])
        compromised = np.zeros(len(names), dtype=bool)
        compromised[codes[rows][labels[rows] > 0]] = True
        seen = np.flatnonzero(best > -np.inf)
        top = seen[np.argsort(-best[seen], kind="stable")[:k]]
        hits = top[compromised[top]]
        found[hits] = True
        precisions.append(len(hits) / k)
    return np.array(precisions)


def card_precision_at_k(scores: Floats, labels: Ints, keys: NDArray[np.generic], days: Ints, k: int = 100) -> float:
    """Mean over days of ``card_precision_by_day``; NaN without a row."""
    by_day = card_precision_by_day(scores, labels, keys, days, k)
    return float(by_day.mean()) if len(by_day) else float("nan")
