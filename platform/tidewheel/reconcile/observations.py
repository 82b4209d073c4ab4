"""What a candidate did in its step, counted from the prediction log: only new files are read, event time is the clock.

Memory is bounded: counts, a latency histogram and the pairs whose other half has not come yet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidewheel.deployment.rollout import Observations

LOG = logging.getLogger("tidewheel.controller")
MAX_UNPAIRED = 200_000
_COLUMNS = (
    "request_id", "digest", "role", "generation", "event_time_us", "decision", "degraded", "reasons",
    "latency_us",
)  # fmt: skip
_MODEL_FAILED = "ModelFailed"
# Ten buckets per doubling: the p99 is right within 7%.
_BUCKETS_PER_DOUBLING = 10
_N_BUCKETS = 40 * _BUCKETS_PER_DOUBLING


class RolloutTally:
    """Follows one project's prediction log for one step of one candidate at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._newest_generation: dict[str, int] = {}  # of files looked at, so that a new step skips old ones
        self._begin("", "", 0)

    def look(self, candidate: str, champion: str, since_generation: int) -> tuple[Observations, int | None]:
        """Observations of the candidate's bundle digest since a generation, and the newest event time of the step."""
        if (candidate, champion, since_generation) != self._key:
            self._begin(candidate, champion, since_generation)
        for path in sorted(self._folder.glob("part-*.parquet")):
            if path.name in self._read:
                continue
            newest = self._newest_generation.get(path.name)
            if newest is not None and newest < since_generation:
                self._read.add(path.name)
                continue
            try:
                table = pq.read_table(path, columns=list(_COLUMNS))
            except (OSError, pa.ArrowException) as error:
                LOG.warning("event=part_unreadable path=%s error=%s", path, error)
                continue
            self._read.add(path.name)
            self._newest_generation[path.name] = int(pc.max(table["generation"]).as_py() or 0)
            self._count(table.filter(pc.greater_equal(table["generation"], since_generation)))
        return self._told(), self._last_us

    def _begin(self, candidate: str, champion: str, since_generation: int) -> None:
        self._key = (candidate, champion, since_generation)
        self._read: set[str] = set()
        self._unpaired: dict[str, tuple[bool, str]] = {}
        self._latency = np.zeros(_N_BUCKETS, dtype=np.int64)
        self._n = self._errors = self._degraded = self._pairs = self._flips = 0
        self._first_us: int | None = None
        self._last_candidate_us: int | None = None
        self._last_us: int | None = None

    def _count(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        candidate, champion, _ = self._key
        times = table["event_time_us"]
        self._last_us = max(self._last_us or 0, int(pc.max(times).as_py()))
        own = table.filter(pc.equal(table["digest"], candidate))
        if own.num_rows:
            self._count_own(own)
        shadows = own.filter(pc.equal(own["role"], "shadow"))
        served = table.filter(pc.and_(pc.equal(table["digest"], champion), pc.equal(table["role"], "champion")))
        self._pair(shadows, is_candidate=True)
        self._pair(served, is_candidate=False)

    def _count_own(self, own: pa.Table) -> None:
        self._n += own.num_rows
        first, last = int(pc.min(own["event_time_us"]).as_py()), int(pc.max(own["event_time_us"]).as_py())
        self._first_us = first if self._first_us is None else min(self._first_us, first)
        self._last_candidate_us = max(self._last_candidate_us or 0, last)
        degraded = own.filter(own["degraded"])
        self._degraded += degraded.num_rows
        self._errors += sum(_MODEL_FAILED in reasons for reasons in degraded["reasons"].to_pylist())
        latency = np.maximum(own["latency_us"].to_numpy(), 1)
        buckets = np.minimum((np.log2(latency) * _BUCKETS_PER_DOUBLING).astype(np.int64), _N_BUCKETS - 1)
        self._latency += np.bincount(buckets, minlength=_N_BUCKETS)

    def _pair(self, rows: pa.Table, *, is_candidate: bool) -> None:
        """Match the two sides of a request, whichever part of the log comes first."""
        for request, decision in zip(_texts(rows, "request_id"), _texts(rows, "decision"), strict=True):
            other = self._unpaired.get(request)
            if other is None:
                self._unpaired[request] = (is_candidate, decision)
                if len(self._unpaired) > MAX_UNPAIRED:
                    del self._unpaired[next(iter(self._unpaired))]
            elif other[0] != is_candidate:
                del self._unpaired[request]
                self._pairs += 1
                self._flips += other[1] != decision

    def _told(self) -> Observations:
        return Observations(
            n_requests=self._n,
            n_errors=self._errors,
            n_degraded=self._degraded,
            n_pairs=self._pairs,
            n_flips=self._flips,
            p99_latency_us=self._p99_us(),
            first_event_us=self._first_us,
            last_event_us=self._last_candidate_us,
        )

    def _p99_us(self) -> float | None:
        if not self._n:
            return None
        bucket = int(np.searchsorted(np.cumsum(self._latency), 0.99 * self._n))
        return float(2.0 ** ((bucket + 0.5) / _BUCKETS_PER_DOUBLING))


def _texts(rows: pa.Table, column: str) -> Iterable[str]:
    values: list[str] = rows[column].to_pylist()
    return values
