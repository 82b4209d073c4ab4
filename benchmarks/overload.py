"""More requests than can be answered: goodput (replies of the model within the deadline), and when all is well again.

Ours against KServe: once with a model of 10 ms, which both run off their event loop and KServe's server is given whole
rows for, and once with the fast one behind KServe's stack. An open loop sends a multiple of the peak, then half of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, takewhile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import uvloop

from benchmarks.lines import Line
from benchmarks.peer_servers import (
    FILES,
    NAME,
    Peer,
    PeerLoop,
    entity_ids,
    feast_read,
    kserve_stack,
    process_of,
    python_of,
    score_of_predictions,
)
from benchmarks.redis_world import RedisWorld, redis_for_benchmarks, redis_world, slow_bundle, tables
from benchmarks.serving import Target, free_port, listens, model_server, one_cpu_for_the_client, wait
from benchmarks.serving_peers import OURS, started_alike, tried
from tidewheel.adapters.local_cluster import LocalCluster
from tidewheel.bundle.files import MODEL_ONNX
from tidewheel.clock import SystemClock
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.serving.arrivals import evenly
from tidewheel.serving.client import OpenLoop

MODEL_MS = 10.0
CLOSED, CONNECTIONS = (4, 16, 64), 1024  # of the closed loops that find the peak, and of the open one: no queue here
WELL, BIN_S = 0.99, 0.25  # all is well in the first quarter of a second in which so many are answered in time
LATE_CLIENT_MS = 5.0
SETTLE_S, IDLE_LOOK_S = 180.0, 0.5
# Rounds, seconds of a closed loop, of overload and of what follows it.
SIZES = {"full": (3, 3.0, 3.0, 9.0), "tiny": (1, 0.5, 0.5, 1.0)}


@dataclass(frozen=True)
class Figures:
    """``goodput_rps`` while there were too many; ``p99_ms`` of the model's replies to them."""

    goodput_rps: float
    p99_ms: float
    recovery_s: float
    client_lag_ms: float


def run(size: str) -> list[Line]:
    """Lines by model and multiple of the peak."""
    lines: list[Line] = []
    if tried("overload", lambda: python_of("kserve")) is None:
        return lines
    try:
        with redis_for_benchmarks() as url, one_cpu_for_the_client():
            world = redis_world("plain", size, url)
            for what, multiples, serve in ((f"{MODEL_MS:g} ms model", (2, 5), _slow), ("fast model", (2,), _fast)):
                with contextlib.ExitStack() as stack:
                    found = tried(f"overload, {what}", lambda: serve(world, size, stack))  # noqa: B023
                    if found is not None:
                        deadline_us = world.project.serving.deadline_us
                        lines += _compared(what, multiples, found[0], world.bodies, found[1], deadline_us, size)
            return lines
    except RuntimeError as error:
        if "redis-server is not installed" not in str(error):
            raise
        sys.stderr.write(f"overload: left out, {error}\n")
        return []


def _fast(world: RedisWorld, size: str, stack: contextlib.ExitStack) -> tuple[Target, Peer]:
    _deploy(world, world.bundle.name, 2)
    ours = stack.enter_context(model_server(world))
    peer = stack.enter_context(kserve_stack(world, feast_read(world)))
    return ours, started_alike(world, ours, peer)


def _slow(world: RedisWorld, size: str, stack: contextlib.ExitStack) -> tuple[Target, Peer]:
    digest = slow_bundle(world, MODEL_MS)
    _deploy(world, digest, 1)
    ours = stack.enter_context(model_server(world))
    peer = stack.enter_context(_kserve_slow(world, size, world.home.bundles / digest / MODEL_ONNX))
    return ours, started_alike(world, ours, peer)


def _deploy(world: RedisWorld, digest: str, generation: int) -> None:
    variant = Variant(str(generation), digest, dict(world.project.serving.decision))
    weights = {variant.version: 1.0}
    LocalCluster(world.home).write_document(
        DeploymentDocument(NAME, generation, "customer_id", "bench", variant.version, (variant,), weights)
    )


@contextlib.contextmanager
def _kserve_slow(world: RedisWorld, size: str, model: Path) -> Iterator[Peer]:
    http, grpc = free_port(), free_port()
    command = [
        python_of("kserve"), FILES / "kserve_slow.py", "--model_name", NAME, "--http_port", http, "--grpc_port", grpc,
        model,
    ]  # fmt: skip
    with process_of("kserve-slow", command) as process:
        wait(lambda: listens(http))
        target = Target(
            f"http://127.0.0.1:{http}", process, f"/v1/models/{NAME}:predict",
            loop=partial(PeerLoop, score=score_of_predictions),
        )  # fmt: skip
        bodies = [json.dumps({"instances": [row]}).encode() for row in _rows(world, size)]
        yield Peer("KServe's server alone, given the rows", target, bodies, score_of_predictions)


def _rows(world: RedisWorld, size: str) -> list[list[float]]:
    """The published features of each request, in the model's order."""
    customers, terminals = np.array(entity_ids(world)).T
    made = tables(size)
    columns = [
        made[name].column(column).to_numpy()[ids]
        for name, ids in (("cards", customers), ("terminals", terminals), ("spending", customers))
        for column in made[name].column_names
        if column in world.features.names
    ]
    rows: list[list[float]] = np.array(columns).T.tolist()
    return rows


def _compared(
    what: str, multiples: tuple[int, ...], ours: Target, bodies: list[bytes], peer: Peer, deadline_us: int, size: str
) -> list[Line]:
    rounds, closed_s, over_s, after_s = SIZES[size]
    sides = {OURS: (ours, bodies), "peer": (peer.rest, peer.bodies)}
    peaks = {who: _peak_rps(target, sent, deadline_us, closed_s) for who, (target, sent) in sides.items()}
    lines = [_line(f"{what}: peak", peer, {who: [rps] for who, rps in peaks.items()}, "requests/s", higher=True)]
    for multiple in multiples:
        seen: dict[str, list[Figures]] = {who: [] for who in sides}
        for _ in range(rounds):
            for who, (target, sent) in sides.items():
                wait(lambda: all(_idle(one) for one, _ in sides.values()), SETTLE_S)
                seen[who].append(_overloaded(target, sent, deadline_us, peaks[who], multiple, over_s, after_s))
        at = f"{what}, {multiple}x its peak"
        late = {who: median(one.client_lag_ms for one in all_) for who, all_ in seen.items()}
        note = ", ".join(f"{who}: the client was {ms:.0f} ms late" for who, ms in late.items() if ms > LATE_CLIENT_MS)
        shares = {who: [100 * one.goodput_rps / peaks[who] for one in all_] for who, all_ in seen.items()}
        tails = {who: [one.p99_ms for one in all_] for who, all_ in seen.items()}
        waits = {who: [one.recovery_s for one in all_] for who, all_ in seen.items()}
        lines += [
            _line(f"{at}: goodput", peer, shares, "% of its peak", higher=True, note=note),
            _line(f"{at}: p99 of the model's replies", peer, tails, "ms"),
            _line(f"{at}: until all is well (at most {after_s:g})", peer, waits, "s"),
        ]
    return lines


def _idle(target: Target) -> bool:
    """Whether it has nothing left to do: a server works on for callers who have gone, on the CPU that all share."""
    before = target.cpu_s()
    time.sleep(IDLE_LOOK_S)
    return target.cpu_s() - before < 0.1 * IDLE_LOOK_S


def _line(
    what: str, peer: Peer, figures: dict[str, list[float]], unit: str, *, higher: bool = False, note: str = ""
) -> Line:
    ours, theirs = (median(figures[who]) for who in (OURS, "peer"))
    return Line(what, peer.told, ours, theirs, unit, len(figures[OURS]), higher_is_better=higher, note=note)


def _peak_rps(target: Target, sent: list[bytes], deadline_us: int, seconds: float) -> float:
    """The best rate of the model's replies in time among closed loops."""
    rates = []
    for connections in CLOSED:
        loop = target.loop(target.url, target.path, connections, None, SystemClock())
        end = time.monotonic() + seconds
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(loop.run(takewhile(lambda _: time.monotonic() < end, cycle(sent))))  # noqa: B023
        in_time = sum(one <= deadline_us for one in result.latencies_us) - result.n_degraded
        rates.append(in_time / (result.duration_us / 1e6))
    return max(rates)


class _Replies:
    """Watches a loop: when the request of each of the model's replies was due, and how long that took."""

    def __init__(self, loop: OpenLoop) -> None:
        self.due_us: list[int] = []
        self.took_us: list[int] = []
        self.began_us = 0
        answered, result = loop.answered, loop.result

        def watched(connection: Any, status: int, body: bytes, keep: bool) -> None:
            # Only what the loop takes as answered, and not by the fallback, grows one count and not the other.
            before, due_us = result.n_ok - result.n_degraded, connection.scheduled_us
            answered(connection, status, body, keep)
            if result.n_ok - result.n_degraded > before:
                self.due_us.append(due_us - self.began_us)
                self.took_us.append(result.latencies_us[-1])

        loop.answered = watched  # type: ignore[method-assign]


def _overloaded(
    target: Target, sent: list[bytes], deadline_us: int, peak_rps: float, multiple: int, over_s: float, after_s: float
) -> Figures:
    n_over, n_after = round(multiple * peak_rps * over_s), round(peak_rps / 2 * after_s)
    clock = SystemClock()

    def moments() -> Iterator[int]:
        replies.began_us = clock.monotonic_us()  # the loop asks for the first one when it begins
        yield from islice(evenly(multiple * peak_rps), n_over)
        yield from (round(over_s * 1e6) + at_us for at_us in evenly(peak_rps / 2))

    loop = target.loop(target.url, target.path, CONNECTIONS, peak_rps, clock, arrivals=moments())
    replies = _Replies(loop)
    gc.collect()
    gc.disable()  # a collection's pause would be counted as the server's
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(loop.run(islice(cycle(sent), n_over + n_after)))
    finally:
        gc.enable()
    due_s, took_us = np.array(replies.due_us) / 1e6, np.array(replies.took_us)
    during, in_time = due_s < over_s, took_us <= deadline_us
    return Figures(
        goodput_rps=float(np.sum(during & in_time)) / over_s,
        p99_ms=float(np.percentile(took_us[during], 99)) / 1000 if during.any() else float("nan"),
        recovery_s=_recovery_s(due_s[in_time] - over_s, peak_rps / 2, after_s),
        client_lag_ms=float(np.percentile(result.lags_us, 99)) / 1000,
    )


def _recovery_s(good_s: Any, rate_rps: float, after_s: float) -> float:
    """From when on requests are answered in time; ``good_s`` are moments of those that were."""
    edges = np.arange(0, after_s + BIN_S / 2, BIN_S)
    counted, _ = np.histogram(good_s, edges)
    well = np.flatnonzero(counted >= WELL * np.floor(rate_rps * BIN_S))
    return float(edges[well[0]]) if len(well) else after_s
