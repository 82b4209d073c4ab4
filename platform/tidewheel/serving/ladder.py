"""The fallback ladder: what answers when fresh features cannot be had in time or the model cannot score.

    last good values -> feature defaults          (a vector, for the model)
    heuristic request feature -> static decision  (a score or a decision, without it)

Each rung is pure of I/O and takes microseconds; every answer says which rung gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.declaration import FeatureSet
from tidewheel.features.reader import FeatureReader
from tidewheel.serving.degraded import FEATURE_DEFAULTS, HEURISTIC, LAST_GOOD, STATIC_DECISION
from tidewheel.serving.last_good import LastGood
from tidewheel.spec.serving import Fallback

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Rung:
    """Vectors for all rows and, row by row, the reason that names where they came from."""

    values: NDArray[np.float64]
    reasons: list[str]


class Ladder:
    """The rungs of one version; ``fallback`` None means that a failure is a failure. Thread-safe."""

    def __init__(
        self, reader: FeatureReader, features: FeatureSet, fallback: Fallback | None, memory: LastGood
    ) -> None:
        self.fallback = fallback
        self._keep_us = fallback.last_good_us if fallback else None
        self._reader, self._memory = reader, memory
        heuristic = fallback.heuristic if fallback else None
        self._heuristic = features.names.index(heuristic) if heuristic in features.names else None

    def vectors(self, columns: Columns, t_us: NDArray[np.int64]) -> Rung:
        """Last good values where they are young enough, else the features' defaults; each row is told about itself."""
        n = len(t_us)
        prepared = self._reader.prepare(columns, t_us)
        if not self._keep_us:
            nothing: list[list[bytes | None]] = [[None] * len(keys) for _, keys in prepared.wanted]
            return Rung(self._reader.finish(prepared, nothing).values, [FEATURE_DEFAULTS] * n)
        blobs, known = self._memory.recall(prepared.wanted, int(t_us.min()) - self._keep_us)
        values = self._reader.finish(prepared, blobs).values
        whole = np.ones(n, dtype=bool)
        for (state, _), mine in zip(prepared.wanted, known, strict=True):
            whole &= np.array(mine, dtype=bool)[prepared.entity_of[state.keys]]
        return Rung(values, [LAST_GOOD if one else FEATURE_DEFAULTS for one in whole.tolist()])

    def without_model(self, values: NDArray[np.float64] | None, row: int) -> tuple[float | None, str | None, str]:
        """(score, decision, reason) of one row: the heuristic's score, else the static decision."""
        if values is not None and self._heuristic is not None:
            score = float(values[row, self._heuristic])
            if np.isfinite(score):
                return min(max(score, 0.0), 1.0), None, HEURISTIC
        assert self.fallback is not None
        return None, self.fallback.decision, STATIC_DECISION
