"""Requests to replies and log records: assign, read features, score, decide; the ladder where one of them fails.

Called with whole batches by the coalescer's thread, and by the event loop for requests whose deadline came first.
It knows neither HTTP nor threads; time is passed in through the Clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.clock import Clock
from tidewheel.deployment.assignment import assign_all
from tidewheel.errors import TidewheelError, Unavailable
from tidewheel.features.vector import model_input
from tidewheel.serving.prediction_record import PredictionRecord, record_id
from tidewheel.serving.request import PredictReply, PredictRequest
from tidewheel.serving.snapshot import LoadedVersion, Snapshot

Columns = dict[str, NDArray[Any]]
MODEL_FAILED = "ModelFailed"
VECTOR_ROLE = "vector"
TEST_ROLE = "test"


@dataclass(slots=True, eq=False)
class RowResult:
    """What one row got. ``values`` is its vector where there is one, ``positions`` how far the states were that it was
    read from; ``by`` is the version that was asked."""

    by: LoadedVersion
    score: float | None
    decision: str
    version: str
    role: str
    reasons: tuple[str, ...]
    values: NDArray[np.float64] | None
    positions: NDArray[np.int64] | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Several requests as arrays. ``units`` are the rollout unit's keys as text; ``vectors`` [n, k] are there where
    callers sent the features, in which case all requests are pinned to one version."""

    snapshot: Snapshot
    requests: Sequence[PredictRequest]
    columns: Columns
    t_us: NDArray[np.int64]
    units: list[str]
    vectors: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Answered:
    """Results of a batch in row order. ``failures`` maps a request's index to why it has no reply."""

    batch: Batch
    rows: list[RowResult | None]
    failures: dict[int, TidewheelError]


def make_batch(snapshot: Snapshot, requests: Sequence[PredictRequest]) -> Batch:
    """All rows of ``requests`` in one set of arrays, as feature readers take them. Either all have vectors or none."""
    columns, counts = snapshot.columns, [request.n_rows for request in requests]
    arrays = columns.arrays([request.columns for request in requests], counts)
    event_ids = np.empty(sum(counts), dtype=object)
    event_ids[:] = [event for request in requests for event in request.event_ids]
    arrays[columns.event_id] = event_ids
    t_us = np.array([at_us for request in requests for at_us in request.t_us], dtype=np.int64)
    unit_key = snapshot.document.unit_key
    given = [request.vectors for request in requests if request.vectors is not None]
    if given:
        units = [unit for request in requests for unit in _units_if_any(request, unit_key)]
        return Batch(snapshot, requests, arrays, t_us, units, np.concatenate(given))
    units = [str(unit) for unit in arrays[unit_key].tolist()] if unit_key in arrays else [""] * len(t_us)
    return Batch(snapshot, requests, arrays, t_us, units)


def _units_if_any(request: PredictRequest, unit_key: str) -> list[str]:
    units = request.columns.get(unit_key) or [None] * request.n_rows
    return ["" if unit is None else str(unit) for unit in units]


def answer(batch: Batch, late: str | None = None) -> Answered:
    """Score every row. ``late`` is a reason to go straight to the ladder: fresh features are not waited for."""
    if batch.vectors is not None:
        return _answer_vectors(batch, batch.vectors)
    rows: list[RowResult | None] = [None] * len(batch.t_us)
    failed_rows: dict[int, TidewheelError] = {}
    for version, picked in _groups(batch):
        every = len(picked) == len(rows)
        columns = batch.columns if every else {name: values[picked] for name, values in batch.columns.items()}
        t_us = batch.t_us if every else batch.t_us[picked]
        try:
            results = _score_group(batch.snapshot, version, columns, t_us, late)
        except TidewheelError as error:
            failed_rows |= dict.fromkeys(picked, error)
            continue
        for row, result in zip(picked, results, strict=True):
            rows[row] = result
    return Answered(batch, rows, _failed_requests(batch, failed_rows))


def _answer_vectors(batch: Batch, sent: NDArray[np.float64]) -> Answered:
    """Score the vectors that callers sent; what they left out is the feature's default, as if it had been read."""
    version = batch.snapshot.versions[batch.requests[0].pinned or ""]
    defaults = np.array([np.nan if default is None else default for default in version.features.defaults])
    values = np.where(np.isnan(sent), defaults, sent)
    scores = safe_scores(version, values)
    if scores is None and version.ladder.fallback is None:
        failure = Unavailable("the model cannot score and the project declares no serving.fallback")
        return Answered(batch, [None] * len(values), dict.fromkeys(range(len(batch.requests)), failure))
    if scores is None:
        unscored = [_unscored(version, values, row, (MODEL_FAILED,), VECTOR_ROLE) for row in range(len(values))]
        return Answered(batch, list(unscored), {})
    decisions, name = version.bands.decide(scores), version.version
    rows: list[RowResult | None] = [
        RowResult(version, score, decision, name, VECTOR_ROLE, (), vector)
        for score, decision, vector in zip(scores.tolist(), decisions, values, strict=True)
    ]
    return Answered(batch, rows, {})


def _failed_requests(batch: Batch, failed_rows: dict[int, TidewheelError]) -> dict[int, TidewheelError]:
    if not failed_rows:
        return {}
    failures, row = {}, 0
    for index, request in enumerate(batch.requests):
        errors = [failed_rows[at] for at in range(row, row + request.n_rows) if at in failed_rows]
        if errors:
            failures[index] = errors[0]
        row += request.n_rows
    return failures


def _groups(batch: Batch) -> list[tuple[LoadedVersion, list[int]]]:
    """Versions and the rows that each answers."""
    snapshot = batch.snapshot
    weights = snapshot.document.weights
    n = len(batch.t_us)
    pinned = any(request.pinned for request in batch.requests)
    if len(weights) == 1 and not pinned:
        return [(snapshot.champion, list(range(n)))]
    assigned = assign_all(batch.units, snapshot.document.salt, weights)
    if pinned:
        row = 0
        for request in batch.requests:
            if request.pinned:
                assigned[row : row + request.n_rows] = [request.pinned] * request.n_rows
            row += request.n_rows
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(assigned):
        groups.setdefault(name, []).append(row)
    return [(snapshot.versions[name], rows) for name, rows in groups.items()]


def _score_group(
    snapshot: Snapshot, version: LoadedVersion, columns: Columns, t_us: NDArray[np.int64], late: str | None
) -> list[RowResult]:
    n, role = len(t_us), snapshot.role(version.version)
    causes: list[tuple[str, ...]] = [version.freshness.stale] * n
    try:
        if late is not None:
            raise Unavailable(late)
        if version.remembering is not None:
            version.remembering.at_us = int(t_us.max())
        read = version.reader.read(columns, t_us)
        values, positions = read.values, read.positions
    except Exception as error:  # whatever a store or a feature function raises, a request has a ladder
        if version.ladder.fallback is None:
            raise Unavailable("features cannot be read in time and the project declares no serving.fallback") from error
        cause = late or ("FeaturesUnavailable" if isinstance(error, Unavailable) else "FeaturesFailed")
        try:
            rung = version.ladder.vectors(columns, t_us)
        except Exception:  # the project's own function may be what fails
            return [_unscored(version, None, row, (cause,)) for row in range(n)]
        values, causes, role = rung.values, [(cause, reason) for reason in rung.reasons], "fallback"
        positions = np.zeros((n, 0), dtype=np.int64)
    scores = safe_scores(version, values)
    if scores is None:
        if version.ladder.fallback is None:
            raise Unavailable("the model cannot score and the project declares no serving.fallback")
        return [_unscored(version, values, row, (*causes[row], MODEL_FAILED)) for row in range(n)]
    decisions = version.bands.decide(scores)
    name = version.version
    return [
        RowResult(version, score, decision, name, role, reasons, vector, known)
        for score, decision, reasons, vector, known in zip(
            scores.tolist(), decisions, causes, values, positions, strict=True
        )
    ]


def safe_scores(version: LoadedVersion, values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Finite scores of all rows, None where the model fails on any."""
    try:
        scores = version.scorer.score(model_input(values))
    except Exception:  # the runtime raises classes of its own; the ladder goes on
        return None
    return scores if bool(np.isfinite(scores).all()) else None


def _unscored(
    version: LoadedVersion,
    values: NDArray[np.float64] | None,
    row: int,
    causes: tuple[str, ...],
    role: str = "fallback",
) -> RowResult:
    score, decision, reason = version.ladder.without_model(values, row)
    if decision is None:
        decision = version.bands.decide(np.array([score]))[0]
    vector = values[row] if values is not None else None
    return RowResult(version, score, decision, "", role, (*causes, reason), vector)


def replies(answered: Answered) -> list[PredictReply | TidewheelError]:
    """One reply, or the error to answer with, per request."""
    made: list[PredictReply | TidewheelError] = []
    row = 0
    for index, request in enumerate(answered.batch.requests):
        failure = answered.failures.get(index)
        if failure is not None:
            made.append(failure)
        else:
            rows = [result for result in answered.rows[row : row + request.n_rows] if result is not None]
            made.append(
                PredictReply(
                    [result.score for result in rows],
                    [result.decision for result in rows],
                    [result.version for result in rows],
                    [result.reasons for result in rows],
                )
            )
        row += request.n_rows
    return made


def records(answered: Answered, include: Sequence[bool], clock: Clock) -> list[PredictionRecord]:
    """Log records of those requests that ``include`` marks and that have a reply."""
    batch = answered.batch
    snapshot, made, row = batch.snapshot, [], 0
    project, generation = snapshot.document.project, snapshot.document.generation
    now_us, now_mono_us = clock.now_us(), clock.monotonic_us()
    for index, request in enumerate(batch.requests):
        first, row = row, row + request.n_rows
        if not include[index] or index in answered.failures:
            continue
        latency_us = now_mono_us - request.arrived_us
        for at in range(request.n_rows):
            result = answered.rows[first + at]
            assert result is not None
            made.append(
                make_record(
                    batch, result, request, at, first + at, project, generation, latency_us=latency_us, now_us=now_us
                )
            )
    return made


def make_record(
    batch: Batch,
    result: RowResult,
    request: PredictRequest,
    at: int,
    row: int,
    project: str,
    generation: int,
    *,
    latency_us: int,
    now_us: int,
) -> PredictionRecord:
    """One record: row ``at`` of ``request``, row ``row`` of the batch."""
    row_id = request.row_id(at)
    by, role = result.by, TEST_ROLE if request.test else result.role
    return PredictionRecord(
        record_id(project, row_id, result.version, role),
        row_id,
        project,
        result.version,
        by.digest,
        role,
        generation,
        request.t_us[at],
        request.event_ids[at],
        batch.units[row],
        b"" if result.values is None else result.values.tobytes(),
        by.features.digest,
        result.score,
        result.decision,
        bool(result.reasons),
        result.reasons,
        latency_us,
        now_us,
        {name: values[at] for name, values in request.columns.items()},
        b"" if result.positions is None else result.positions.tobytes(),
    )
