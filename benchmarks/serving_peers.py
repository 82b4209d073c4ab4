"""The model server beside what others serve with: KServe's stack, MLServer and BentoML (peer_servers.py).

Same Redis, same finished values, same trees; servers share one CPU, the client has the other; closed loop, rounds in
turn. A peer is timed only where it gives the scores that ours gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import urllib.request
from collections.abc import Callable
from statistics import median
from typing import Any

import grpc
import grpc.aio
import msgspec

from benchmarks.grpc_load import INFER, messages
from benchmarks.lines import Line
from benchmarks.peer_servers import PEERS, Peer, entity_ids, feast_read, score_of_outputs
from benchmarks.redis_world import RedisWorld, redis_for_benchmarks, redis_world
from benchmarks.serving import Load, Target, grpc_load, lines_of, load, many, model_server, one_cpu_for_the_client
from tidewheel.serving.proto import open_inference_pb2 as pb

SAME = 1e-5
N_COMPARED = 20
OURS = "ours"
ROUNDS = {"full": 5, "tiny": 1}
# Requests of a round by connections: ours, ours over gRPC, a peer.
REQUESTS = {
    "full": {1: (2_000, 1_000, 300), 8: (6_000, 2_000, 600), 32: (12_000, 3_000, 900)},
    "tiny": {1: (20, 20, 10), 4: (50, 50, 20)},
}
# Times better than KServe's stack (rate, p99), than the better of the other two, and over gRPC.
KSERVE_REACH = {1: (12.0, 10.0), 8: (50.0, 100.0), 32: (80.0, 100.0)}
BETTER_REACH = {8: 5.0, 32: 5.0}
GRPC_REACH = 3.0
# Of KServe's stack when the targets were set: requests a second, and p99 in ms by connections.
BEFORE_RPS, BEFORE_P99_MS, CLOSE = (124.0, 143.0), {1: 15.0, 32: 962.0}, 0.2


def run(size: str) -> list[Line]:
    """Lines by number of connections and peer; whoever cannot be compared is named on standard error."""
    try:
        with redis_for_benchmarks() as url, one_cpu_for_the_client(), contextlib.ExitStack() as stack:
            world = redis_world("plain", size, url)
            ours = stack.enter_context(model_server(world))
            read = feast_read(world)
            peers = {}
            for name, serve in PEERS.items():
                with contextlib.ExitStack() as mine:
                    peer = tried(name, lambda: started_alike(world, ours, mine.enter_context(serve(world, read))))  # noqa: B023
                    if peer is not None:
                        peers[name] = peer
                        stack.push(mine.pop_all())
            if not peers:
                return []
            return [line for connections, n in REQUESTS[size].items() for line in _compared(
                world, ours, peers, connections, ROUNDS[size], n)]  # fmt: skip
    except RuntimeError as error:
        if "redis-server is not installed" not in str(error):
            raise
        sys.stderr.write(f"serving_peers: left out, {error}\n")
        return []


def tried(name: str, work: Callable[[], Any]) -> Any:
    """What ``work`` gives; None where it fails, which is said: one's trouble does not end the others' run."""
    try:
        return work()
    except Exception as error:
        sys.stderr.write(f"{name}: left out, {type(error).__name__}: {error}\n")
        return None


def started_alike(world: RedisWorld, ours: Target, peer: Peer) -> Peer:
    """The peer. Raises RuntimeError where a score differs from ours."""
    wanted = [score_of_outputs(_asked(ours, body)) for body in world.bodies[:N_COMPARED]]
    got = {"REST": [peer.score(_asked(peer.rest, body)) for body in peer.bodies[:N_COMPARED]]}
    if peer.grpc is not None:
        got["gRPC"] = asyncio.run(_asked_by_grpc(peer.grpc.grpc_address, grpc_bodies(world)[:N_COMPARED]))
    for protocol, scores in got.items():
        worst = max(abs(a - b) for a, b in zip(wanted, scores, strict=True))
        if not worst <= SAME:
            raise RuntimeError(f"its scores by {protocol} differ from ours by up to {worst:g}")
    return peer


def grpc_bodies(world: RedisWorld) -> list[bytes]:
    """The entities of each request, as messages of the Open Inference Protocol."""
    return messages("card-fraud", [
        msgspec.json.encode({"inputs": [
            {"name": name, "shape": [1], "datatype": "INT64", "data": [value]}
            for name, value in zip(("customer_id", "terminal_id"), ids, strict=True)
        ]})
        for ids in entity_ids(world)
    ])  # fmt: skip


def _asked(target: Target, body: bytes) -> bytes:
    request = urllib.request.Request(
        f"{target.url}{target.path}", data=body, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


async def _asked_by_grpc(address: str, sent: list[bytes]) -> list[float]:
    """The first value of each reply, which typed or raw contents hold."""
    async with grpc.aio.insecure_channel(address) as channel:
        infer, scores = channel.unary_unary(INFER), []
        for message in sent:
            reply = pb.ModelInferResponse.FromString(await infer(message, timeout=30))
            contents = reply.outputs[0].contents
            scores += [*contents.fp32_contents, *contents.fp64_contents][:1]
    return scores


def _compared(
    world: RedisWorld, ours: Target, peers: dict[str, Peer], connections: int, rounds: int, n: tuple[int, int, int]
) -> list[Line]:
    n_ours, n_grpc, n_peer = n
    ids, called = grpc_bodies(world), messages("card-fraud", world.bodies)
    works: dict[tuple[str, str], Callable[[int], Load]] = {
        (OURS, "REST"): lambda share: load(ours, connections, world.bodies, n_ours // share),
        (OURS, "gRPC"): lambda share: grpc_load(ours, connections, called, n_grpc // share),
    }
    for name, peer in peers.items():
        works[name, "REST"] = lambda share, peer=peer: load(peer.rest, connections, peer.bodies, n_peer // share)
        if peer.grpc is not None:
            target = peer.grpc
            works[name, "gRPC"] = lambda share, target=target: grpc_load(target, connections, ids, n_peer // share)
    seen: dict[tuple[str, str], list[Load]] = {key: [] for key in works}
    for round_no in range(rounds + 1):
        for key, work in works.items():
            got = tried(f"{' '.join(key)} at {many(connections)}", lambda: work(1 if round_no else 4))  # noqa: B023
            if got is not None and round_no:  # the first one warms up
                seen[key].append(got)
    return _lines(peers, {key: loads for key, loads in seen.items() if loads}, connections)


def _lines(peers: dict[str, Peer], seen: dict[tuple[str, str], list[Load]], connections: int) -> list[Line]:
    lines = []
    others = [name for name in ("mlserver", "bentoml") if (name, "REST") in seen]
    better = max(others, key=lambda name: median(one.rate_rps for one in seen[name, "REST"]), default="")
    for (name, protocol), loads in seen.items():
        if name == OURS or (OURS, protocol) not in seen:
            continue
        reach, tail_reach, notes = None, None, ("", "")
        if protocol == "gRPC":
            reach = GRPC_REACH
        elif name == "kserve":
            reach, tail_reach = KSERVE_REACH.get(connections, (None, None))
            notes = _notes(connections, loads)
        elif name == better:
            reach = BETTER_REACH.get(connections)
        what = f"{protocol}, {many(connections)}"
        mine = seen[OURS, protocol]
        n = min(len(mine), len(loads))  # a round that failed was named and is left out
        lines += lines_of(what, peers[name].told, n, mine, loads, reach, tail_reach, notes)
    return lines


def _notes(connections: int, loads: list[Load]) -> tuple[str, str]:
    """Whether KServe's stack is as it was when the targets were set, within 20 %."""
    low, high = BEFORE_RPS
    rate_rps, p99_ms = median(one.rate_rps for one in loads), median(one.p99_ms for one in loads)
    rate_told = f"peer was {low:g} to {high:g}, {_close(rate_rps, low, high)}"
    before_ms = BEFORE_P99_MS.get(connections)
    return rate_told, "" if before_ms is None else f"peer was {before_ms:g}, {_close(p99_ms, before_ms, before_ms)}"


def _close(now: float, low: float, high: float) -> str:
    return "is within 20 %" if low * (1 - CLOSE) <= now <= high * (1 + CLOSE) else "is not within 20 %"
