"""Brings concurrent requests together: one feature read and one model run per version for all that wait.

An idle server adds no wait: a request goes to the worker thread in the same turn of the event loop. While the
thread is busy, requests gather and go next, together. A request whose deadline comes first is answered by the
ladder on the event loop; once the thread has been overdue for a while, later requests do not wait for it either.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

from tidewheel.clock import Clock
from tidewheel.errors import TidewheelError, Unavailable
from tidewheel.serving.metrics import ServingMetrics
from tidewheel.serving.prediction_log import PredictionLog
from tidewheel.serving.predictor import Answered, answer, make_batch, records, replies
from tidewheel.serving.request import Overloaded, PredictReply, PredictRequest
from tidewheel.serving.shadow import ShadowScorer
from tidewheel.serving.snapshot import Snapshot

MAX_BATCH_ROWS = 1024
MAX_WAITING_ROWS = 16_384
LATE = "FeaturesLate"
# A hiccup makes requests wait until their own deadline; after this long it is a stall, and nobody waits.
STALL_US = 250_000


class _Pending:
    """A request on its way. Whoever pops the ticket answers it: the worker or the deadline, never both."""

    __slots__ = ("deadline_us", "future", "request", "snapshot", "ticket")

    def __init__(
        self, request: PredictRequest, snapshot: Snapshot, future: asyncio.Future[PredictReply], deadline_us: int
    ) -> None:
        self.request, self.snapshot, self.future, self.deadline_us = request, snapshot, future, deadline_us
        self.ticket = [None]

    def claim(self) -> bool:
        try:
            self.ticket.pop()  # atomic under the interpreter's lock
        except IndexError:
            return False
        return True


_Outcome = tuple[_Pending, "PredictReply | TidewheelError"]


class Coalescer:
    """One per server process; ``submit`` on the event loop, everything slow on one worker thread."""

    def __init__(self, log: PredictionLog, shadow: ShadowScorer, metrics: ServingMetrics, clock: Clock) -> None:
        self._log, self._shadow, self._metrics, self._clock = log, shadow, metrics, clock
        self._waiting: deque[_Pending] = deque()
        self._waiting_rows = 0
        self._busy = self._flush_due = False
        self._taken: list[_Pending] = []  # what the worker has
        self._timer: asyncio.TimerHandle | None = None
        self._overdue_since_us: int | None = None
        self._row_us = 50.0  # moving mean of the time one row takes, for admission
        self._work: queue.SimpleQueue[list[_Pending] | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="predict", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what it has; call when no request is on its way."""
        self._work.put(None)
        self._thread.join(timeout=5.0)

    @property
    def waiting_rows(self) -> int:
        return self._waiting_rows

    def submit(self, request: PredictRequest, snapshot: Snapshot) -> asyncio.Future[PredictReply]:
        """The reply to come.

        Raises Overloaded where it could not be answered in time and no fallback is declared: with one, whoever would
        wait too long is answered by the ladder at its deadline, so that only the bound on memory turns callers away.
        """
        assert self._loop is not None
        serving = snapshot.champion.project.serving
        deadline_us = serving.deadline_us
        if request.timeout_us is not None and request.timeout_us < deadline_us:
            deadline_us = request.timeout_us
        late = serving.fallback is None and (self._waiting_rows + request.n_rows) * self._row_us > deadline_us
        if self._waiting_rows and (self._waiting_rows >= MAX_WAITING_ROWS or late):
            raise Overloaded(f"{self._waiting_rows} rows wait already; try again later")
        future: asyncio.Future[PredictReply] = self._loop.create_future()
        # A fifth of the deadline, at most 5 ms, is kept for answering by the ladder.
        margin_us = min(5_000, deadline_us // 5)
        pending = _Pending(request, snapshot, future, request.arrived_us + deadline_us - margin_us)
        if self._overdue_since_us is not None and request.arrived_us - self._overdue_since_us > STALL_US:
            self._answer_late([pending])
            return future
        self._waiting.append(pending)
        self._waiting_rows += request.n_rows
        if self._busy:
            if self._timer is None:
                self._set_timer()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        """Hand the worker what waits, as far as one batch holds."""
        self._flush_due = False
        if self._busy or not self._waiting:
            return
        taken: list[_Pending] = []
        rows = 0
        while self._waiting and (not taken or rows + self._waiting[0].request.n_rows <= MAX_BATCH_ROWS):
            pending = self._waiting.popleft()
            taken.append(pending)
            rows += pending.request.n_rows
        self._waiting_rows -= rows
        self._busy, self._taken = True, taken
        self._work.put(taken)
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake at the first deadline of all that the worker has or that waits behind it."""
        assert self._loop is not None
        deadlines = [pending.deadline_us for pending in (*self._taken, *self._waiting) if pending.ticket]
        if not deadlines:
            self._timer = None
            return
        wait_us = min(deadlines) - self._clock.monotonic_us()
        self._timer = self._loop.call_later(max(wait_us, 0) / 1e6, self._deadline)

    def _deadline(self) -> None:
        """Answer by the ladder whoever cannot wait any longer; the others still may be in time."""
        self._timer = None
        if not any(pending.ticket for pending in self._taken):
            return  # the worker is through and about to say so
        now_us = self._clock.monotonic_us()
        if self._overdue_since_us is None:
            self._overdue_since_us = now_us
        late = [p for p in (*self._taken, *self._waiting) if p.ticket and p.deadline_us <= now_us]
        if late:
            self._waiting = deque(p for p in self._waiting if p.deadline_us > now_us)
            self._waiting_rows = sum(p.request.n_rows for p in self._waiting)
            self._answer_late(late)
        self._set_timer()

    def _answer_late(self, late: Sequence[_Pending]) -> None:
        self._settle(self._process([pending for pending in late if pending.claim()], LATE, claimed=True))

    def _run(self) -> None:
        assert self._loop is not None
        while (taken := self._work.get()) is not None:
            began_us = self._clock.monotonic_us()
            try:
                outcome = self._process(taken, None, claimed=False)
            except Exception as error:  # our own fault must not end the thread
                self._metrics.internal_error(error)
                failure = Unavailable("the server could not answer; its log says why")
                outcome = [(pending, failure) for pending in taken if pending.claim()]
            took_us = self._clock.monotonic_us() - began_us
            self._loop.call_soon_threadsafe(self._done, taken, outcome, took_us)

    def _process(self, taken: Sequence[_Pending], late: str | None, *, claimed: bool) -> list[_Outcome]:
        """Answer, claim, log, in this order: a record is written for each reply that goes out, before it does."""
        outcome: list[_Outcome] = []
        for snapshot, group in _groups(taken):
            answered = answer(make_batch(snapshot, [pending.request for pending in group]), late)
            ours = [claimed or pending.claim() for pending in group]
            written = records(answered, ours, self._clock)
            if written:
                self._log.write(written)
                self._metrics.predicted(written)
            mine: Callable[[int], bool] = ours.__getitem__
            outcome += [
                (pending, reply)
                for index, (pending, reply) in enumerate(zip(group, replies(answered), strict=True))
                if mine(index)
            ]
            if all(ours):
                self._shadow.offer(answered)
        return outcome

    def _done(self, taken: Sequence[_Pending], outcome: Sequence[_Outcome], took_us: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._busy, self._taken, self._overdue_since_us = False, [], None
        rows = sum(pending.request.n_rows for pending in taken)
        # By weight of rows: a lone request that met a busy machine says little about what a row costs.
        self._row_us += 0.1 * min(rows / 64, 1.0) * (took_us / max(rows, 1) - self._row_us)
        self._metrics.batch(rows, took_us)
        self._settle(outcome)
        self._flush()

    @staticmethod
    def _settle(outcome: Sequence[_Outcome]) -> None:
        for pending, reply in outcome:
            if pending.future.done():  # the caller went away
                continue
            if isinstance(reply, PredictReply):
                pending.future.set_result(reply)
            else:
                pending.future.set_exception(reply)


def _groups(taken: Sequence[_Pending]) -> list[tuple[Snapshot, list[_Pending]]]:
    """What one batch may hold: a snapshot's requests that are read for, or vectors of one of its versions."""
    groups: dict[tuple[int, str | None], tuple[Snapshot, list[_Pending]]] = {}
    for pending in taken:
        of = None if pending.request.vectors is None else pending.request.pinned
        groups.setdefault((id(pending.snapshot), of), (pending.snapshot, []))[1].append(pending)
    return list(groups.values())


__all__ = ["Answered", "Coalescer"]
