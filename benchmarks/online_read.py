"""Features of entities from Redis: our readers, Feast's own client and one bare HMGET, on the same hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import redis

from benchmarks.lines import Line
from benchmarks.measure import call_medians_us
from benchmarks.world import ROOT, scratch
from tidewheel.adapters.connections import Connections
from tidewheel.adapters.feast_folder import start_writing
from tidewheel.adapters.redis_published import PublishedReader
from tidewheel.adapters.redis_servers import OneServer
from tidewheel.adapters.redis_store import RedisOnlineStore
from tidewheel.adapters.redis_url import parse_redis_url
from tidewheel.clock import DAY_US
from tidewheel.features.declaration import StateView
from tidewheel.features.feast_layout import STATE, feature_field, time_field
from tidewheel.features.keys import entity_keys
from tidewheel.features.ports import Progress, StateRows

PROJECT, KEY = "bench", (("customer", "int64"),)
WIDTHS = (17, 17, 16)  # 50 features in 3 views
N_ENTITIES, BATCH = 2000, 100
BLOB_BYTES = 2048
CALLS = {"full": (20, 200, 20), "tiny": (1, 5, 2)}  # rounds, calls of one entity, calls of a batch
REACH, BARE_REACH = 8.0, 1 / 1.3


def run(size: str) -> list[Line]:
    """Lines for one entity and for a batch; equal values are part of the note."""
    if shutil.which("redis-server") is None:
        sys.stderr.write("online_read: left out, redis-server is not installed\n")
        return []
    sys.path.insert(0, str(ROOT / "tests"))
    from servers.redis import redis_server

    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        # Client and server share a CPU: the work of both is compared, not how long the machine takes to wake another
        # CPU up, which comes and goes and is the larger part of a read on an idle virtual machine.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        server = stack.enter_context(redis_server(scratch() / "redis"))
        store = RedisOnlineStore(parse_redis_url(server.url))
        stack.callback(store.close)
        _fill(store)
        return _lines(size, server.url, server.port, store)


def _states() -> list[StateView]:
    return [
        StateView(
            state_id=hashlib.sha256(b"%d" % number).hexdigest()[:32], kind="windowed", project=PROJECT,
            view=f"view{number}", source="events", topic="events", keys=KEY, columns=(), filters=(),
            retention_us=DAY_US, published=tuple((f"v{number}_f{index}", "float64") for index in range(width)),
            event_time="at", event_id="id",
        )
        for number, width in enumerate(WIDTHS)
    ]  # fmt: skip


def _fill(store: RedisOnlineStore) -> None:
    random = np.random.default_rng(7)
    ids = np.arange(N_ENTITIES)
    for state in _states():
        rows = StateRows(
            entity_keys(KEY, [ids]), [random.bytes(BLOB_BYTES) for _ in ids], np.ones(N_ENTITIES, dtype=np.int64),
            np.full(N_ENTITIES, 1_700_000_000_000_000), random.normal(size=(N_ENTITIES, len(state.published))),
        )  # fmt: skip
        store.write(state, 0, rows, Progress(1, 0, 1, 1, 1))


def _lines(size: str, url: str, port: int, store: RedisOnlineStore) -> list[Line]:
    states = _states()
    features = [(state.feast_view, name) for state in states for name, _ in state.published]
    reader = PublishedReader(parse_redis_url(url), PROJECT, features)
    client, server = redis.Redis(port=port), OneServer(parse_redis_url(url), None)
    fields = [feature_field(*feature) for feature in features]
    fields += [time_field(state.feast_view) for state in states]
    feast = _feast(url, states)

    ids = {n: [(np.arange(n) + call * n) % N_ENTITIES for call in range(N_ENTITIES // n)] for n in (1, BATCH)}

    def keys(call: int, n: int) -> list[bytes]:
        return entity_keys(KEY, [ids[n][call % len(ids[n])]])

    def bare(call: int, n: int) -> Any:
        with client.pipeline(transaction=False) as pipe:
            for key in prepared[n][call % len(prepared[n])]:
                pipe.hmget(key, fields)
            return pipe.execute()

    prepared = {
        n: [[key + PROJECT.encode() for key in keys(call, n)] for call in range(N_ENTITIES // n)] for n in (1, BATCH)
    }

    def link(call: int, n: int) -> Any:
        return server.run([(b"HMGET", key, *fields) for key in prepared[n][call % len(prepared[n])]], 1.0)

    def blobs(call: int, n: int) -> Any:
        mine = keys(call, n)
        return store.read([(state, mine) for state in states])

    works: dict[str, Callable[[int, int], Any]] = {
        "published": lambda call, n: reader.read(keys(call, n)).values,
        "bare": bare,
        "link": link,
        "blobs": blobs,
        "feast": feast,
    }
    told = feast(1, BATCH)
    theirs = np.array([told[name] for _, name in features]).T
    same = "equal values" if np.array_equal(works["published"](1, BATCH), theirs) else "VALUES DIFFER"
    rounds, calls, batches = CALLS[size]
    one = call_medians_us(rounds, calls, {name: _sized(work, 1) for name, work in works.items()})
    many = call_medians_us(rounds, batches, {name: _sized(work, BATCH) for name, work in works.items()})
    sdk, hmget = "Feast SDK get_online_features().to_dict()", "redis-py pipelined HMGET, same fields, undecoded"
    lines = []
    measured = (("one entity", one, rounds * calls, 1.0), (f"{BATCH} entities", many, rounds * batches, 1e3))
    for whom, medians, n, scale in measured:
        taken = {name: median / scale for name, median in medians.items()}
        unit, what = ("us" if scale == 1 else "ms"), f"read 50 features in 3 views, {whom}, p50"
        lines += [
            Line(what, sdk, taken["published"], taken["feast"], unit, n, reach=REACH, note=same),
            Line(what, hmget, taken["published"], taken["bare"], unit, n, reach=BARE_REACH if scale == 1 else None),
            Line(what, "our own link's HMGET, same fields, undecoded", taken["published"], taken["link"], unit, n),
            Line(f"read 3 states of {BLOB_BYTES} bytes, {whom}, p50", hmget, taken["blobs"], taken["bare"], unit, n),
        ]
    for one_of in (reader, client, server):
        one_of.close()
    return lines


def _sized(work: Callable[[int, int], Any], n: int) -> Callable[[int], Any]:
    return lambda call: work(call, n)


def _feast(url: str, states: list[StateView]) -> Callable[[int, int], dict[str, list[Any]]]:
    """Feast's own client on the same store, its registry written as ``tidewheel apply`` does."""
    os.environ.pop("TIDEWHEEL_FEAST", None)
    folder = scratch() / "feast"
    writing = start_writing(folder, _definitions(states), Connections(online_store=url), scratch() / "unused.db")
    if writing is not None and (reason := writing.finish()):
        raise RuntimeError(f"Feast's registry: {reason}")
    from feast import FeatureStore

    client = FeatureStore(repo_path=str(folder))
    service = client.get_feature_service(PROJECT)

    def read(call: int, n: int) -> dict[str, list[Any]]:
        rows = [{"customer": (index + call * n) % N_ENTITIES} for index in range(n)]
        told: dict[str, list[Any]] = client.get_online_features(features=service, entity_rows=rows).to_dict()
        return told

    return read


def _definitions(states: list[StateView]) -> dict[str, Any]:
    return {
        "project": PROJECT, "owner": "", "description": "",
        "entities": [{"name": name, "type": kind} for name, kind in KEY],
        "sources": [{"name": "events", "path": str(Path(scratch()) / "events"), "event_time": "at"}],
        "views": [
            {"name": state.feast_view, "source": "events", "keys": [list(key) for key in state.keys],
             "features": [*(list(one) for one in state.published), [STATE, "bytes"]], "ttl_s": 86400, "owner": "",
             "description": "", "tags": {"managed_by": "tidewheel"}}
            for state in states
        ],
        "service": {"name": PROJECT, "views": [state.feast_view for state in states]},
    }  # fmt: skip
