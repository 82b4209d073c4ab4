"""Brings concurrent requests together: one feature read and one model run per version for all that wait.

An idle server adds no wait: a request is read for in the same turn of the event loop. While a read is under way others
gather and go next, together; one that stalls is not waited for. What is quick to compute is computed on the event loop,
since handing it to a thread costs more than it does; slow models and large batches have a thread. A request whose
deadline comes first is answered by the ladder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tidewheel.clock import Clock
from tidewheel.errors import TidewheelError, Unavailable
from tidewheel.features.ports import Fetched, FetchingStore
from tidewheel.serving.answered import Answered, frames, replies
from tidewheel.serving.batch import make_batch
from tidewheel.serving.breaker import Breaker
from tidewheel.serving.degraded import FEATURES_LATE, MODEL_LATE, OVERLOADED
from tidewheel.serving.lane import Flight, Lane, Pending, groups_of
from tidewheel.serving.metrics import ServingMetrics
from tidewheel.serving.prediction_log import PredictionLog
from tidewheel.serving.predictor import begin, finish, wanted_of, without_model
from tidewheel.serving.request import Overloaded, PredictReply, PredictRequest
from tidewheel.serving.shadow import ShadowScorer
from tidewheel.serving.snapshot import Snapshot
from tidewheel.serving.stages import Stages
from tidewheel.serving.tracing import Tracer

QUICK_ROWS = 128  # of a batch on the event loop
SLOW_ROWS = 4096
MAX_WAITING_ROWS = 16_384
MAX_FLIGHTS = 4
SLOW_US = 2_000.0  # what may not hold up the event loop
FEATURE_ROW_US = 15.0  # what making a row's vector is thought to cost, in deciding that
STALLED_US = 5_000  # a read under way for so long holds up nobody else
STALL_US = 250_000  # a thread overdue for so long is not waited for
OUR_FAULT = "the server could not answer; its log says why"


class Coalescer:
    """One per server process, on its event loop."""

    def __init__(
        self,
        fetcher: FetchingStore,
        log: PredictionLog,
        shadow: ShadowScorer,
        metrics: ServingMetrics,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._fetcher, self._log, self._shadow = fetcher, log, shadow
        self._metrics, self._clock, self._tracer = metrics, clock, tracer
        self._quick, self._slow = Lane(QUICK_ROWS, slow=False), Lane(SLOW_ROWS, slow=True)
        self._lanes = (self._quick, self._slow)
        self._breaker = Breaker()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0
        self._thread = ThreadPoolExecutor(1, "predict")
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def stop(self) -> None:
        """Call when no request is on its way."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._fetcher.close()
        if self._tracer is not None:
            self._tracer.close()

    @property
    def waiting_rows(self) -> int:
        return sum(lane.waiting_rows for lane in self._lanes)

    @property
    def breaker_state(self) -> str:
        return self._breaker.state

    def submit(self, request: PredictRequest, snapshot: Snapshot) -> asyncio.Future[PredictReply]:
        """The reply to come.

        Raises Overloaded where it could not be answered in time and no fallback is declared. With one, the rungs that
        need no model answer at once.
        """
        assert self._loop is not None
        champion, n = snapshot.champion, request.n_rows
        serving = champion.project.serving
        deadline_us = serving.deadline_us
        if request.timeout_us is not None and request.timeout_us < deadline_us:
            deadline_us = request.timeout_us
        lane = self._slow if champion.cost.of(n) + n * FEATURE_ROW_US > SLOW_US else self._quick
        crowded = lane.waiting_rows > 0 or (lane.slow and lane.flying_rows > 0)
        too_late = crowded and lane.expected_us(n, champion.cost, serving.deadline_us) > deadline_us
        if lane.waiting_rows >= MAX_WAITING_ROWS or (too_late and serving.fallback is None):
            self._metrics.shed("queue" if not too_late else "deadline")
            raise Overloaded(f"{lane.waiting_rows} rows wait already; try again later")
        future: asyncio.Future[PredictReply] = self._loop.create_future()
        # A fifth of the deadline, at most 5 ms, is kept for answering by the ladder.
        pending = Pending(request, snapshot, future, request.arrived_us + deadline_us - min(5_000, deadline_us // 5))
        overdue_us = lane.overdue_since_us
        if too_late or (overdue_us is not None and request.arrived_us - overdue_us > STALL_US):
            self._answer_late([pending], OVERLOADED if too_late else MODEL_LATE)
            return future
        lane.add(pending)
        if self._timer is None or pending.deadline_us < self._timer_us:
            self._set_timer(pending.deadline_us)
        if lane.flush_due:
            return future
        if self._may_fly(lane):
            lane.flush_due = True
            self._loop.call_soon(self._flush, lane)
        elif not lane.slow:
            # Whoever is behind a read that stalls flies without it.
            self._set_timer(lane.flights[0].stages.began_us + STALLED_US)
        return future

    def _may_fly(self, lane: Lane) -> bool:
        if not lane.flights:
            return True
        oldest = lane.flights[0]
        return (
            not lane.slow
            and oldest.reading
            and len(lane.flights) < MAX_FLIGHTS
            and self._clock.monotonic_us() - oldest.stages.began_us > STALLED_US
        )

    def _flush(self, lane: Lane) -> None:
        """Let those that wait fly, as far as they may."""
        lane.flush_due = False
        while lane.waiting and self._may_fly(lane):
            first = lane.waiting[0].snapshot.champion
            for snapshot, pendings in groups_of(lane.take(first.cost, first.project.serving.deadline_us)):
                self._fly(lane, snapshot, pendings)

    def _fly(self, lane: Lane, snapshot: Snapshot, pendings: Sequence[Pending]) -> None:
        assert self._loop is not None
        now_us = self._clock.monotonic_us()
        try:
            batch = make_batch(snapshot, [pending.request for pending in pendings])
            asked = begin(batch)
        except Exception as error:  # our own fault must not take the others with it
            self._fail(pendings, error)
            return
        flight = Flight(pendings, batch, asked, Stages(now_us))
        lane.flights.append(flight)
        lane.flying_rows += batch.n_rows
        wanted = wanted_of(asked)
        if not wanted:
            self._fetched(lane, flight, Fetched([]))
        elif self._breaker.allows(now_us):
            budget_us = snapshot.champion.project.serving.deadline_us * 3 // 5
            left_us = max(pending.deadline_us for pending in pendings) - now_us
            timeout_us = max(1_000, min(budget_us, left_us))
            self._fetcher.fetch(wanted, timeout_us, lambda found: self._told(lane, flight, found))
        else:
            self._fetched(lane, flight, Unavailable("the online store failed and is left alone for a moment"))

    def _told(self, lane: Lane, flight: Flight, found: Fetched | Unavailable) -> None:
        """The store has answered, or has not."""
        before = self._breaker.state
        if isinstance(found, Unavailable):
            self._breaker.failed(self._clock.monotonic_us())
        else:
            self._breaker.succeeded()
            self._remember(flight, found)
        if self._breaker.state != before:
            self._metrics.breaker(self._breaker.state)
        self._fetched(lane, flight, found)

    @staticmethod
    def _remember(flight: Flight, found: Fetched) -> None:
        start = 0
        for asked in flight.asked:
            if isinstance(asked.prepared, Exception):
                continue
            following = start + len(asked.prepared.wanted)
            if asked.version.memory is not None and not found.refused:
                at_us = max(asked.t_us.tolist())
                asked.version.memory.remember(asked.prepared.wanted, found.blobs[start:following], at_us)
            start = following

    def _fetched(self, lane: Lane, flight: Flight, found: Fetched | Unavailable) -> None:
        flight.reading = False
        flight.stages.read_us = self._clock.monotonic_us()
        if not flight.waited_for:
            self._land(lane, flight)
            return
        if lane.slow:
            self._thread.submit(self._run, lane, flight, found)
            return
        try:
            answered = finish(flight.batch, flight.asked, found)
            flight.stages.scored_us = self._clock.monotonic_us()
            self._settle(flight, answered)
        except Exception as error:  # our own fault must not end the loop
            self._fail(flight.pendings, error)
        self._land(lane, flight)

    def _run(self, lane: Lane, flight: Flight, found: Fetched | Unavailable) -> None:
        """On the thread."""
        assert self._loop is not None
        outcome: Answered | Exception
        try:
            outcome = finish(flight.batch, flight.asked, found)
        except Exception as error:
            outcome = error
        flight.stages.scored_us = self._clock.monotonic_us()
        self._loop.call_soon_threadsafe(self._ran, lane, flight, outcome)

    def _ran(self, lane: Lane, flight: Flight, outcome: Answered | Exception) -> None:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self._settle(flight, outcome)
        except Exception as error:
            self._fail(flight.pendings, error)
        self._land(lane, flight)

    def _land(self, lane: Lane, flight: Flight) -> None:
        """The lane is free for those that wait."""
        lane.flights.remove(flight)
        rows, stages = flight.batch.n_rows, flight.stages
        lane.flying_rows -= rows
        lane.overdue_since_us = None
        if stages.scored_us:
            took_us = stages.scored_us - (stages.read_us if lane.slow else stages.began_us)
            lane.took(rows, took_us, flight.batch.snapshot.champion.cost)
        if lane.waiting and not lane.flush_due:
            assert self._loop is not None
            lane.flush_due = True
            self._loop.call_soon(self._flush, lane)

    def _settle(self, flight: Flight, answered: Answered) -> None:
        """Log, then answer: a record is written for each reply that goes out, before it does."""
        ours = [not pending.answered for pending in flight.pendings]
        written = frames(answered, ours, self._clock)
        if written:
            self._log.write(written)
            self._metrics.predicted(written)
            for group in answered.groups:
                if group.missing is not None and group.missing.any():
                    counts = group.missing.sum(axis=0).tolist()
                    self._metrics.missing(group.version, zip(group.by.features.names, counts, strict=True))
        stages = flight.stages
        stages.logged_us = self._clock.monotonic_us()
        self._metrics.batch(flight.batch.n_rows, stages)
        made = replies(answered)
        for pending, mine, reply in zip(flight.pendings, ours, made, strict=True):
            if mine:
                pending.answered = True
                _give(pending, reply)
        if self._tracer is not None:
            self._tracer.batch(flight.batch.requests, made, stages)
        if all(ours):
            self._shadow.offer(answered)

    def _set_timer(self, at_us: int) -> None:
        """Wake then; an earlier moment that was asked for before stays."""
        assert self._loop is not None
        if self._timer is not None:
            if self._timer_us <= at_us:
                return
            self._timer.cancel()
        self._timer_us = at_us
        self._timer = self._loop.call_later(max(at_us - self._clock.monotonic_us(), 0) / 1e6, self._deadline)

    def _deadline(self) -> None:
        """Answer by the ladder whoever cannot wait any longer; the others still may be in time."""
        self._timer = None
        now_us = self._clock.monotonic_us()
        upcoming: int | None = None
        for lane in self._lanes:
            flying = [pending for flight in lane.flights for pending in flight.pendings]
            late = [p for p in (*flying, *lane.waiting) if not p.answered and p.deadline_us <= now_us]
            if late:
                if lane.slow and lane.flights and lane.overdue_since_us is None:
                    lane.overdue_since_us = now_us
                self._answer_late(late, MODEL_LATE if lane.slow else FEATURES_LATE)
                lane.drop_answered()
            if not lane.flush_due:
                self._flush(lane)
            left = [p.deadline_us for p in (*flying, *lane.waiting) if not p.answered]
            upcoming = min([*left, *([] if upcoming is None else [upcoming])], default=None)
        if upcoming is not None:
            self._set_timer(upcoming)

    def _answer_late(self, late: Sequence[Pending], cause: str) -> None:
        for snapshot, pendings in groups_of(late):
            now_us = self._clock.monotonic_us()
            try:
                batch = make_batch(snapshot, [pending.request for pending in pendings])
                asked = begin(batch)
                if cause == FEATURES_LATE or batch.vectors is not None:
                    answered = finish(batch, asked, Fetched([]), cause)
                else:
                    answered = without_model(batch, asked, cause)
                stages = Stages(now_us, now_us, self._clock.monotonic_us())
                self._settle(Flight(pendings, batch, asked, stages), answered)
            except Exception as error:
                self._fail(pendings, error)

    def _fail(self, pendings: Sequence[Pending], error: Exception) -> None:
        self._metrics.internal_error(error)
        for pending in pendings:
            if not pending.answered:
                pending.answered = True
                _give(pending, Unavailable(OUR_FAULT))


def _give(pending: Pending, reply: PredictReply | TidewheelError) -> None:
    if pending.future.done():  # the caller went away
        return
    if isinstance(reply, PredictReply):
        pending.future.set_result(reply)
    else:
        pending.future.set_exception(reply)
