"""More requests than a slow model can score: what can be answered in time is, the rest is told so at once, and health
checks never wait. Afterwards all is as before.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import uvloop

from memory.slow_model import place_slow_bundle
from memory.tiny import caught_up
from servers.mlflow import free_port
from servers.model_server import Rig, wait_for
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.clock import SystemClock
from tidewheel.features.load import load_features
from tidewheel.features.stream import no_rows
from tidewheel.serving.client import LoadResult, OpenLoop
from tidewheel.spec.load import load_project

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

LAYERS, DEADLINE_US = 24, 200_000
NUMBERS = count()


def bodies(n: int) -> Iterator[bytes]:
    for _ in range(n):
        number = next(NUMBERS)
        inputs = [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [number % 97]},
                  {"name": "amount", "shape": [1], "datatype": "FP64", "data": [10.0]}]  # fmt: skip
        yield json.dumps({"inputs": inputs}).encode()


def load(rig: Rig, connections: int, rate_rps: float | None, n: int) -> LoadResult:
    loop = OpenLoop(rig.url, "/v2/models/tiny/infer", connections, rate_rps, SystemClock())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(loop.run(bodies(n)))


@contextmanager
def slow(folder: Path, *, fallback: bool) -> Iterator[Rig]:
    home = LocalHome(folder / "home")
    digest = place_slow_bundle(home.bundles, folder / "bundle", LAYERS, deadline="200ms", fallback=fallback)
    store = SqliteOnlineStore(home.online_db)
    bundle = home.bundles / digest
    for state in load_features(bundle, load_project(bundle)).states:
        store.write(state, 0, no_rows(state), caught_up(SystemClock().now_us() + 3_600_000_000))
    store.close()
    rig = Rig(home, {"1": digest}, free_port())
    try:
        rig.deploy({"1": 1.0})
        rig.start()
        wait_for("an answer of the model", lambda: load(rig, 1, None, 5).n_degraded == 0)
        yield rig
    finally:
        for server in rig.servers:
            server.kill()
            server.wait()


@contextmanager
def probing(rig: Rig, took_ms: list[float]) -> Iterator[None]:
    """Health checks one after the other beside what happens in the block."""
    end = threading.Event()

    def probe() -> None:
        while not end.is_set():
            began = time.perf_counter()
            assert rig.send("GET", "/v2/health/ready").status == 200
            took_ms.append((time.perf_counter() - began) * 1000)
            end.wait(0.02)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(20)


def goodput(result: LoadResult) -> float:
    """Answers of the model within the deadline, a second."""
    in_time = sum(latency_us <= DEADLINE_US for latency_us in result.latencies_us)
    return max(0.0, in_time - result.n_degraded) / (result.duration_us / 1e6)


@pytest.mark.parametrize("times", [2, 5])
def test_without_a_fallback_what_cannot_be_scored_in_time_is_turned_away_at_once(tmp_path: Path, times: int) -> None:
    with slow(tmp_path, fallback=False) as rig:
        peak = goodput(load(rig, 8, None, 200))
        waits_ms: list[float] = []
        with probing(rig, waits_ms):
            result = load(rig, 256, times * peak, round(3 * times * peak))
        after = load(rig, 4, peak / 2, round(peak))
        share, p99_ms, health_ms = goodput(result) / peak, result.percentile_ms(99), np.percentile(waits_ms, 99)
        print(f"peak {peak:.0f}/s, {times}x: goodput {share:.0%}, p99 {p99_ms:.0f} ms, health p99 {health_ms:.0f} ms")
        assert set(result.errors) <= {"HTTP 503"}
        assert share > 0.4, "it goes on answering"
        assert sum(one > DEADLINE_US for one in result.latencies_us) <= 0.1 * result.n_ok
        assert np.percentile(waits_ms, 50) < 100, "health checks do not wait for the model"
        assert after.n_failed <= 0.02 * after.n_requests


def test_with_a_fallback_everybody_is_answered(tmp_path: Path) -> None:
    with slow(tmp_path, fallback=True) as rig:
        peak = goodput(load(rig, 8, None, 200))
        result = load(rig, 256, 3 * peak, round(9 * peak))
        after = load(rig, 4, peak / 2, round(peak))
        print(f"peak {peak:.0f}/s, 3x: goodput {goodput(result) / peak:.0%}, p99 {result.percentile_ms(99):.0f} ms")
        assert result.n_failed == 0, result.errors
        assert 0 < result.n_degraded < result.n_ok
        assert set(result.reasons) <= {"Overloaded", "ModelLate", "Heuristic"}
        assert after.n_degraded <= 0.02 * after.n_requests
