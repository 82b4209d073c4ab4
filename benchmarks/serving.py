"""The model server end to end on loopback, all checks, logging and metrics on, against the floor (floor.py).

Real processes: a Redis, two model servers (one whose features are finished values, one that computes windows as of the
request), the floor, and the load generator in this one. Servers share one CPU, the client has another. Closed loop:
each connection sends its next request when it has its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import Any

import psutil
import uvloop

from benchmarks.grpc_load import closed_loop, messages
from benchmarks.lines import Line
from benchmarks.redis_world import RedisWorld, published_fields, redis_for_benchmarks, redis_world
from benchmarks.world import ROOT, scratch
from tidewheel.bundle.files import MODEL_ONNX
from tidewheel.clock import SystemClock
from tidewheel.features.feast_layout import feast_project, feature_field
from tidewheel.serving.client import OpenLoop

REACH = 0.7
WAIT_S = 60.0
# Rounds, requests by connections.
SIZES = {"full": (5, {1: 2_000, 8: 6_000, 32: 12_000}), "tiny": (1, {1: 20, 4: 50})}
FLOOR_OUT = "the floor: no check, window, log or metric"
TOLD = {"plain": "finished values", "windowed": "windows as of the request"}


@dataclass(frozen=True)
class Load:
    """Of one round: requests a second, 99th percentile in ms, CPU microseconds of the server per request."""

    rate_rps: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True)
class Target:
    """A server under load. ``others`` are processes that work for it; ``loop`` makes the client of what it speaks."""

    url: str
    process: psutil.Process
    path: str = "/v2/models/card-fraud/infer"
    grpc_address: str = ""
    others: tuple[psutil.Process, ...] = ()
    loop: Callable[..., OpenLoop] = OpenLoop

    def cpu_s(self) -> float:
        """User and system time until now, of all that serve."""
        return float(sum(sum(one.cpu_times()[:2]) for one in (self.process, *self.others)))


def run(size: str) -> list[Line]:
    """Lines by number of connections. Raises RuntimeError where a request fails or is answered by the ladder."""
    rounds, requests = SIZES[size]
    try:
        with redis_for_benchmarks() as url, one_cpu_for_the_client(), contextlib.ExitStack() as stack:
            worlds = [redis_world(kind, size, url) for kind in TOLD]
            ours = {world.kind: stack.enter_context(model_server(world)) for world in worlds}
            floor = stack.enter_context(floor_server(worlds[0], int(url.rpartition(":")[2])))
            return _measured(rounds, requests, {world.kind: world for world in worlds}, ours, floor)
    except RuntimeError as error:
        if "redis-server is not installed" not in str(error):
            raise
        sys.stderr.write(f"serving: left out, {error}\n")
        return []


def _measured(
    rounds: int, requests: dict[int, int], worlds: dict[str, RedisWorld], ours: dict[str, Target], floor: Target
) -> list[Line]:
    called = messages("card-fraud", worlds["plain"].bodies)
    lines: list[Line] = []
    for connections, n in requests.items():
        for kind, target in (*ours.items(), ("floor", floor)):  # warm
            load(target, connections, worlds.get(kind, worlds["plain"]).bodies, max(n // 4, 1))
        seen: dict[str, list[Load]] = {"plain": [], "windowed": [], "floor": [], "grpc": []}
        for _ in range(rounds):
            for kind, target in ours.items():
                seen[kind].append(load(target, connections, worlds[kind].bodies, n))
            seen["floor"].append(load(floor, connections, worlds["plain"].bodies, n))
            seen["grpc"].append(grpc_load(ours["plain"], connections, called, n))
        for kind, told in TOLD.items():
            what = f"{told}, {many(connections)}"
            lines += lines_of(what, FLOOR_OUT, rounds, seen[kind], seen["floor"], REACH)
        lines += lines_of(f"gRPC, {many(connections)}", "REST of the same server", rounds, seen["grpc"], seen["plain"])
    return lines


def many(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


def lines_of(
    what: str,
    against: str,
    rounds: int,
    ours: list[Load],
    peer: list[Load],
    reach: float | None = None,
    tail_reach: float | None = None,
    notes: tuple[str, str] = ("", ""),
) -> list[Line]:
    """Rate, p99 and CPU; ``notes`` are of rate and p99."""

    def both(figure: Callable[[Load], float]) -> tuple[float, float]:
        return median(figure(load) for load in ours), median(figure(load) for load in peer)

    rates, tails, cpu = both(lambda one: one.rate_rps), both(lambda one: one.p99_ms), both(lambda one: one.cpu_us)
    return [
        Line(f"{what}: rate", against, *rates, "requests/s", rounds, higher_is_better=True, reach=reach, note=notes[0]),
        Line(f"{what}: p99", against, *tails, "ms", rounds, reach=tail_reach, note=notes[1]),
        Line(f"{what}: server CPU", against, *cpu, "us/request", rounds),
    ]  # fmt: skip


def grpc_load(target: Target, connections: int, sent: list[bytes], n: int) -> Load:
    before = target.cpu_s()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rate_rps, p99_ms = runner.run(closed_loop(target.grpc_address, connections, sent, n))
    cpu_s = target.cpu_s() - before
    return Load(rate_rps, p99_ms, cpu_s * 1e6 / n)


def load(target: Target, connections: int, sent: list[bytes], n: int) -> Load:
    """One round."""
    before = target.cpu_s()
    loop = target.loop(target.url, target.path, connections, None, SystemClock())
    gc.collect()
    gc.disable()  # a collection's pause would be counted as the server's
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(loop.run(islice(cycle(sent), n)))
    finally:
        gc.enable()
    if result.n_ok != n or result.n_degraded:
        told = f"{dict(result.errors)} {dict(result.reasons)} {result.first_error}"
        raise RuntimeError(f"{target.url}: {result.n_failed} failed, {result.n_degraded} degraded: {told}")
    cpu_s = target.cpu_s() - before
    return Load(result.rate_rps(), result.percentile_ms(99), cpu_s * 1e6 / n)


@contextlib.contextmanager
def one_cpu_for_the_client() -> Iterator[None]:
    """This process on the second CPU, what it starts on the first; nothing changes where there is one."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[-1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, set(cpus))


@contextlib.contextmanager
def started(module: str, *arguments: object) -> Iterator[psutil.Process]:
    """A process on the first CPU; it ends with the block."""
    with (scratch() / f"{module}.log").open("ab") as log:
        command = [sys.executable, "-m", module, *(str(one) for one in arguments)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    os.sched_setaffinity(process.pid, {0})  # before it has threads
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextlib.contextmanager
def model_server(world: RedisWorld) -> Iterator[Target]:
    """Ready to answer from fresh features."""
    port, grpc_port = free_port(), free_port()
    arguments = ("--home", world.home.root, "--project", "card-fraud", "--port", port, "--grpc-port", grpc_port)
    with started("tidewheel.apps.model_server", *arguments) as process:
        target = Target(f"http://127.0.0.1:{port}", process, grpc_address=f"127.0.0.1:{grpc_port}")
        wait(lambda: _features_ready(f"{target.url}/v2/models/card-fraud"))
        yield target


@contextlib.contextmanager
def floor_server(world: RedisWorld, redis_port: int) -> Iterator[Target]:
    """The floor over the plain world's published features."""
    port, project = free_port(), feast_project("card-fraud")
    views = [
        [key, project, [feature_field(view, name).hex() for name in names]]
        for key, view, names in published_fields(world)
    ]
    arguments = (port, redis_port, world.bundle / MODEL_ONNX, json.dumps(views))
    with started("benchmarks.floor", *arguments) as process:
        wait(lambda: listens(port))
        yield Target(f"http://127.0.0.1:{port}", process)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait(happened: Callable[[], Any], limit_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not happened():
        if time.monotonic() > deadline:
            raise RuntimeError(f"a server is not ready after {limit_s:g} s; see the logs in {scratch()}")
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _features_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            told = json.load(answer)["parameters"]
    except (OSError, urllib.error.URLError):
        return False
    return told["champion"] is not None and all(state["features_ready"] for state in told["states"].values())
