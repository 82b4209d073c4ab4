"""The model server end to end on loopback, all checks, logging and metrics on, against the floor (floor.py).

Real processes: a model server, the stream worker that built the online state and keeps it fresh, the floor, and the
load generator in this one. Closed loop: each connection sends its next request when it has its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import uvloop

from benchmarks.grpc_load import closed_loop, messages
from benchmarks.lines import Line
from benchmarks.world import ROOT, TrainedWorld, scratch, trained
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.bundle.files import MODEL_ONNX
from tidewheel.clock import SystemClock
from tidewheel.features.reader import FeatureReader
from tidewheel.features.rows import request_arrays
from tidewheel.features.vector import model_input
from tidewheel.serving.client import OpenLoop
from tidewheel.serving.rows import bodies

REACH = 0.7
WAIT_S = 60.0
SIZES = {"full": (5, {1: 3_000, 32: 12_000}), "tiny": (1, {1: 20, 4: 50})}  # rounds, requests by connections
FLOOR_OUT = "the floor: no check, window, log or metric"


@dataclass(frozen=True)
class Load:
    """Of one round: requests a second, 99th percentile in ms, CPU microseconds of the server per request."""

    rate_rps: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True)
class Target:
    """A server under load."""

    url: str
    process: psutil.Process
    path: str = "/v2/models/card-fraud/infer"
    grpc_address: str = ""


def run(size: str) -> list[Line]:
    """Lines by number of connections. Raises RuntimeError where a request fails or is answered by the ladder."""
    rounds, requests = SIZES[size]
    world = trained(size)
    sent = list(bodies(world.requests, world.project))
    called = messages(world.project.name, sent)
    lines: list[Line] = []
    with servers(world) as (ours, floor):
        for target in (ours, floor):
            _load(target, 4, sent, len(sent) // 4)
        for connections, n in requests.items():
            seen: dict[str, list[Load]] = {"ours": [], "floor": [], "grpc": []}
            for _ in range(rounds):
                seen["ours"].append(_load(ours, connections, sent, n))
                seen["floor"].append(_load(floor, connections, sent, n))
                seen["grpc"].append(_grpc_load(ours, connections, called, n))
            lines += _lines(connections, rounds, seen["ours"], seen["floor"])
            lines += _grpc_lines(connections, rounds, seen["grpc"], seen["ours"])
    return lines


def _lines(connections: int, rounds: int, ours: list[Load], floor: list[Load]) -> list[Line]:
    def both(figure: Callable[[Load], float]) -> tuple[float, float]:
        return median(figure(load) for load in ours), median(figure(load) for load in floor)

    what = f"model server, {connections} connection{'s' if connections > 1 else ''}"
    rates, tails, cpu = both(lambda one: one.rate_rps), both(lambda one: one.p99_ms), both(lambda one: one.cpu_us)
    return [
        Line(f"{what}: rate", FLOOR_OUT, *rates, "requests/s", rounds, higher_is_better=True, reach=REACH),
        Line(f"{what}: p99", FLOOR_OUT, *tails, "ms", rounds),
        Line(f"{what}: server CPU", FLOOR_OUT, *cpu, "us/request", rounds),
    ]


def _grpc_lines(connections: int, rounds: int, grpc: list[Load], rest: list[Load]) -> list[Line]:
    what = f"gRPC, {connections} connection{'s' if connections > 1 else ''}"
    against, note = "REST of the same server", "the client of gRPC costs as much as the server"
    rates = median(one.rate_rps for one in grpc), median(one.rate_rps for one in rest)
    cpu = median(one.cpu_us for one in grpc), median(one.cpu_us for one in rest)
    tails = median(one.p99_ms for one in grpc), median(one.p99_ms for one in rest)
    return [
        Line(f"{what}: rate", against, *rates, "requests/s", rounds, higher_is_better=True, note=note),
        Line(f"{what}: p99", against, *tails, "ms", rounds),
        Line(f"{what}: server CPU", against, *cpu, "us/request", rounds),
    ]


def _grpc_load(target: Target, connections: int, sent: list[bytes], n: int) -> Load:
    before = sum(target.process.cpu_times()[:2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rate_rps, p99_ms = runner.run(closed_loop(target.grpc_address, connections, sent, n))
    cpu_s = sum(target.process.cpu_times()[:2]) - before
    return Load(rate_rps, p99_ms, cpu_s * 1e6 / n)


def _load(target: Target, connections: int, sent: list[bytes], n: int) -> Load:
    before = sum(target.process.cpu_times()[:2])
    loop = OpenLoop(target.url, target.path, connections, None, SystemClock())
    gc.collect()
    gc.disable()  # a collection's pause would be counted as the server's
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(loop.run(islice(cycle(sent), n)))
    finally:
        gc.enable()
    if result.n_ok != n or result.n_degraded:
        raise RuntimeError(f"{target.url}: {result.n_failed} failed, {result.n_degraded} degraded, {result.reasons}")
    cpu_s = sum(target.process.cpu_times()[:2]) - before
    return Load(result.rate_rps(), result.percentile_ms(99), cpu_s * 1e6 / n)


@contextlib.contextmanager
def servers(world: TrainedWorld) -> Iterator[tuple[Target, Target]]:
    """The model server and the floor, ready; both end with the block."""
    started: list[subprocess.Popen[bytes]] = []

    def start(module: str, *arguments: object) -> psutil.Process:
        with (scratch() / f"{module}.log").open("ab") as log:
            command = [sys.executable, "-m", module, *(str(one) for one in arguments)]
            started.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
        return psutil.Process(started[-1].pid)

    try:
        home = world.home.root
        start("tidewheel.apps.stream_worker", "--home", home)
        port, floor_port, grpc_port = _free_port(), _free_port(), _free_port()
        process = start(
            "tidewheel.apps.model_server", "--home", home, "--project", world.project.name, "--port", port,
            "--grpc-port", grpc_port,
        )  # fmt: skip
        ours = Target(f"http://127.0.0.1:{port}", process, grpc_address=f"127.0.0.1:{grpc_port}")
        _wait(lambda: _features_ready(f"{ours.url}/v2/models/{world.project.name}"))
        database = scratch() / "floor.db"
        fill_floor(world, database)
        floor_process = start("benchmarks.floor", database, world.bundle / MODEL_ONNX, floor_port)
        floor = Target(f"http://127.0.0.1:{floor_port}", floor_process)
        _wait(lambda: _listens(floor_port))
        yield ours, floor
    finally:
        for process_ in started:
            process_.terminate()
        for process_ in started:
            process_.wait(timeout=30)


def fill_floor(world: TrainedWorld, database: Path) -> None:
    """The vectors of all who ask, made by the reader as of their last request: 13 values by card, the rest by shop."""
    store = SqliteOnlineStore(world.home.online_db)
    arrays = request_arrays(world.requests, world.features)
    t_us = arrays[world.features.request.event_time].view(np.int64)
    vectors = model_input(FeatureReader(world.features, store).read(arrays, t_us).values)
    store.close()
    database.unlink(missing_ok=True)
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    connection.executemany(
        "INSERT OR REPLACE INTO vectors VALUES (?, ?)",
        [
            item
            for card, shop, vector in zip(arrays["customer_id"], arrays["terminal_id"], vectors, strict=True)
            for item in ((b"c%d" % card, vector[:13].tobytes()), (b"t%d" % shop, vector[13:].tobytes()))
        ],
    )
    connection.commit()
    connection.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > deadline:
            raise RuntimeError(f"a server is not ready after {WAIT_S:g} s; see the logs in {scratch()}")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _features_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            told = json.load(answer)["parameters"]
    except (OSError, urllib.error.URLError):
        return False
    return told["champion"] is not None and all(state["features_ready"] for state in told["states"].values())
