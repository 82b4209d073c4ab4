"""Requests on their way: those that wait, and those that are answered together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tidewheel.serving.batch import Batch
from tidewheel.serving.predictor import Asked
from tidewheel.serving.request import PredictReply, PredictRequest
from tidewheel.serving.snapshot import Snapshot
from tidewheel.serving.stages import Stages

ROW_US = 50.0  # what a row is thought to cost before any was seen


class Pending:
    """A request on its way. Whoever answers it first says so."""

    __slots__ = ("answered", "deadline_us", "future", "request", "snapshot")

    def __init__(
        self, request: PredictRequest, snapshot: Snapshot, future: asyncio.Future[PredictReply], deadline_us: int
    ) -> None:
        self.request, self.snapshot, self.future, self.deadline_us = request, snapshot, future, deadline_us
        self.answered = False


@dataclass(slots=True, eq=False)
class Flight:
    """Requests that are read and scored together."""

    pendings: Sequence[Pending]
    batch: Batch
    asked: Sequence[Asked]
    stages: Stages
    reading: bool = True

    @property
    def waited_for(self) -> bool:
        return not all(pending.answered for pending in self.pendings)


@dataclass(eq=False)
class Lane:
    """Requests of one kind: quick ones are computed on the event loop, slow ones by a thread.

    ``row_us`` is the moving mean of what a row takes, by which a caller is told to come back later.
    """

    most_rows: int
    slow: bool
    waiting: deque[Pending] = field(default_factory=deque)
    waiting_rows: int = 0
    flights: list[Flight] = field(default_factory=list)
    flying_rows: int = 0
    flush_due: bool = False
    row_us: float = ROW_US
    overdue_since_us: int | None = None

    def add(self, pending: Pending) -> None:
        self.waiting.append(pending)
        self.waiting_rows += pending.request.n_rows

    def take(self, most_us: float) -> list[Pending]:
        """As many of those that wait as may be answered together; at least one."""
        most = self.most_rows if not self.slow else max(1, min(self.most_rows, int(most_us / max(self.row_us, 1.0))))
        taken: list[Pending] = []
        rows = 0
        while self.waiting and (not taken or rows + self.waiting[0].request.n_rows <= most):
            pending = self.waiting.popleft()
            self.waiting_rows -= pending.request.n_rows
            if not pending.answered:
                taken.append(pending)
                rows += pending.request.n_rows
        return taken

    def drop_answered(self) -> None:
        """Forget those that wait and were answered late."""
        self.waiting = deque(pending for pending in self.waiting if not pending.answered)
        self.waiting_rows = sum(pending.request.n_rows for pending in self.waiting)

    def expected_us(self, n_rows: int) -> float:
        """How long a request of that many rows would have to wait for its answer."""
        return (self.waiting_rows + self.flying_rows + n_rows) * self.row_us

    def took(self, rows: int, took_us: int) -> None:
        """By weight of rows: a lone request that met a busy machine says little about what a row costs."""
        weight = 0.2 if self.slow else 0.1 * min(rows / 64, 1.0)
        self.row_us += weight * (took_us / max(rows, 1) - self.row_us)


def groups_of(taken: Sequence[Pending]) -> list[tuple[Snapshot, list[Pending]]]:
    """What one batch may hold: a snapshot's requests that are read for, or vectors of one of its versions."""
    groups: dict[tuple[int, str | None], tuple[Snapshot, list[Pending]]] = {}
    for pending in taken:
        of = None if pending.request.vectors is None else pending.request.pinned
        groups.setdefault((id(pending.snapshot), of), (pending.snapshot, []))[1].append(pending)
    return list(groups.values())
