"""Scores copies of requests by shadow versions after the caller has its reply.

One thread, one bounded queue: when shadows cannot keep up, copies are dropped and counted, callers never wait.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewheel.clock import Clock
from tidewheel.serving.prediction_log import PredictionLog
from tidewheel.serving.prediction_record import PredictionRecord
from tidewheel.serving.predictor import MODEL_FAILED, Answered, Batch, RowResult, make_record, safe_scores
from tidewheel.serving.snapshot import LoadedVersion

MAX_WAITING_BATCHES = 256
_END = None


@dataclass
class ShadowCounters:
    scored: int = 0
    dropped: int = 0


class ShadowScorer:
    """Takes answered batches; writes one record per row and shadow version with role ``shadow``."""

    def __init__(self, log: PredictionLog, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self.counters = ShadowCounters()
        self._queue: queue.Queue[Answered | None] = queue.Queue(MAX_WAITING_BATCHES)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, answered: Answered) -> None:
        """Queue a batch if its document has shadows and it was read for; never blocks."""
        if not answered.batch.snapshot.document.shadow or answered.batch.vectors is not None:
            return
        try:
            self._queue.put_nowait(answered)
        except queue.Full:
            self.counters.dropped += len(answered.rows)

    def stop(self) -> None:
        """Score what waits, then end."""
        if self._thread.is_alive():
            self._queue.put(_END)
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while (answered := self._queue.get()) is not _END:
            records = shadow_records(answered, self._clock)
            if records:
                self._log.write(records)
                self.counters.scored += len(records)


def shadow_records(answered: Answered, clock: Clock) -> list[PredictionRecord]:
    """Records of every loaded shadow version for the rows that a model of the document answered."""
    snapshot = answered.batch.snapshot
    made: list[PredictionRecord] = []
    for name in snapshot.document.shadow:
        if name in snapshot.versions:
            made += _records_of(answered, snapshot.versions[name], clock)
    return made


def _records_of(answered: Answered, version: LoadedVersion, clock: Clock) -> list[PredictionRecord]:
    batch = answered.batch
    began_us = clock.monotonic_us()
    results = _results(batch, version, _shared_vectors(answered, version))
    # Its own time per row: a batch is read and scored together, as it would be for callers.
    latency_us = clock.monotonic_us() - began_us
    now_us = clock.now_us()
    document = batch.snapshot.document
    made, row = [], 0
    for index, request in enumerate(batch.requests):
        for at in range(request.n_rows):
            if index not in answered.failures and request.pinned is None and not request.test:
                made.append(
                    make_record(
                        batch, results[row], request, at, row, document.project, document.generation,
                        latency_us=latency_us, now_us=now_us,
                    )
                )  # fmt: skip
            row += 1
    return made


def _shared_vectors(answered: Answered, version: LoadedVersion) -> NDArray[np.float64] | None:
    """The vectors that callers got, where the shadow declares the very same features and they were fresh."""
    vectors = []
    for result in answered.rows:
        if (
            result is None
            or result.values is None
            or result.reasons
            or result.by.features.digest != version.features.digest
        ):
            return None
        vectors.append(result.values)
    return np.array(vectors)


def _results(batch: Batch, version: LoadedVersion, values: NDArray[np.float64] | None) -> Sequence[RowResult]:
    n, name = len(batch.t_us), version.version
    stale = version.freshness.stale
    if values is None:
        try:
            values = version.shadow_reader.read(batch.columns, batch.t_us).values
        except Exception:  # a shadow has no ladder: that it could not answer is what its rollout must know
            return [RowResult(version, None, "", name, "shadow", ("FeaturesUnavailable",), None)] * n
    scores = safe_scores(version, values)
    if scores is None:
        return [RowResult(version, None, "", name, "shadow", (MODEL_FAILED,), vector) for vector in values]
    decisions = version.bands.decide(scores)
    return [
        RowResult(version, score, decision, name, "shadow", stale, vector)
        for score, decision, vector in zip(scores.tolist(), decisions, values, strict=True)
    ]
