"""Hours of steady load on one server while versions change and the store comes and goes: nothing grows, nothing fails.

``make soak``; TIDEWHEEL_SOAK_S is how long.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from integration.test_store_faults import World, kill, revive, world
from memory.tiny import place_bundle
from servers.model_server import wait_for
from tidewheel.serving.client import LoadResult

SOAK_S = float(os.environ.get("TIDEWHEEL_SOAK_S", "0"))
SWAP_EVERY_S, FLAP_EVERY_S, LOOK_EVERY_S, SLICE_S = 60.0, 300.0, 5.0, 60.0

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(SOAK_S + 600),
    pytest.mark.skipif(not SOAK_S, reason="takes hours: make soak"),
]


def test_nothing_grows_and_nothing_fails(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        digest = place_bundle(made.rig.home.bundles, tmp_path / "other", seed=2, deadline="100ms")
        made.rig.digests["2"] = digest
        made.fill()
        results: list[LoadResult] = []
        end = time.monotonic() + SOAK_S
        loading = threading.Thread(target=lambda: _load_until(made, end, results))
        loading.start()
        seen = _watch(made, end)
        loading.join(120)
        wait_for("fresh features", made.is_fresh)
    failed = sum(one.n_failed for one in results)
    first, last = results[1].percentile_ms(99), results[-1].percentile_ms(99)
    warm = seen[len(seen) // 5 :]
    hours = (np.array([one[0] for one in warm]) - warm[0][0]) / 3600
    slopes = {name: np.polyfit(hours, [one[1][name] for one in warm], 1)[0] for name in ("rss_mb", "files", "threads")}
    print(f"{len(results)} minutes, {failed} failed, p99 {first:.1f} -> {last:.1f} ms, a hour {slopes}")
    assert failed == 0
    assert slopes["rss_mb"] < max(1.0, 3600 / SOAK_S), "memory grows"
    assert abs(slopes["files"]) < 1 + 3600 / SOAK_S
    assert abs(slopes["threads"]) < 1 + 3600 / SOAK_S


def _load_until(made: World, end: float, results: list[LoadResult]) -> None:
    while (left := end - time.monotonic()) > 1:
        results.append(made.load(min(SLICE_S, left)))


def _watch(made: World, end: float) -> list[tuple[float, dict[str, float]]]:
    """Figures of the process by time, while versions and the store change."""
    process = psutil.Process(made.rig.servers[0].pid)
    seen, champion = [], "1"
    swap_at, flap_at = time.monotonic() + SWAP_EVERY_S, time.monotonic() + FLAP_EVERY_S
    pause = threading.Event()
    while time.monotonic() < end:
        now = time.monotonic()
        if now >= swap_at:
            champion, swap_at = {"1": "2", "2": "1"}[champion], now + SWAP_EVERY_S
            made.rig.deploy({champion: 1.0})
        if now >= flap_at:
            flap_at = now + FLAP_EVERY_S
            kill(made)
            pause.wait(5)
            revive(made)
        figures = {
            "rss_mb": process.memory_info().rss / 1e6,
            "files": process.num_fds(),
            "threads": process.num_threads(),
        }
        seen.append((now, figures))
        pause.wait(LOOK_EVERY_S)
    return seen
