"""More requests than can be answered: goodput (replies of the model within the deadline), and how soon all is well again.

Ours against KServe: once with a model of 10 ms, which both run off their event loop and KServe's server is given whole
rows for, and once with the fast one behind KServe's stack. An open loop sends a multiple of the peak, then half of it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

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
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.serving.client import OpenLoop

MODEL_MS = 10.0
CLOSED, CONNECTIONS = (4, 16, 64), 256  # of the closed loops that find the peak, and of the open one
WELL, BIN_S = 0.99, 0.25  # all is well in the first quarter of a second in which so many are answered in time
LATE_CLIENT_MS = 2.0
# Rounds, seconds of a closed loop, of overload and of what follows it.
SIZES = {"full": (3, 3.0, 4.0, 12.0), "tiny": (1, 0.5, 0.5, 1.0)}


@dataclass
class Recorded:
    """``began_us`` of the loop; moments and latencies of the model's replies, and how late the client was."""

    began_us: int = 0
    sent_us: list[int] = field(default_factory=list)
    latencies_us: list[int] = field(default_factory=list)
    client_lag_ms: float = 0.0


@dataclass(frozen=True)
class Figures:
    """``goodput_rps`` while there were too many; ``p99_ms`` of the model's replies to them."""

    goodput_rps: float
    p99_ms: float
    recovery_s: float
    client_lag_ms: float


@dataclass(frozen=True)
class Side:
    target: Target
    bodies: list[bytes]
    loop: type[OpenLoop] | partial[OpenLoop]


def run(size: str) -> list[Line]:
    """Lines by model and multiple of the peak."""
    lines: list[Line] = []
    try:
        with redis_for_benchmarks() as url, one_cpu_for_the_client():
            world = redis_world("plain", size, url)
            for what, multiples, serve in ((f"{MODEL_MS:g} ms model", (2, 5), _slow), ("fast model", (2,), _fast)):
                with contextlib.ExitStack() as stack:
                    found = tried(f"overload, {what}:", lambda: serve(world, size, stack))  # noqa: B023
                    if found is not None:
                        ours, peer = found
                        lines += _compared(what, multiples, ours, peer, world.project.serving.deadline_us, size)
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
    what: str, multiples: tuple[int, ...], ours: Target, peer: Peer, deadline_us: int, size: str
) -> list[Line]:
    rounds, closed_s, over_s, after_s = SIZES[size]
    return _lines(
        what, multiples, {OURS: (ours, _world_bodies(ours)), "peer": (peer.rest, peer.bodies)}, peer.told, deadline_us,
        rounds, closed_s, over_s, after_s,
    )  # fmt: skip
