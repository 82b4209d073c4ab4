"""What every online store does: the memory twin and the real one pass the same cases."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from pathlib import Path

import pytest

from memory.online_store import MemoryOnlineStore
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.errors import Unavailable
from tidewheel.features.ports import Progress

AT_START = Progress(position=3, watermark_us=100, end=5, caught_up_at_us=0, heartbeat_us=7)
LATER = Progress(position=5, watermark_us=200, end=5, caught_up_at_us=9, heartbeat_us=9)


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    made = MemoryOnlineStore() if request.param == "memory" else SqliteOnlineStore(tmp_path / "online.db")
    yield made
    made.close()


def test_nothing_is_known_of_a_state_that_was_never_written(store):
    assert store.read([("s", b"a")]) == [None]
    assert store.progress(["s"]) == {}


def test_values_come_back_in_the_order_asked(store):
    store.write("s", {b"a": b"1", b"b": b"2"}, AT_START)
    store.write("other", {b"a": b"3"}, AT_START)
    lookups = [("other", b"a"), ("s", b"b"), ("s", b"missing"), ("s", b"a"), ("s", b"b")]
    assert store.read(lookups) == [b"3", b"2", None, b"1", b"2"]


def test_many_values_come_back_in_the_order_asked(store):
    store.write("s", {b"%d" % n: b"s%d" % n for n in range(0, 1400, 2)}, AT_START)
    store.write("other", {b"%d" % n: b"o%d" % n for n in range(0, 1400, 3)}, AT_START)
    asked = [(state, n) for n in (*range(700), *range(1399, 3, -1)) for state in ("other", "s", "unknown")]
    every = {"s": 2, "other": 3}
    wanted = [
        b"%s%d" % (state[0].encode(), n) if state in every and n % every[state] == 0 else None for state, n in asked
    ]
    assert store.read([(state, b"%d" % n) for state, n in asked]) == wanted


def test_a_write_replaces_items_and_progress_and_keeps_the_rest(store):
    store.write("s", {b"a": b"1", b"b": b"2"}, AT_START)
    store.write("s", {b"b": b"new"}, LATER)
    assert store.read([("s", b"a"), ("s", b"b")]) == [b"1", b"new"]
    assert store.progress(["s", "unknown"]) == {"s": LATER}


def test_a_heartbeat_is_a_write_without_items(store):
    store.write("s", {}, LATER)
    assert store.progress(["s"]) == {"s": LATER}
    assert store.read([("s", b"a")]) == [None]


def test_a_state_seen_before_it_was_made_is_read_after(store):
    assert store.read([("s", b"a")]) == [None]
    store.write("s", {b"a": b"1"}, AT_START)
    assert store.read([("s", b"a")]) == [b"1"]


def test_empty_and_binary_keys_and_values_are_kept(store):
    store.write("s", {b"": b"\x00\xff", b"\x00": b""}, AT_START)
    assert store.read([("s", b""), ("s", b"\x00")]) == [b"\x00\xff", b""]


def test_a_failed_write_leaves_neither_items_nor_progress(store):
    store.write("s", {b"a": b"1"}, AT_START)
    with pytest.raises((Unavailable, TypeError)):
        store.write("s", {b"a": b"2", b"b": object()}, LATER)  # type: ignore[dict-item]
    assert store.read([("s", b"a"), ("s", b"b")]) == [b"1", None]
    assert store.progress(["s"]) == {"s": AT_START}


def _write_many(path: Path, state: str, n: int) -> None:
    store = SqliteOnlineStore(path)
    for i in range(n):
        store.write(state, {b"k": str(i).encode()}, Progress(i, 0, n, 0, 0))
    store.close()


def test_sqlite_is_shared_by_processes(tmp_path):
    path = tmp_path / "online.db"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, state, 200)) for state in ("x", "y")]
    for writer in writers:
        writer.start()
    store = SqliteOnlineStore(path)
    pairs = []
    while any(writer.is_alive() for writer in writers):
        (value,) = store.read([("x", b"k")])
        pairs.append(int(value) if value else -1)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert pairs == sorted(pairs)
    assert store.read([("x", b"k"), ("y", b"k")]) == [b"199", b"199"]
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
    assert store.progress(["x"]) == {}
    store.close()
    other.close()


def test_sqlite_says_which_file_fails(tmp_path):
    path = tmp_path / "online.db"
    path.write_bytes(b"not a database at all, and longer than a header of one hundred bytes" * 4)
    with pytest.raises(Unavailable, match=r"online\.db: the online store is damaged"):
        SqliteOnlineStore(path)
