"""What every online store does: the memory twin and the real one pass the same cases."""

from __future__ import annotations

import hashlib
import multiprocessing
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from memory.online_store import MemoryOnlineStore
from servers.redis import cluster_url, redis_cluster, redis_server, secure_redis_server
from tidewheel.adapters.redis_store import RedisOnlineStore
from tidewheel.adapters.redis_url import parse_redis_url
from tidewheel.adapters.sqlite_file import DamagedStore, set_aside
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.clock import DAY_US
from tidewheel.errors import Unavailable
from tidewheel.features.declaration import StateView
from tidewheel.features.keys import entity_keys
from tidewheel.features.ports import LostWrites, Progress, StateRows

AT_START = Progress(position=3, watermark_us=100, end=5, caught_up_at_us=0, heartbeat_us=7)
LATER = Progress(position=5, watermark_us=200, end=5, caught_up_at_us=9, heartbeat_us=9)


def state(name: str, project: str = "tiny") -> StateView:
    return StateView(
        state_id=hashlib.sha256(f"{project}.{name}".encode()).hexdigest()[:32], kind="windowed", project=project,
        view=name, source="payments", topic="payments", keys=(("customer_id", "int64"),),
        columns=(("amount", "float64"),),
        filters=(), retention_us=DAY_US, published=(("n_1h", "int64"), ("amount_mean_1h", "float64")),
        event_time="at", event_id="id",
    )  # fmt: skip


S, OTHER = state("s"), state("other")


def key(number: int) -> bytes:
    return entity_keys(S.keys, [np.array([number])])[0]


def rows(position: int, **blobs: bytes) -> StateRows:
    """Blobs of entities k1, k2, ... at one position."""
    n = len(blobs)
    return StateRows(
        [key(int(name[1:])) for name in blobs], list(blobs.values()), np.full(n, position, dtype=np.int64),
        np.full(n, 1_000_000, dtype=np.int64), np.tile([1.0, np.nan], (n, 1)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def one_redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def secure_redis(tmp_path_factory):
    with secure_redis_server(tmp_path_factory.mktemp("secure-redis")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


def redis_store(request, kind: str) -> RedisOnlineStore:
    """An empty store of a server that the module's tests share."""
    if kind == "redis-cluster":
        nodes = request.getfixturevalue("cluster")
        for node in nodes:
            node.client().flushall()
        return RedisOnlineStore(parse_redis_url(cluster_url(nodes)))
    server = request.getfixturevalue({"redis": "one_redis", "redis-tls-acl": "secure_redis"}[kind])
    server.client().flushall()
    return RedisOnlineStore(parse_redis_url(server.url), server.password)


REDIS = [pytest.param(kind, marks=pytest.mark.integration) for kind in ("redis", "redis-tls-acl", "redis-cluster")]


@pytest.fixture(params=["memory", "sqlite", *REDIS])
def store(request, tmp_path):
    if request.param == "memory":
        made = MemoryOnlineStore()
    elif request.param == "sqlite":
        made = SqliteOnlineStore(tmp_path / "online.db")
    else:
        made = redis_store(request, request.param)
    yield made
    made.close()


def read(store, wanted: StateView, *numbers: int) -> list[bytes | None]:
    (found,) = store.read([(wanted, [key(number) for number in numbers])])
    return found


def test_nothing_is_known_of_a_state_that_was_never_written(store):
    assert read(store, S, 1) == [None]
    assert store.progress([S]) == {}


def test_blobs_come_back_in_the_order_asked(store):
    store.write(S, 0, rows(1, k1=b"1", k2=b"2"), AT_START)
    store.write(OTHER, 0, rows(1, k1=b"3"), AT_START)
    wanted = [(OTHER, [key(1)]), (S, [key(2), key(9), key(1), key(2)])]
    assert store.read(wanted) == [[b"3"], [b"2", None, b"1", b"2"]]


def test_many_blobs_come_back_in_the_order_asked(store):
    store.write(S, 0, rows(1, **{f"k{n}": b"s%d" % n for n in range(0, 1400, 2)}), AT_START)
    asked = [*range(700), *range(1399, 3, -1)]
    wanted = [b"s%d" % n if n % 2 == 0 else None for n in asked]
    assert store.read([(S, [key(n) for n in asked])]) == [wanted]


def test_a_write_replaces_blobs_and_progress_and_keeps_the_rest(store):
    store.write(S, 0, rows(3, k1=b"1", k2=b"2"), AT_START)
    store.write(S, 0, rows(5, k2=b"new"), LATER)
    assert read(store, S, 1, 2) == [b"1", b"new"]
    assert store.progress([S, OTHER]) == {S.state_id: {0: LATER}}


def test_a_row_that_includes_less_than_what_is_stored_changes_nothing(store):
    store.write(S, 0, rows(5, k1=b"newer"), LATER)
    store.write(S, 0, rows(3, k1=b"older", k2=b"2"), AT_START)
    assert read(store, S, 1, 2) == [b"newer", b"2"]
    assert store.progress([S]) == {S.state_id: {0: LATER}}


def test_a_row_at_the_position_that_is_stored_changes_nothing(store):
    store.write(S, 0, rows(5, k1=b"first"), LATER)
    store.write(S, 0, rows(5, k1=b"again"), LATER)
    assert read(store, S, 1) == [b"first"]


def test_partitions_have_progress_of_their_own(store):
    store.write(S, 0, rows(3, k1=b"1"), AT_START)
    store.write(S, 7, rows(5, k2=b"2"), LATER)
    assert store.progress([S]) == {S.state_id: {0: AT_START, 7: LATER}}


def test_a_heartbeat_is_a_write_without_rows(store):
    store.write(S, 0, rows(1), LATER)
    assert store.progress([S]) == {S.state_id: {0: LATER}}
    assert read(store, S, 1) == [None]


def test_a_state_seen_before_it_was_made_is_read_after(store):
    assert read(store, S, 1) == [None]
    store.write(S, 0, rows(1, k1=b"1"), AT_START)
    assert read(store, S, 1) == [b"1"]


def test_binary_blobs_are_kept(store):
    store.write(S, 0, rows(1, k1=b"\x00\xff", k2=b"\x00" * 300), AT_START)
    assert read(store, S, 1, 2) == [b"\x00\xff", b"\x00" * 300]


def test_a_failed_write_leaves_neither_rows_nor_progress(store):
    store.write(S, 0, rows(1, k1=b"1"), AT_START)
    with pytest.raises((Unavailable, TypeError)):
        store.write(S, 0, rows(2, k1=b"2", k2=object()), LATER)  # type: ignore[arg-type]
    assert read(store, S, 1, 2) == [b"1", None]
    assert store.progress([S]) == {S.state_id: {0: AT_START}}


def test_states_that_nothing_needs_are_removed_and_other_projects_keep_theirs(store):
    elsewhere = state("s", "another")
    for one in (S, OTHER, elsewhere):
        store.write(one, 0, rows(1, k1=b"1"), AT_START)
    assert store.keep_only("tiny", [OTHER]) == [S.feast_view]
    assert [read(store, one, 1) for one in (S, OTHER, elsewhere)] == [[None], [b"1"], [b"1"]]
    assert S.state_id not in store.progress([S, OTHER, elsewhere])
    assert store.keep_only("tiny", [OTHER]) == []


def test_a_sqlite_file_that_forgot_what_it_told_takes_nothing_that_was_made_from_it(tmp_path):
    path = tmp_path / "online.db"
    store, old = SqliteOnlineStore(path), tmp_path / "old.db"
    store.write(S, 0, rows(3, k1=b"1"), AT_START)
    with sqlite3.connect(path) as source, sqlite3.connect(old) as copy:
        source.backup(copy)
    store.write(S, 0, rows(5, k1=b"2"), LATER)
    with sqlite3.connect(old) as source, sqlite3.connect(path) as copy:
        source.backup(copy)  # somebody puts an old copy back
    with pytest.raises(LostWrites, match=r"online\.db: the online store has lost writes"):
        store.write(S, 0, rows(7, k1=b"3", k2=b"3"), Progress(7, 200, 7, 9, 9))
    assert (read(store, S, 1, 2), store.progress([S])) == ([b"1", None], {S.state_id: {0: AT_START}})
    store.write(S, 0, rows(5, k1=b"2"), LATER)
    assert read(store, S, 1) == [b"2"]
    store.close()


def _write_many(path: Path, name: str, n: int) -> None:
    store = SqliteOnlineStore(path)
    for i in range(n):
        store.write(state(name), 0, rows(i + 1, k1=str(i).encode()), Progress(i, 0, n, 0, 0))
    store.close()


def test_sqlite_is_shared_by_processes(tmp_path):
    path = tmp_path / "online.db"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, name, 200)) for name in ("x", "y")]
    for writer in writers:
        writer.start()
    store = SqliteOnlineStore(path)
    pairs = []
    while any(writer.is_alive() for writer in writers):
        (value,) = read(store, state("x"), 1)
        pairs.append(int(value) if value else -1)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert pairs == sorted(pairs)
    assert store.read([(state("x"), [key(1)]), (state("y"), [key(1)])]) == [[b"199"], [b"199"]]
    store.close()


def test_a_new_sqlite_file_that_another_process_is_making_is_waited_for(tmp_path):
    path = tmp_path / "online.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    opened = []
    opening = threading.Thread(target=lambda: opened.append(SqliteOnlineStore(path)), daemon=True)
    opening.start()
    opening.join(0.3)
    assert opening.is_alive()
    other.execute("COMMIT")
    opening.join(5)
    (store,) = opened
    assert store.progress([state("x")]) == {}
    store.close()
    other.close()


def test_sqlite_says_which_file_fails(tmp_path):
    path = tmp_path / "online.db"
    path.write_bytes(b"not a database at all, and longer than a header of one hundred bytes" * 4)
    with pytest.raises(Unavailable, match=r"online\.db: the online store is damaged"):
        SqliteOnlineStore(path)


def test_a_damaged_sqlite_file_is_set_aside_and_readers_find_the_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tidewheel.adapters.sqlite_store.LOOK_EVERY_S", 0.0)
    path = tmp_path / "online.db"
    for _ in range(2):
        reader, writer = SqliteOnlineStore(path), SqliteOnlineStore(path)
        writer.write(S, 0, rows(3, k1=b"old"), LATER)
        assert read(reader, S, 1) == [b"old"]
        kept = set_aside(path)
        fresh = SqliteOnlineStore(path)
        fresh.write(S, 0, rows(1, k1=b"new"), AT_START)
        writer.close()  # must not take the new file's write-ahead log with it
        assert read(reader, S, 1) == [b"new"]
        reader.close()
        fresh.close()
        again = SqliteOnlineStore(path)
        assert read(again, S, 1) == [b"new"]
        again.close()
        assert kept.is_file()


def test_a_sqlite_file_that_is_damaged_while_it_is_open_is_named(tmp_path):
    path = tmp_path / "online.db"
    store = SqliteOnlineStore(path)
    store.write(S, 0, rows(3, **{f"k{n}": bytes(3000) for n in range(1, 200)}), AT_START)
    store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(DamagedStore) as caught:
        damaged = SqliteOnlineStore(path)
        damaged.read([(S, [key(n) for n in range(1, 200)])])
    assert caught.value.path == path
    set_aside(path)
    store = SqliteOnlineStore(path)
    assert (read(store, S, 1), store.progress([S])) == ([None], {})
    store.close()
