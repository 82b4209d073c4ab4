"""A model server's starts and swaps: how soon it answers, what it holds, and what callers notice of another version.

Ours is a process as KServe or ``tidewheel up`` start it, its memory without its two children's; the peer is what a
server with the Feast SDK inside has to import before it can listen.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import urllib.request
from itertools import cycle, islice
from statistics import median

import uvloop

from benchmarks.children import child
from benchmarks.lines import Line
from benchmarks.redis_world import RedisWorld, redis_for_benchmarks, redis_world, second_bundle
from benchmarks.serving import Target, model_server, one_cpu_for_the_client
from tidewheel.adapters.local_cluster import LocalCluster
from tidewheel.clock import SystemClock
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.serving.client import LoadResult, OpenLoop

RATE_RPS = 200
SIZES = {"full": (5, 12.0), "tiny": (1, 2.0)}  # rounds, seconds of load around a swap
READY_REACH_S, RSS_REACH_MB, SWAP_REACH_S = 2.0, 200.0, 2.0


def run(size: str) -> list[Line]:
    """Lines about starts and swaps; the limits to keep are given as the peer where there is none."""
    rounds, seconds = SIZES[size]
    try:
        with redis_for_benchmarks() as url, one_cpu_for_the_client():
            world = redis_world("plain", size, url)
            other = second_bundle(world)
            return [*_starts(world, rounds), *_swaps(world, other, rounds, seconds)]
    except RuntimeError as error:
        if "redis-server is not installed" not in str(error):
            raise
        sys.stderr.write(f"lifecycle: left out, {error}\n")
        return []


def _starts(world: RedisWorld, rounds: int) -> list[Line]:
    took, held = [], []
    for _ in range(rounds):
        began = time.monotonic()
        with model_server(world) as target:
            took.append(time.monotonic() - began)
            held.append(target.process.memory_info().rss / 1e6)
    feast = [child("benchmarks.import_feast") for _ in range(rounds)]
    return [
        Line("start to fresh answers", "limit", median(took), READY_REACH_S, "s", rounds, reach=1.0),
        Line("the same", "import feast", median(took), median(one.wall_s for one in feast), "s", rounds),
        Line("memory when ready", "limit", median(held), RSS_REACH_MB, "MB", rounds, reach=1.0),
        Line("the same", "import feast", median(held), median(one.peak_bytes for one in feast) / 1e6, "MB", rounds),
    ]


def _swaps(world: RedisWorld, other: str, rounds: int, seconds: float) -> list[Line]:
    steady, around, served_s, failed = [], [], [], 0
    digests = [world.bundle.name, other]
    with model_server(world) as target:
        _load(target, world, seconds / 2)
        for number in range(rounds):
            steady.append(_load(target, world, seconds / 2).percentile_ms(99))
            result: list[LoadResult] = []
            loading = threading.Thread(target=lambda: result.append(_load(target, world, seconds)))  # noqa: B023
            loading.start()
            time.sleep(seconds / 3)
            served_s.append(_deploy(world, target, digests[(number + 1) % 2], number + 2))
            loading.join()
            around.append(result[0].percentile_ms(99))
            failed += result[0].n_failed + result[0].n_degraded
    what = f"swap under {RATE_RPS} requests/s"
    return [
        Line(f"{what}: document to served", "limit", median(served_s), SWAP_REACH_S, "s", rounds, reach=1.0),
        Line(f"{what}: p99", "steady, times 2", median(around), 2 * median(steady), "ms", rounds, reach=1.0),
        Line(f"{what}: failed or degraded", "limit", failed, 0, "requests", rounds, reach=1.0),
    ]  # fmt: skip


def _load(target: Target, world: RedisWorld, seconds: float) -> LoadResult:
    loop = OpenLoop(target.url, target.path, 16, RATE_RPS, SystemClock(), exact=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(loop.run(islice(cycle(world.bodies), round(seconds * RATE_RPS))))


def _deploy(world: RedisWorld, target: Target, digest: str, generation: int) -> float:
    """Seconds from the document's write until its generation answers."""
    variant = Variant(str(generation), digest, dict(world.project.serving.decision))
    weights = {variant.version: 1.0}
    LocalCluster(world.home).write_document(
        DeploymentDocument("card-fraud", generation, "customer_id", "bench", variant.version, (variant,), weights)
    )
    began = time.monotonic()
    while f'"generation":{generation}}}'.encode() not in _ready(target):
        time.sleep(0.01)
    return time.monotonic() - began


def _ready(target: Target) -> bytes:
    with urllib.request.urlopen(f"{target.url}/v2/health/ready", timeout=5) as answer:
        return bytes(answer.read())
