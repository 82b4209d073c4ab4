"""Scores copies of requests by shadow versions after the caller has its reply.

One thread, one bounded queue: when shadows cannot keep up, copies are dropped and counted, callers never wait.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewheel.clock import Clock
from tidewheel.serving.answered import Answered, Group, frames, vectors_of
from tidewheel.serving.batch import Batch
from tidewheel.serving.degraded import FEATURES_UNAVAILABLE, MODEL_FAILED
from tidewheel.serving.prediction_log import PredictionLog
from tidewheel.serving.prediction_record import RecordFrame
from tidewheel.serving.predictor import safe_scores
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
            self.counters.dropped += answered.batch.n_rows

    def stop(self) -> None:
        """Score what waits, then end."""
        if self._thread.is_alive():
            self._queue.put(_END)
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while (answered := self._queue.get()) is not _END:
            frames = shadow_frames(answered, self._clock)
            if frames:
                self._log.write(frames)
                self.counters.scored += sum(frame.n_rows for frame in frames)


def shadow_frames(answered: Answered, clock: Clock) -> list[RecordFrame]:
    """What the log keeps of every loaded shadow version, for the rows that a model of the document answered."""
    snapshot = answered.batch.snapshot
    made: list[RecordFrame] = []
    for name in snapshot.document.shadow:
        if name in snapshot.versions:
            made += _frames_of(answered, snapshot.versions[name], clock)
    return made


def _frames_of(answered: Answered, version: LoadedVersion, clock: Clock) -> list[RecordFrame]:
    batch = answered.batch
    began_us = clock.monotonic_us()
    group = _scored(batch, version, _shared_vectors(answered, version))
    # Its own time per row: a batch is read and scored together, as it would be for callers.
    latency_us = clock.monotonic_us() - began_us
    include = [
        index not in answered.failures and request.pinned is None and not request.test
        for index, request in enumerate(batch.requests)
    ]
    if not any(include):
        return []
    made = frames(Answered(batch, [group], answered.failures), include, clock)
    for frame in made:
        frame.latencies_us = [latency_us] * frame.n_rows
    return made


def _shared_vectors(answered: Answered, version: LoadedVersion) -> NDArray[np.float64] | None:
    """The vectors that callers got, where the shadow declares the very same features and they were fresh."""
    n = answered.batch.n_rows
    for group in answered.groups:
        if group.values is None or any(group.reasons) or group.by.features.digest != version.features.digest:
            return None
    if len(answered.groups) == 1 and len(answered.groups[0].rows) == n:
        return answered.groups[0].values
    return vectors_of(answered.groups, 0, n)


def _scored(batch: Batch, version: LoadedVersion, values: NDArray[np.float64] | None) -> Group:
    """All rows of a batch; a row without a score says why in its reasons."""
    n, stale = batch.n_rows, version.freshness.stale
    rows = range(n)
    if values is None:
        try:
            values = version.shadow_reader.read(batch.columns, batch.t_us).values
        except Exception:  # a shadow has no ladder: that it could not answer is what its rollout must know
            reasons = [(FEATURES_UNAVAILABLE,)] * n
            return Group(version, rows, version.version, "shadow", [None] * n, [""] * n, reasons, None)
    scores = safe_scores(version, values)
    finite = np.isfinite(scores).tolist()
    decisions = version.bands.decide(np.nan_to_num(scores))
    return Group(
        version, rows, version.version, "shadow",
        [score if good else None for score, good in zip(scores.tolist(), finite, strict=True)],
        [decision if good else "" for decision, good in zip(decisions, finite, strict=True)],
        [stale if good else (MODEL_FAILED,) for good in finite],
        values,
    )  # fmt: skip
