"""Requests on their way: those that wait, and those that are answered together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tidewheel.serving.batch import Batch
from tidewheel.serving.predictor import Asked
from tidewheel.serving.request import PredictReply, PredictRequest
from tidewheel.serving.snapshot import Cost, Snapshot
from tidewheel.serving.stages import Stages

# What a batch, and each of its rows, is thought to cost besides the model: features, log, replies.
BATCH_US, ROW_US = 200.0, 30.0
MOST_SHARE, UTMOST = 4, 0.6  # of a deadline that one batch of slow work may take: 1 / MOST_SHARE, and where it must


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

    What work will take is foretold from what its model was seen to cost when it was loaded, for a call and for a row,
    times ``factor``: how much longer than that batches took lately. By it batches are cut and callers told to come back
    later.
    """

    most_rows: int
    slow: bool
    waiting: deque[Pending] = field(default_factory=deque)
    waiting_rows: int = 0
    flights: list[Flight] = field(default_factory=list)
    flying_rows: int = 0
    flush_due: bool = False
    factor: float = 1.0
    overdue_since_us: int | None = None

    def add(self, pending: Pending) -> None:
        self.waiting.append(pending)
        self.waiting_rows += pending.request.n_rows

    def take(self, cost: Cost, deadline_us: int) -> list[Pending]:
        """As many of those that wait as may be answered together; at least one."""
        most = self.batch_rows(cost, deadline_us)
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

    def foretold_us(self, cost: Cost, n_rows: int) -> float:
        """What a batch is thought to take."""
        return self.factor * (BATCH_US + cost.call_us + n_rows * (ROW_US + cost.row_us))

    def batch_rows(self, cost: Cost, deadline_us: int) -> int:
        """Rows of a full batch: of slow work no more than a share of the deadline has room for."""
        if not self.slow:
            return self.most_rows
        call_us = BATCH_US + cost.call_us
        share_us, most_us = deadline_us / MOST_SHARE / self.factor, deadline_us * UTMOST / self.factor
        # Where the call alone takes its share, a batch of as much work again carries twice as much.
        room_us = max(share_us, min(2 * call_us, most_us)) - call_us
        return max(1, min(self.most_rows, int(room_us / (ROW_US + cost.row_us))))

    def expected_us(self, n_rows: int, cost: Cost, deadline_us: int) -> float:
        """How long a request of that many rows would have to wait for its answer."""
        full, rest = divmod(self.waiting_rows + n_rows, self.batch_rows(cost, deadline_us))
        ahead_us = self.foretold_us(cost, self.flying_rows) if self.flying_rows else 0.0
        batches_us = full * self.foretold_us(cost, self.batch_rows(cost, deadline_us))
        return ahead_us + batches_us + (self.foretold_us(cost, rest) if rest else 0.0)

    def took(self, rows: int, took_us: int, cost: Cost) -> None:
        """By weight of rows: a lone request that met a busy machine says little about what work costs."""
        weight = 0.2 if self.slow else 0.1 * min(rows / 64, 1.0)
        ratio = took_us / (self.foretold_us(cost, rows) / self.factor)
        self.factor = max(self.factor + weight * (ratio - self.factor), 0.1)


def groups_of(taken: Sequence[Pending]) -> list[tuple[Snapshot, list[Pending]]]:
    """What one batch may hold: a snapshot's requests that are read for, or vectors of one of its versions."""
    groups: dict[tuple[int, str | None], tuple[Snapshot, list[Pending]]] = {}
    for pending in taken:
        of = None if pending.request.vectors is None else pending.request.pinned
        groups.setdefault((id(pending.snapshot), of), (pending.snapshot, []))[1].append(pending)
    return list(groups.values())
