"""Concurrent requests: together where they wait, never later than their deadline, refused where it is hopeless."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.tiny import T0_US
from tidewheel.clock import SystemClock
from tidewheel.features.reader import FeatureRows
from tidewheel.serving.coalescer import STALL_US, Coalescer
from tidewheel.serving.metrics import ServingMetrics
from tidewheel.serving.prediction_log import PredictionLog
from tidewheel.serving.prediction_record import decode_frames
from tidewheel.serving.request import Overloaded, PredictReply, PredictRequest
from tidewheel.serving.shadow import ShadowScorer
from tidewheel.serving.snapshot import LoadedVersion, Snapshot
from unit.serving.conftest import Bench

CLOCK = SystemClock()


class GatedReader:
    """Reads when the gate opens; counts rows per read."""

    def __init__(self, version: LoadedVersion) -> None:
        self._reader = version.reader
        self.gate = threading.Event()
        self.reads: list[int] = []

    def read(self, columns: Any, t_us: Any) -> FeatureRows:
        self.reads.append(len(t_us))
        self.gate.wait(timeout=10.0)
        return self._reader.read(columns, t_us)

    def stale_views(self, now_us: int) -> tuple[str, ...]:
        return ()

    def caught_up(self) -> bool:
        return True


class Rig:
    def __init__(self, bench: Bench, folder: Path, deadline_us: int, *, fallback: bool = True) -> None:
        version = bench.load("1")
        kept = version.project.serving.fallback if fallback else None
        serving = version.project.serving.model_copy(update={"deadline_us": deadline_us, "fallback": kept})
        project = version.project.model_copy(update={"serving": serving})
        self.reader = GatedReader(version)
        self.snapshot: Snapshot = bench.snapshot(
            replace(version, reader=self.reader, project=project), weights={"1": 1.0}
        )
        self.log = PredictionLog(folder / "tiny-0", CLOCK)
        self.coalescer = Coalescer(self.log, ShadowScorer(self.log, CLOCK), ServingMetrics("tiny", 0), CLOCK)

    def submit(self, number: int) -> asyncio.Future[PredictReply]:
        request = PredictRequest(
            f"r{number}", 1, {"customer_id": [number], "amount": [9.0]}, ["e"], [T0_US], CLOCK.monotonic_us()
        )
        return self.coalescer.submit(request, self.snapshot)

    def logged(self) -> list[str]:
        data = b"".join(path.read_bytes() for path in self.log.rotate())
        return sorted(record.request_id for record in decode_frames(data)[0])


@pytest.fixture
def rig(bench: Bench, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(bench, tmp_path, deadline_us=5_000_000)
    yield made
    made.reader.gate.set()


def test_requests_that_wait_are_read_and_scored_together(rig: Rig) -> None:
    async def story() -> None:
        rig.coalescer.start(asyncio.get_running_loop())
        first = rig.submit(0)
        while not rig.reader.reads:
            await asyncio.sleep(0)
        others = [rig.submit(number) for number in range(1, 9)]
        rig.reader.gate.set()
        replies = await asyncio.gather(first, *others)
        assert [reply.degraded for reply in replies] == [[False]] * 9

    asyncio.run(story())
    assert rig.reader.reads == [1, 8]
    assert rig.logged() == sorted(f"r{n}" for n in range(9))
    rig.coalescer.stop()


def test_a_stalled_store_is_answered_by_the_ladder_in_time_and_logged_once(bench: Bench, tmp_path: Path) -> None:
    rig = Rig(bench, tmp_path, deadline_us=100_000)

    async def story() -> None:
        rig.coalescer.start(asyncio.get_running_loop())
        began_us = CLOCK.monotonic_us()
        first = await rig.submit(0)
        assert CLOCK.monotonic_us() - began_us < 2_000_000
        assert first.reasons == [("FeaturesLate", "FeatureDefaults")]
        second = await rig.submit(1)  # the store still hangs: each waits for its own deadline
        assert second.reasons == [("FeaturesLate", "FeatureDefaults")]
        rig.coalescer._overdue_since_us = CLOCK.monotonic_us() - 10 * STALL_US
        assert rig.submit(2).done()  # a stall: nobody waits any longer
        rig.reader.gate.set()
        while rig.coalescer._busy:
            await asyncio.sleep(0.001)
        assert (await rig.submit(3)).degraded == [False]

    asyncio.run(story())
    assert rig.logged() == ["r0", "r1", "r2", "r3"]
    rig.coalescer.stop()


async def fill_up(rig: Rig) -> list[asyncio.Future[PredictReply]]:
    """A busy worker and two rows behind it, where a row takes two seconds and the deadline is five."""
    rig.coalescer.start(asyncio.get_running_loop())
    rig.coalescer._row_us = 2_000_000.0
    taken = [rig.submit(0)]
    while not rig.reader.reads:
        await asyncio.sleep(0)
    return [*taken, rig.submit(1), rig.submit(2)]


def test_without_a_fallback_more_than_can_be_answered_in_time_is_refused(bench: Bench, tmp_path: Path) -> None:
    rig = Rig(bench, tmp_path, deadline_us=5_000_000, fallback=False)

    async def story() -> None:
        taken = await fill_up(rig)
        with pytest.raises(Overloaded, match="2 rows wait already; try again later"):
            rig.submit(3)
        rig.reader.gate.set()
        await asyncio.gather(*taken)

    asyncio.run(story())
    rig.coalescer.stop()


def test_with_a_fallback_nobody_is_refused_for_lack_of_time(rig: Rig) -> None:
    async def story() -> None:
        taken = [*await fill_up(rig), rig.submit(3)]
        rig.reader.gate.set()
        await asyncio.gather(*taken)

    asyncio.run(story())
    rig.coalescer.stop()


def test_a_lone_request_that_met_a_busy_machine_hardly_moves_the_estimate(rig: Rig) -> None:
    async def story() -> None:
        rig.coalescer.start(asyncio.get_running_loop())
        before = rig.coalescer._row_us
        rig.reader.gate.set()
        await rig.submit(0)
        while rig.coalescer._busy:
            await asyncio.sleep(0)
        rig.coalescer._done([], [], 400_000)  # nothing answered in 400 ms
        assert rig.coalescer._row_us - before < 1_000

    asyncio.run(story())
    rig.coalescer.stop()


def test_a_callers_patience_counts_where_it_is_shorter_than_the_deadline(rig: Rig) -> None:
    async def story() -> None:
        rig.coalescer.start(asyncio.get_running_loop())
        request = PredictRequest("r", 1, {"customer_id": [7]}, ["e"], [T0_US], CLOCK.monotonic_us(), timeout_us=50_000)
        assert (await rig.coalescer.submit(request, rig.snapshot)).reasons == [("FeaturesLate", "FeatureDefaults")]
        rig.reader.gate.set()
        while rig.coalescer._busy:
            await asyncio.sleep(0.001)

    asyncio.run(story())
    rig.coalescer.stop()


def test_sent_vectors_and_rows_to_read_for_wait_together_and_are_answered_apart(rig: Rig) -> None:
    async def story() -> None:
        rig.coalescer.start(asyncio.get_running_loop())
        first = rig.submit(0)
        while not rig.reader.reads:
            await asyncio.sleep(0)
        vector = np.array([[1.0, 50.0, 0.05]])
        sent = PredictRequest("v", 1, {}, ["e"], [T0_US], CLOCK.monotonic_us(), "1", vectors=vector)
        waiting = [rig.submit(1), rig.coalescer.submit(sent, rig.snapshot), rig.submit(2)]
        rig.reader.gate.set()
        assert [reply.versions for reply in await asyncio.gather(first, *waiting)] == [["1"]] * 4

    asyncio.run(story())
    assert rig.reader.reads == [1, 2]
    assert rig.logged() == ["r0", "r1", "r2", "v"]
    rig.coalescer.stop()
