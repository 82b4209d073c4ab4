"""What we write the stock Feast SDK reads, and the other way round, in Redis and in SQLite."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from servers.mlflow import free_port
from servers.redis import cluster_url, redis_cluster, redis_server
from tidewheel.adapters.connections import Connections, online_store_at
from tidewheel.adapters.feast_folder import start_writing
from tidewheel.adapters.redis_published import PublishedReader
from tidewheel.adapters.redis_url import parse_redis_url
from tidewheel.clock import DAY_US
from tidewheel.features.declaration import StateView
from tidewheel.features.feast_layout import STATE, decode_bytes, decode_numbers
from tidewheel.features.keys import entity_keys
from tidewheel.features.ports import Progress, StateRows
from waiting import until

feast = pytest.importorskip("feast", reason="feast is not installed; install tidewheel[feast]")

pytestmark = pytest.mark.integration

PROJECT, FEAST = "lay-out", "lay_out"  # Feast takes no hyphens
AT_US = 1_700_000_000_123_456
LATER = datetime(2024, 1, 1, tzinfo=UTC)
KEYS: dict[str, tuple[tuple[str, str], ...]] = {
    "customer": (("customer_id", "int64"),),
    "shop": (("shop", "string"),),
    "pair": (("customer_id", "int64"), ("shop", "string")),
}
ENTITIES: dict[str, list[tuple[Any, ...]]] = {
    "customer": [(1,), (-5,), (2**63 - 1,)],
    "shop": [("a",), ("Käse & Brot 🧀",), ("",)],
    "pair": [(1, "a"), (-(2**63), "日本{}*"), (7, "x" * 300)],
}
VALUES = np.array([[1.5, 3, 1], [-1e300, -7, 0], [np.nan, np.nan, np.nan]])  # double, int, bool


def state(view: str) -> StateView:
    return StateView(
        state_id=hashlib.sha256(view.encode()).hexdigest()[:32], kind="windowed", project=PROJECT, view=view,
        source="payments", topic="payments", keys=KEYS[view], columns=(), filters=(), retention_us=DAY_US,
        published=((f"{view}_mean", "float64"), (f"{view}_n", "int64"), (f"{view}_seen", "bool")), event_time="at",
        event_id="id",
    )  # fmt: skip


def keys_of(view: str, entities: list[tuple[Any, ...]]) -> list[bytes]:
    columns = zip(*entities, strict=True)
    kinds = [kind for _, kind in KEYS[view]]
    return entity_keys(KEYS[view], [np.array(c, dtype="i8" if k == "int64" else object)
                                    for c, k in zip(columns, kinds, strict=True)])  # fmt: skip


def blob(view: str, nth: int) -> bytes:
    return f"{view} {nth}".encode() * (1 + 100 * nth)


@dataclass
class World:
    url: str
    online_db: Path
    folder: Path

    def client(self) -> Any:
        return feast.FeatureStore(repo_path=str(self.folder))

    def stored(self, view: str, entities: list[tuple[Any, ...]]) -> np.ndarray:
        """Published numbers [n, k] by our own code."""
        of = state(view)
        if self.url.startswith("redis"):
            features = [(of.feast_view, name) for name, _ in of.published]
            reader = PublishedReader(parse_redis_url(self.url), PROJECT, features)
            found = reader.read([*keys_of(view, entities), b"nobody"])
            reader.close()
            assert np.isnan(found.values[-1]).all()
            assert [time >= AT_US for (time,) in found.times_us] == [True] * len(entities) + [False]
            return found.values[:-1]
        query = f'SELECT value FROM "{FEAST}_{of.feast_view}" WHERE entity_key = ? AND feature_name = ?'
        with sqlite3.connect(self.online_db) as connection:
            found = [
                (connection.execute(query, (key, name)).fetchone() or (None,))[0]
                for key in keys_of(view, entities) for name, _ in of.published
            ]  # fmt: skip
        return decode_numbers(found).reshape(len(entities), len(of.published))


@pytest.fixture(scope="module")
def one_redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="module", params=["sqlite", "redis", "redis-cluster"])
def world(request, tmp_path_factory) -> World:
    """A store that our code filled, and a registry as `tidewheel apply` writes it."""
    root = tmp_path_factory.mktemp(request.param)
    online_db = root / "online.db"
    url = f"sqlite:{online_db}"
    if request.param == "redis":
        url = request.getfixturevalue("one_redis").url
    elif request.param == "redis-cluster":
        url = cluster_url(request.getfixturevalue("cluster"))
    store = online_store_at(url, online_db)
    for view in KEYS:
        blobs = [blob(view, nth) for nth in range(3)]
        rows = StateRows(keys_of(view, ENTITIES[view]), blobs, np.arange(1, 4), np.full(3, AT_US), VALUES)
        store.write(state(view), 0, rows, Progress(4, AT_US, 4, 1, 1))
    store.close()
    writing = start_writing(root / "feast", definitions(root), Connections(online_store=url), online_db)
    assert writing is not None
    assert writing.finish() == ""
    return World(url, online_db, root / "feast")


def definitions(root: Path) -> dict[str, Any]:
    return {
        "project": FEAST, "owner": "payments-risk", "description": "",
        "entities": [{"name": "customer_id", "type": "int64"}, {"name": "shop", "type": "string"}],
        "sources": [{"name": "payments", "path": str(root / "lake" / "payments"), "event_time": "at"}],
        "views": [
            {"name": state(view).feast_view, "source": "payments", "keys": [list(key) for key in KEYS[view]],
             "features": [*map(list, state(view).published), [STATE, "bytes"]], "ttl_s": 86_400,
             "owner": "payments-risk", "description": "", "tags": {"managed_by": "tidewheel", "view": view}}
            for view in KEYS
        ],
        "service": {"name": FEAST, "views": [state(view).feast_view for view in KEYS]},
    }  # fmt: skip


def entity_rows(view: str, entities: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip([name for name, _ in KEYS[view]], entity, strict=True)) for entity in entities]


@pytest.mark.parametrize("view", KEYS)
def test_the_sdk_reads_what_we_wrote(world: World, view: str):
    features = [f"{state(view).feast_view}:{name}" for name, _ in state(view).published]
    told = world.client().get_online_features(features, entity_rows(view, ENTITIES[view])).to_dict()
    assert told[f"{view}_mean"] == [1.5, -1e300, None]
    assert told[f"{view}_n"] == [3, -7, None]
    assert told[f"{view}_seen"] == [True, False, None]


def test_the_sdk_knows_the_time_of_what_we_wrote(world: World):
    of = state("customer")
    told = world.client().get_online_features([f"{of.feast_view}:customer_n"], [{"customer_id": 1}])
    time = told.proto.results[1].event_timestamps[0]
    # SQLite keeps whole seconds.
    expected = AT_US if world.url.startswith("redis") else AT_US // 1_000_000 * 1_000_000
    assert time.seconds * 1_000_000 + time.nanos // 1000 == expected


def test_the_sdk_hands_out_a_state_as_it_is(world: World):
    of = state("pair")
    told = world.client().get_online_features([f"{of.feast_view}:{STATE}"], entity_rows("pair", ENTITIES["pair"]))
    assert told.to_dict()[STATE] == [blob("pair", nth) for nth in range(3)]


def test_the_project_service_gives_all_published_features_and_no_state(world: World):
    client = world.client()
    service = client.get_feature_service(FEAST)
    told = client.get_online_features(service, [{"customer_id": 1, "shop": "a"}]).to_dict()
    names = {f"{view}_{what}" for view in KEYS for what in ("mean", "n", "seen")}
    assert told.keys() == {"customer_id", "shop", *names}
    assert [told[f"{view}_n"] for view in KEYS] == [[3], [3], [3]]


def test_an_entity_that_nobody_wrote_has_no_values(world: World):
    features = [f"{state('shop').feast_view}:shop_n"]
    assert world.client().get_online_features(features, [{"shop": "unknown"}]).to_dict()["shop_n"] == [None]


@pytest.mark.parametrize("view", KEYS)
def test_we_read_what_the_sdk_wrote(world: World, view: str):
    more = {"customer": [(11,), (-12,)], "shop": [("z",), ("ÿ",)], "pair": [(11, "z"), (-12, "ÿ")]}[view]
    frame = pd.DataFrame(entity_rows(view, more))
    frame[f"{view}_mean"], frame[f"{view}_n"], frame[f"{view}_seen"] = [0.25, -0.5], [2**40, -3], [True, False]
    frame[STATE], frame["at"] = [b"1", b"2" * 200], pd.Timestamp(LATER)
    world.client().write_to_online_store(state(view).feast_view, frame)
    assert world.stored(view, more).tolist() == [[0.25, 2**40, 1], [-0.5, -3, 0]]
    store = online_store_at(world.url, world.online_db)
    assert store.read([(state(view), keys_of(view, more))]) == [[b"1", b"2" * 200]]
    store.close()
    assert np.array_equal(world.stored(view, ENTITIES[view]), VALUES, equal_nan=True)


def test_an_entity_that_the_sdk_wrote_first_is_ours_to_write(world: World):
    frame = pd.DataFrame({"customer_id": [77], "customer_mean": [1.0], "customer_n": [1], "customer_seen": [True],
                          STATE: [b"theirs"], "at": [pd.Timestamp(LATER)]})  # fmt: skip
    world.client().write_to_online_store(state("customer").feast_view, frame)
    store = online_store_at(world.url, world.online_db)
    rows = StateRows(keys_of("customer", [(77,)]), [b"ours"], np.ones(1, dtype="i8"), np.full(1, AT_US), VALUES[:1])
    store.write(state("customer"), 0, rows, Progress(4, AT_US, 4, 1, 1))
    assert store.read([(state("customer"), keys_of("customer", [(77,)]))]) == [[b"ours"]]
    assert world.stored("customer", [(77,)]).tolist() == [[1.5, 3, 1]]
    store.close()


def test_every_field_in_redis_is_one_that_the_layout_names(world: World, request: pytest.FixtureRequest):
    if not world.url.startswith("redis:"):
        pytest.skip("SQLite has columns instead, and a cluster the same hashes")
    client = request.getfixturevalue("one_redis").client()
    (key,) = keys_of("customer", ENTITIES["customer"][:1])
    found = client.hgetall(key + FEAST.encode())
    named = [field for field in found if field.startswith((b"_ts:", b"_o:"))]
    assert sorted(named) == sorted([b"_ts:" + state("customer").feast_view.encode(),
                                    b"_o:" + state("customer").feast_view.encode()])  # fmt: skip
    assert len(found) == len(state("customer").published) + 1 + len(named)
    assert [decode_bytes(value) for value in found.values() if value[:1] == b"\x0a"] == [blob("customer", 0)]


def test_the_stock_feature_server_answers_from_the_same_store(world: World, tmp_path: Path):
    port = free_port()
    command = [str(Path(sys.executable).with_name("feast")), "-c", str(world.folder), "serve", "--host", "127.0.0.1",
               "--port", str(port), "--no-access-log", "--max-requests", "0"]  # fmt: skip
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:

            def is_up() -> bool:
                assert server.poll() is None, (tmp_path / "serve.log").read_text()[-2000:]
                try:
                    return client.get("/health").status_code == 200
                except httpx.TransportError:
                    return False

            until(is_up, limit_s=120)
            body = {"feature_service": FEAST, "entities": {"customer_id": [1, -5], "shop": ["a", "a"]}}
            told = client.post("/get-online-features", json=body)
            assert told.status_code == 200, told.text
            answer = json.loads(told.text)
        results = zip(answer["metadata"]["feature_names"], answer["results"], strict=True)
        values = {name: result["values"] for name, result in results}
        assert (values["customer_mean"], values["customer_n"], values["pair_n"]) == ([1.5, -1e300], [3, -7], [3, None])
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=10)
