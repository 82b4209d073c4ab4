"""What the rows of a batch got, and what callers and the prediction log are told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.clock import Clock
from tidewheel.errors import TidewheelError
from tidewheel.serving.batch import Batch
from tidewheel.serving.prediction_record import RecordFrame
from tidewheel.serving.request import PredictReply
from tidewheel.serving.snapshot import LoadedVersion

VECTOR_ROLE = "vector"


@dataclass(slots=True, eq=False)
class Group:
    """Rows that were answered alike. ``by`` is the version that was asked, ``version`` who scored: empty where no model
    did. All lists run parallel to ``rows``, which are indexes into the batch.

    ``values`` [n, k] are the vectors, ``positions`` [n, states] how far the states were that they were read from, and
    ``missing`` [n, k] where a value was missing before defaults; None where there is nothing of the kind.
    """

    by: LoadedVersion
    rows: Sequence[int]
    version: str
    role: str
    scores: list[float | None]
    decisions: list[str]
    reasons: Sequence[tuple[str, ...]]
    values: NDArray[np.float64] | None
    positions: NDArray[np.int64] | None = None
    missing: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Answered:
    """Every row is in one of ``groups``, or its request is in ``failures``, which says why it has no reply."""

    batch: Batch
    groups: list[Group]
    failures: dict[int, TidewheelError] = field(default_factory=dict)


def failed_requests(batch: Batch, failed_rows: dict[int, TidewheelError]) -> dict[int, TidewheelError]:
    """Failures by request of failures by row: one row fails its request."""
    if not failed_rows:
        return {}
    failures, row = {}, 0
    for index, request in enumerate(batch.requests):
        errors = [failed_rows[at] for at in range(row, row + request.n_rows) if at in failed_rows]
        if errors:
            failures[index] = errors[0]
        row += request.n_rows
    return failures


def replies(answered: Answered) -> list[PredictReply | TidewheelError]:
    """One reply, or the error to answer with, per request."""
    batch = answered.batch
    n = batch.n_rows
    groups = answered.groups
    scores: list[float | None] = [None] * n
    decisions, versions, explained = [""] * n, [""] * n, [""] * n
    reasons: list[tuple[str, ...]] = [()] * n
    ages_us = [0] * n
    for group in groups:
        age_us = 0 if group.role == VECTOR_ROLE else group.by.freshness.age_us
        for at, row in enumerate(group.rows):
            scores[row], decisions[row], reasons[row] = group.scores[at], group.decisions[at], group.reasons[at]
            versions[row], ages_us[row], explained[row] = group.version, age_us, group.by.version
    made: list[PredictReply | TidewheelError] = []
    row = 0
    for index, request in enumerate(batch.requests):
        first, row = row, row + request.n_rows
        failure = answered.failures.get(index)
        if failure is not None:
            made.append(failure)
            continue
        rows = slice(first, row)
        reply = PredictReply(scores[rows], decisions[rows], versions[rows], reasons[rows], ages_us[rows])
        if request.explain:
            reply.vectors, reply.explained_by = vectors_of(groups, first, row), explained[first]
        made.append(reply)
    return made


def vectors_of(groups: Sequence[Group], first: int, following: int) -> NDArray[np.float64] | None:
    """The vectors of some rows [n, k]; None where one has none, or where versions with different features answered."""
    found: dict[int, NDArray[np.float64]] = {}
    for group in groups:
        if group.values is not None:
            found |= {row: group.values[at] for at, row in enumerate(group.rows) if first <= row < following}
    if len(found) < following - first or len({len(vector) for vector in found.values()}) != 1:
        return None
    return np.array([found[row] for row in range(first, following)])


def frames(answered: Answered, include: Sequence[bool], clock: Clock) -> list[RecordFrame]:
    """What the log keeps of those requests that ``include`` marks and that have a reply: a frame per group."""
    batch = answered.batch
    document = batch.snapshot.document
    now_us, now_mono_us = clock.now_us(), clock.monotonic_us()
    of_row = _RowFacts(batch, now_mono_us)
    if all(include) and not answered.failures and len(answered.groups) == 1:
        (group,) = answered.groups
        return [of_row.frame(group, None, document.project, document.generation, now_us)]
    kept = {index for index, marked in enumerate(include) if marked and index not in answered.failures}
    made = []
    for group in answered.groups:
        picked = [at for at, row in enumerate(group.rows) if of_row.request_of[row] in kept]
        if picked:
            made.append(of_row.frame(group, picked, document.project, document.generation, now_us))
    return made


class _RowFacts:
    """What the log has of each row of a batch besides its answer, in row order."""

    def __init__(self, batch: Batch, now_mono_us: int) -> None:
        requests = batch.requests
        self.units = batch.units
        self.t_us = batch.t_us.tolist()
        self.names = list(dict.fromkeys(name for request in requests for name in request.columns))
        self.tests = any(request.test for request in requests)
        if len(requests) == len(batch.units):
            self.request_of: Sequence[int] = range(len(requests))
            self.ids = [request.request_id for request in requests]
        else:
            self.request_of = [index for index, request in enumerate(requests) for _ in range(request.n_rows)]
            self.ids = [request.row_id(at) for request in requests for at in range(request.n_rows)]
        self.event_ids = [event for request in requests for event in request.event_ids]
        self.latency_us = [now_mono_us - request.arrived_us for request in requests for _ in range(request.n_rows)]
        self.columns: dict[str, list[Any]] = {}
        for name in self.names:
            values: list[Any] = []
            for request in requests:
                values += request.columns.get(name) or [None] * request.n_rows
            self.columns[name] = values
        self.is_test = [request.test for request in requests for _ in range(request.n_rows)]

    def frame(
        self, group: Group, picked: Sequence[int] | None, project: str, generation: int, now_us: int
    ) -> RecordFrame:
        """``picked`` are places in the group, None for all of a group that is the whole batch in order."""
        whole = picked is None and len(group.rows) == len(self.units)
        places = range(len(group.rows)) if picked is None else picked
        rows = [group.rows[at] for at in places]
        by, values, positions = group.by, group.values, group.positions

        def of_rows(listed: list[Any]) -> list[Any]:
            return listed if whole else [listed[row] for row in rows]

        def of_group(listed: Sequence[Any]) -> Sequence[Any]:
            return listed if picked is None else [listed[at] for at in picked]

        if picked is not None:
            values = None if values is None else values[list(picked)]
            positions = None if positions is None else positions[list(picked)]
        return RecordFrame(
            project=project,
            version=group.version,
            digest=by.digest,
            feature_digest=by.features.digest,
            role=group.role,
            generation=generation,
            logged_at_us=now_us,
            request_ids=of_rows(self.ids),
            tests=of_rows(self.is_test) if self.tests else (),
            event_times_us=of_rows(self.t_us),
            event_ids=of_rows(self.event_ids),
            units=of_rows(self.units),
            features=b"" if values is None else values.tobytes(),
            positions=b"" if positions is None else positions.tobytes(),
            scores=of_group(group.scores),
            decisions=of_group(group.decisions),
            reasons=of_group(group.reasons) if any(group.reasons) else (),
            latencies_us=of_rows(self.latency_us),
            columns={name: of_rows(listed) for name, listed in self.columns.items()},
        )
