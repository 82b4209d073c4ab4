"""Several requests as one set of arrays, as feature readers and models take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.serving.columns import ColumnArrays
from tidewheel.serving.request import PredictRequest
from tidewheel.serving.snapshot import Snapshot

Columns = Mapping[str, NDArray[Any]]


@dataclass(slots=True, eq=False)
class Batch:
    """``units`` are the rollout unit's keys as text; ``vectors`` [n, k] are there where callers sent the features, in
    which case all requests are pinned to one version."""

    snapshot: Snapshot
    requests: Sequence[PredictRequest]
    columns: Columns
    t_us: NDArray[np.int64]
    units: list[str]
    vectors: NDArray[np.float64] | None = None

    @property
    def n_rows(self) -> int:
        return len(self.units)


def make_batch(snapshot: Snapshot, requests: Sequence[PredictRequest]) -> Batch:
    """All rows of ``requests`` in order. Either all have vectors or none."""
    columns, counts = snapshot.columns, [request.n_rows for request in requests]
    event_ids = np.empty(sum(counts), dtype=object)
    event_ids[:] = [event for request in requests for event in request.event_ids]
    sent = [request.columns for request in requests]
    arrays = ColumnArrays(columns.kinds, sent, counts, {columns.event_id: event_ids})
    t_us = np.array([at_us for request in requests for at_us in request.t_us], dtype=np.int64)
    units = [unit for request in requests for unit in _units(request, snapshot.document.unit_key)]
    given = [request.vectors for request in requests if request.vectors is not None]
    return Batch(snapshot, requests, arrays, t_us, units, np.concatenate(given) if given else None)


def _units(request: PredictRequest, unit_key: str) -> list[str]:
    units = request.columns.get(unit_key) or [None] * request.n_rows
    return ["" if unit is None else str(unit) for unit in units]
