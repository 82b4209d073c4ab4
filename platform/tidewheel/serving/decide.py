"""Scores to decisions: each decision has a lowest score, the highest one reached wins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class DecisionBands:
    """Decisions by lowest score.

    >>> DecisionBands({"approve": 0.0, "review": 0.5, "decline": 0.9}).decide(np.array([0.1, 0.5, 0.95]))
    ['approve', 'review', 'decline']
    """

    def __init__(self, lowest: Mapping[str, float]) -> None:
        ordered = sorted(lowest.items(), key=lambda band: band[1])
        self.names = [name for name, _ in ordered]
        # Of each number of edges that a score has reached, the decision.
        self._of_reached = [self.names[0], *self.names]
        self._edges = [edge for _, edge in ordered]

    def decide(self, scores: NDArray[np.float64]) -> list[str]:
        edges, of_reached = self._edges, self._of_reached
        return [of_reached[bisect_right(edges, score)] for score in scores.tolist()]
