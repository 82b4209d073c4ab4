"""The fallback ladder: what answers when fresh features cannot be had in time or the model cannot score.

    last good values -> feature defaults          (a vector, for the model)
    heuristic request feature -> static decision  (a score or a decision, without it)

Each rung is pure of I/O and takes microseconds; every answer says which rung gave it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.declaration import FeatureSet
from tidewheel.features.reader import FeatureReader
from tidewheel.serving.last_good import LastGood, RecallingStore
from tidewheel.spec.serving import Fallback

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Rung:
    """Vectors for all rows and, row by row, the reason that names where they came from."""

    values: NDArray[np.float64]
    reasons: list[str]


class Ladder:
    """The rungs of one version; ``fallback`` None means that a failure is a failure. Thread-safe."""

    def __init__(self, features: FeatureSet, fallback: Fallback | None, memory: LastGood | None) -> None:
        self.fallback = fallback
        self._keep_us = fallback.last_good_us if fallback else None
        self._store = RecallingStore(memory if self._keep_us else None)
        self._reader = FeatureReader(features, self._store)
        self._lock = threading.Lock()
        heuristic = fallback.heuristic if fallback else None
        self._heuristic = features.names.index(heuristic) if heuristic in features.names else None

    def vectors(self, columns: Columns, t_us: NDArray[np.int64]) -> Rung:
        """Last good values where they are young enough, else the features' defaults."""
        with self._lock:
            values, missed = self._recall(columns, t_us)
            if not missed:
                return Rung(values, ["LastGood"] * len(t_us))
            if not self._keep_us or len(t_us) == 1:
                return Rung(values, ["FeatureDefaults"] * len(t_us))
            reasons = []  # each row is told about itself, not about its neighbours in the batch
            for row in range(len(t_us)):
                _, lacking = self._recall({k: v[row : row + 1] for k, v in columns.items()}, t_us[row : row + 1])
                reasons.append("FeatureDefaults" if lacking else "LastGood")
            return Rung(values, reasons)

    def _recall(self, columns: Columns, t_us: NDArray[np.int64]) -> tuple[NDArray[np.float64], int]:
        self._store.since_us = int(t_us.min()) - (self._keep_us or 0)
        self._store.missed = 0
        values = self._reader.read(columns, t_us).values
        return values, self._store.missed

    def without_model(self, values: NDArray[np.float64] | None, row: int) -> tuple[float | None, str | None, str]:
        """(score, decision, reason) of one row: the heuristic's score, else the static decision."""
        if values is not None and self._heuristic is not None:
            score = float(values[row, self._heuristic])
            if np.isfinite(score):
                return min(max(score, 0.0), 1.0), None, "Heuristic"
        assert self.fallback is not None
        return None, self.fallback.decision, "StaticDecision"
