"""Concurrent requests: together where they wait, never later than their deadline, refused where it is hopeless."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.fetching_store import MemoryFetcher
from memory.tiny import T0_US
from tidewheel.clock import SystemClock
from tidewheel.errors import Unavailable
from tidewheel.serving.coalescer import STALL_US, Coalescer
from tidewheel.serving.ladder import Ladder
from tidewheel.serving.last_good import LastGood
from tidewheel.serving.metrics import ServingMetrics
from tidewheel.serving.prediction_log import PredictionLog
from tidewheel.serving.prediction_record import decode_frames
from tidewheel.serving.request import Overloaded, PredictReply, PredictRequest
from tidewheel.serving.shadow import ShadowScorer
from tidewheel.serving.snapshot import Cost, LoadedVersion, Scorer, Snapshot
from unit.serving.conftest import Bench

CLOCK = SystemClock()
SLOW = Cost(call_us=10_000.0)


class HeldModel:
    """Scores when it is freed; counts the rows of each run."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.freed = threading.Event()
        self.runs: list[int] = []

    def score(self, x: Any) -> Any:
        self.runs.append(len(x))
        assert self.freed.wait(timeout=20.0)
        return self._scorer.score(x)


class Rig:
    """One version over a store whose reads are held up until ``fetcher.release()``."""

    def __init__(
        self, bench: Bench, folder: Path, deadline_us: int = 5_000_000, *, fallback: bool = True, **version: Any
    ) -> None:
        loaded = bench.load("1")
        kept = loaded.project.serving.fallback if fallback else None
        serving = loaded.project.serving.model_copy(update={"deadline_us": deadline_us, "fallback": kept})
        project = loaded.project.model_copy(update={"serving": serving})
        ladder = Ladder(loaded.reader, loaded.features, kept, LastGood())
        self.version: LoadedVersion = replace(loaded, project=project, ladder=ladder, **version)
        self.snapshot: Snapshot = bench.snapshot(self.version, weights={"1": 1.0})
        self.fetcher = MemoryFetcher(bench.store, held=True)
        self.log = PredictionLog(folder / "tiny-0", CLOCK)
        self.metrics = ServingMetrics("tiny", 0)
        shadow = ShadowScorer(self.log, CLOCK)
        self.coalescer = Coalescer(self.fetcher, self.log, shadow, self.metrics, CLOCK)

    def submit(self, number: int, **more: Any) -> asyncio.Future[PredictReply]:
        columns = {"customer_id": [number], "amount": [9.0]}
        request = PredictRequest(f"r{number}", 1, columns, ["e"], [T0_US], CLOCK.monotonic_us(), **more)
        return self.coalescer.submit(request, self.snapshot)

    def run(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def told() -> None:
            self.coalescer.start(asyncio.get_running_loop())
            await story()

        try:
            asyncio.run(told())
        finally:
            self.coalescer.stop()

    async def reading(self, n: int = 1) -> None:
        while len(self.fetcher.n_keys) < n:
            await asyncio.sleep(0)

    def logged(self) -> list[str]:
        data = b"".join(path.read_bytes() for path in self.log.rotate())
        return sorted(record.request_id for record in decode_frames(data)[0])


@pytest.fixture
def rig(bench: Bench, tmp_path: Path) -> Rig:
    return Rig(bench, tmp_path)


def test_requests_that_wait_are_read_and_scored_together(rig: Rig) -> None:
    async def story() -> None:
        first = rig.submit(0)
        await rig.reading()
        others = [rig.submit(number) for number in range(1, 9)]
        rig.fetcher.release()
        replies = await asyncio.gather(first, *others)
        assert [reply.degraded for reply in replies] == [[False]] * 9

    rig.run(story)
    assert rig.fetcher.n_keys == [1, 8]
    assert rig.logged() == sorted(f"r{n}" for n in range(9))


def test_requests_of_one_turn_of_the_loop_are_read_together(rig: Rig) -> None:
    async def story() -> None:
        rig.fetcher.release()
        await asyncio.gather(*(rig.submit(number) for number in range(5)))

    rig.run(story)
    assert rig.fetcher.n_keys == [5]


def test_a_read_that_stalls_does_not_hold_up_the_next_one(rig: Rig) -> None:
    async def story() -> None:
        stalled = rig.submit(0)
        await rig.reading()
        rig.fetcher.held = False
        assert (await rig.submit(1)).degraded == [False]
        assert not stalled.done()
        rig.fetcher.release()
        assert (await stalled).degraded == [False]

    rig.run(story)


def test_a_stalled_store_is_answered_by_the_ladder_in_time_and_logged_once(bench: Bench, tmp_path: Path) -> None:
    rig = Rig(bench, tmp_path, deadline_us=100_000)

    async def story() -> None:
        for number in range(3):
            reply = await rig.submit(number)
            assert reply.reasons == [("FeaturesUnavailable", "FeatureDefaults")]
        rig.fetcher.release()
        assert (await rig.submit(3)).degraded == [False]

    rig.run(story)
    assert rig.logged() == ["r0", "r1", "r2", "r3"]


def test_a_store_that_keeps_failing_is_left_alone_for_a_moment(rig: Rig) -> None:
    async def story() -> None:
        rig.fetcher.release()
        rig.fetcher.down = Unavailable("gone")
        for number in range(20):
            assert (await rig.submit(number)).reasons == [("FeaturesUnavailable", "FeatureDefaults")]
        assert len(rig.fetcher.n_keys) == 5
        assert rig.coalescer.breaker_state == "open"
        rig.fetcher.down = None
        number = 20
        while (await rig.submit(number)).degraded == [True]:
            number += 1
            await asyncio.sleep(0.005)
        assert rig.coalescer.breaker_state == "closed"

    rig.run(story)
    assert len(rig.fetcher.n_keys) == 6


def test_a_key_that_cannot_be_read_costs_its_own_row_alone(rig: Rig) -> None:
    async def story() -> None:
        rig.fetcher.release()
        rig.fetcher.refused = {(0, 1): "WRONGTYPE"}
        replies = await asyncio.gather(*(rig.submit(number) for number in (1, 2, 3)))
        assert [reply.degraded for reply in replies] == [[False], [True], [False]]
        assert replies[1].reasons == [("FeaturesUnavailable", "FeatureDefaults")]

    rig.run(story)
    assert rig.fetcher.n_keys == [3]


async def fill_up(rig: Rig) -> list[asyncio.Future[PredictReply]]:
    """A read under way and two rows behind it, where each takes a second and a half and the deadline is five."""
    for lane in rig.coalescer._lanes:
        lane.factor = 1_500_000.0 / (lane.foretold_us(rig.version.cost, 1) / lane.factor)
        lane.most_rows = 1
    taken = [rig.submit(0)]
    await rig.reading()
    return [*taken, rig.submit(1), rig.submit(2)]


@pytest.mark.parametrize("cost", [Cost(), SLOW], ids=["quick", "slow"])
def test_without_a_fallback_more_than_can_be_answered_in_time_is_refused(
    bench: Bench, tmp_path: Path, cost: Cost
) -> None:
    rig = Rig(bench, tmp_path, fallback=False, cost=cost)

    async def story() -> None:
        taken = await fill_up(rig)
        with pytest.raises(Overloaded, match="rows wait already; try again later"):
            rig.submit(3)
        rig.fetcher.release()
        await asyncio.gather(*taken)

    rig.run(story)
    assert 'tidewheel_requests_shed_total{project="tiny",replica="0",reason="deadline"} 1' in rig.metrics.text({})


def test_with_a_fallback_they_are_answered_at_once_without_the_model(rig: Rig) -> None:
    async def story() -> None:
        taken = await fill_up(rig)
        hopeless = rig.submit(3)
        assert hopeless.done()
        assert hopeless.result().reasons == [("Overloaded", "Heuristic")]
        rig.fetcher.release()
        await asyncio.gather(*taken)

    rig.run(story)
    assert rig.logged() == ["r0", "r1", "r2", "r3"]


def test_a_slow_model_runs_beside_the_event_loop_and_its_requests_gather(bench: Bench, tmp_path: Path) -> None:
    model = HeldModel(bench.load("1").scorer)
    rig = Rig(bench, tmp_path, scorer=model, cost=SLOW)
    rig.fetcher.held = False

    async def story() -> None:
        first = rig.submit(0)
        while not model.runs:
            await asyncio.sleep(0)  # the loop turns while the model runs
        others = [rig.submit(number) for number in range(1, 5)]
        await asyncio.sleep(0)
        assert not first.done()
        model.freed.set()
        assert [reply.degraded for reply in await asyncio.gather(first, *others)] == [[False]] * 5

    rig.run(story)
    assert model.runs == [1, 4]


def test_a_model_that_hangs_is_answered_for_in_time_and_then_at_once(bench: Bench, tmp_path: Path) -> None:
    model = HeldModel(bench.load("1").scorer)
    rig = Rig(bench, tmp_path, deadline_us=100_000, scorer=model, cost=SLOW)
    rig.fetcher.held = False

    async def story() -> None:
        first = await rig.submit(0)
        assert first.reasons == [("ModelLate", "Heuristic")]
        assert (await rig.submit(1)).reasons == [("ModelLate", "Heuristic")]
        rig.coalescer._slow.overdue_since_us = CLOCK.monotonic_us() - 10 * STALL_US
        assert rig.submit(2).done(), "a stall: nobody waits any longer"
        model.freed.set()
        while rig.coalescer._slow.flights:
            await asyncio.sleep(0.001)
        assert (await rig.submit(3)).degraded == [False]

    rig.run(story)
    assert rig.logged() == ["r0", "r1", "r2", "r3"]


def test_a_lone_request_that_met_a_busy_machine_hardly_moves_the_estimate(rig: Rig) -> None:
    lane, cost = rig.coalescer._quick, rig.version.cost
    usual_us = lane.foretold_us(cost, 128)
    lane.took(1, 4_000, cost)
    assert lane.foretold_us(cost, 128) < 1.05 * usual_us
    lane.took(128, int(10 * usual_us), cost)
    assert lane.foretold_us(cost, 128) > 1.5 * usual_us


def test_a_callers_patience_counts_where_it_is_shorter_than_the_deadline(rig: Rig) -> None:
    async def story() -> None:
        assert (await rig.submit(7, timeout_us=50_000)).reasons == [("FeaturesLate", "FeatureDefaults")]
        rig.fetcher.release()

    rig.run(story)


def test_sent_vectors_and_rows_to_read_for_wait_together_and_are_answered_apart(rig: Rig) -> None:
    async def story() -> None:
        first = rig.submit(0)
        await rig.reading()
        vector = np.array([[1.0, 50.0, 0.05]])
        sent = PredictRequest("v", 1, {}, ["e"], [T0_US], CLOCK.monotonic_us(), "1", vectors=vector)
        waiting = [rig.submit(1), rig.coalescer.submit(sent, rig.snapshot), rig.submit(2)]
        rig.fetcher.release()
        assert [reply.versions for reply in await asyncio.gather(first, *waiting)] == [["1"]] * 4

    rig.run(story)
    assert rig.fetcher.n_keys == [1, 2]
    assert rig.logged() == ["r0", "r1", "r2", "v"]


def test_whoever_wants_an_explanation_gets_the_vector_with_the_reply(rig: Rig) -> None:
    async def story() -> None:
        rig.fetcher.release()
        plain, explained = await asyncio.gather(rig.submit(1), rig.submit(2, explain=True))
        assert plain.vectors is None
        assert explained.vectors is not None
        assert (explained.vectors.shape, explained.explained_by) == ((1, 3), "1")

    rig.run(story)


def test_a_fault_of_ours_fails_its_batch_and_nothing_else(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        rig.fetcher.release()
        with monkeypatch.context() as patched:
            patched.setattr(rig.version.bands, "decide", None)
            with pytest.raises(Unavailable, match="its log says why"):
                await rig.submit(1)
        assert (await rig.submit(2)).degraded == [False]

    rig.run(story)
    assert rig.metrics.n_internal_errors == 1
