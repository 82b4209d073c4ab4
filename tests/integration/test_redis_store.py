"""The Redis store when servers restart, hang, refuse, move their slots or run full."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.test_online_store import AT_START, LATER, S, key, read, rows, state
from servers.redis import PASSWORD, RedisServer, cluster_url, redis_cluster, redis_server, secure_redis_server
from tidewheel.adapters.redis_link import MAX_IDLE
from tidewheel.adapters.redis_servers import slot_of
from tidewheel.adapters.redis_store import RedisOnlineStore
from tidewheel.adapters.redis_url import parse_redis_url
from tidewheel.clock import DAY_US
from tidewheel.errors import Unavailable
from tidewheel.features.feast_layout import feature_field
from tidewheel.features.keys import entity_keys
from tidewheel.features.ports import LostWrites

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.client().flushall()
    return shared


def store_of(server: RedisServer) -> RedisOnlineStore:
    return RedisOnlineStore(parse_redis_url(server.url), server.password)


def test_a_server_that_restarts_is_found_again_and_learns_the_scripts(tmp_path: Path):
    with redis_server(tmp_path) as server:
        store = store_of(server)
        store.write(S, 0, rows(3, k1=b"1"), AT_START)
        server.stop()
        with pytest.raises(Unavailable, match=rf"^redis://127.0.0.1:{server.port}: the online store does not answer"):
            read(store, S, 1)
        server.start()
        assert read(store, S, 1) == [None]  # this server keeps nothing
        # A row made from that would claim to include what is lost.
        for of_no_entity in ({}, {"k1": b"from nothing"}):
            with pytest.raises(LostWrites, match="has lost writes"):
                store.write(S, 0, rows(5, **of_no_entity), LATER)
            assert store.progress([S]) == {}
            assert read(store, S, 1) == [None]
            store.write(S, 0, rows(3, k1=b"1"), AT_START)  # once told, the worker begins again
            server.client().flushall()
        store.progress([S])
        store = store_of(server)
        store.write(S, 0, rows(5, k1=b"2"), LATER)
        assert read(store, S, 1) == [b"2"]
        server.stop()
        server.start()
        assert read(store, S, 1) == [None]  # at once, though every idle connection is dead
        store.close()


def test_a_server_that_hangs_is_waited_for_no_longer_than_the_limit(tmp_path: Path):
    with redis_server(tmp_path) as server:
        store = store_of(server)
        store.write(S, 0, rows(3, k1=b"1"), AT_START)
        os.kill(server.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(Unavailable, match="nothing within 1 s"):
            read(store, S, 1)
        assert time.monotonic() - began < 3
        os.kill(server.process.pid, signal.SIGCONT)
        assert read(store, S, 1) == [b"1"]
        store.close()


def test_a_wrong_password_is_named_and_never_shown(tmp_path: Path):
    with secure_redis_server(tmp_path) as server:
        for password in ("wrong-password", None):
            store = RedisOnlineStore(parse_redis_url(server.url), password)
            with pytest.raises(Unavailable, match=r"the online store refuses us .WRONGPASS") as caught:
                store.write(S, 0, rows(3, k1=b"1"), AT_START)
            assert "wrong-password" not in str(caught.value)
            assert PASSWORD not in str(caught.value)
            store.close()


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path):
    with secure_redis_server(tmp_path) as server:
        url = parse_redis_url(server.url)
        store = RedisOnlineStore(replace(url, ca=None), server.password)
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            read(store, S, 1)
        store.close()


def test_an_entity_lives_as_long_as_its_longest_state(server: RedisServer):
    store, client = store_of(server), server.client()
    long = replace(state("long"), retention_us=10 * DAY_US)
    name = key(1) + b"tiny"
    lives = []
    for position, of in ((1, S), (1, long), (2, S)):
        store.write(of, 0, rows(position, k1=b"1"), LATER)
        lives.append(round(client.ttl(name) / 86_400))
    assert lives == [1, 10, 10]
    client.persist(name)
    store.write(S, 0, rows(3, k1=b"1"), LATER)
    assert client.ttl(name) == -1  # who keeps it for ever is respected
    store.close()


def test_positions_are_compared_as_numbers_however_large(server: RedisServer):
    store = store_of(server)
    for position, taken in ((2**32 - 1, True), (2**32, True), (2**32 - 1, False), (2**62 + 1, True), (2**62, False)):
        before = read(store, S, 1)
        blob = b"%d" % position
        store.write(S, 0, rows(position, k1=blob), LATER)
        assert read(store, S, 1) == ([blob] if taken else before)
    store.close()


def test_threads_share_a_store(server: RedisServer):
    store = store_of(server)
    store.write(S, 0, rows(1, **{f"k{n}": b"%d" % n for n in range(1, 33)}), AT_START)
    wrong: list[object] = []

    def reads(number: int) -> None:
        for _ in range(200):
            if (found := read(store, S, number, 33 - number)) != [b"%d" % number, b"%d" % (33 - number)]:
                wrong.append(found)

    threads = [threading.Thread(target=reads, args=(number,)) for number in range(1, 33)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert server.client().info("clients")["connected_clients"] <= MAX_IDLE + 2
    store.close()


def test_a_removed_state_takes_its_fields_and_nothing_else(server: RedisServer):
    store, client = store_of(server), server.client()
    strange = replace(S, keys=(("we[i]rd*?", "int64"),), state_id="f" * 32)
    many = {f"k{n}": b"%d" % n for n in range(1, 3001)}
    for of in (S, state("other")):
        store.write(of, 0, rows(1, **many), AT_START)
    oddly = replace(rows(1, **many), keys=entity_keys(strange.keys, [np.arange(1, 3001)]))
    store.write(strange, 0, oddly, AT_START)
    client.hset(key(1) + b"tiny", b"somebody's", b"else")
    client.set(b"other", b"key")
    assert store.keep_only("tiny", [state("other")]) == sorted([S.feast_view, strange.feast_view])
    left = client.hgetall(key(2) + b"tiny")
    assert all(S.feast_view.encode() not in field for field in left)
    assert feature_field(S.feast_view, "state") not in left
    assert read(store, state("other"), 1, 3000) == [b"1", b"3000"]
    assert (client.hget(key(1) + b"tiny", b"somebody's"), client.get(b"other")) == (b"else", b"key")
    store.keep_only("tiny", [])
    assert client.dbsize() == 2  # the two that are not ours
    store.close()


def test_a_server_that_drops_keys_is_refused(server: RedisServer):
    client = server.client()
    client.config_set("maxmemory", "200mb")
    client.config_set("maxmemory-policy", "volatile-lru")
    store = store_of(server)
    try:
        with pytest.raises(Unavailable, match=r"maxmemory-policy volatile-lru.*set maxmemory-policy noeviction"):
            store.write(S, 0, rows(3, k1=b"1"), AT_START)
        client.config_set("maxmemory-policy", "noeviction")
        store.write(S, 0, rows(3, k1=b"1"), AT_START)
        client.config_set("maxmemory", "1mb")
        with pytest.raises(Unavailable, match="OOM"):
            store.write(S, 0, rows(5, k1=b"2", k2=b"2"), LATER)
        assert store.progress([S]) == {S.state_id: {0: AT_START}}
    finally:
        client.config_set("maxmemory", "0")
        store.close()


def test_slots_that_move_are_followed(tmp_path: Path):
    with redis_cluster(tmp_path) as nodes:
        store = RedisOnlineStore(parse_redis_url(cluster_url(nodes)))
        store.write(S, 0, rows(3, **{f"k{n}": b"%d" % n for n in range(1, 50)}), AT_START)
        name = key(7) + b"tiny"
        slot = slot_of(name)
        clients = [node.client() for node in nodes]
        ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
        source = slot * len(nodes) // 16384
        target = (source + 1) % len(nodes)
        clients[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
        clients[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
        clients[source].execute_command("MIGRATE", "127.0.0.1", nodes[target].port, name, 0, 5000)
        everyone = [b"%d" % n for n in range(1, 50)]
        assert read(store, S, *range(1, 50)) == everyone  # half way: ASK
        store.write(S, 0, rows(4, k7=b"moving"), LATER)
        assert read(store, S, 7) == [b"moving"]
        for client in clients:
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])
        store.write(S, 0, rows(5, k7=b"moved"), LATER)  # done: MOVED
        assert read(store, S, 6, 7, 8) == [b"6", b"moved", b"8"]
        nodes[target].stop()
        with pytest.raises(Unavailable, match=rf"127.0.0.1:{nodes[target].port}"):
            read(store, S, 7)
        store.close()


def test_progress_in_a_cluster_is_that_of_the_node_that_remembers_least(tmp_path: Path):
    with redis_cluster(tmp_path) as nodes:
        store = RedisOnlineStore(parse_redis_url(cluster_url(nodes)))
        everyone = {f"k{n}": b"%d" % n for n in range(1, 50)}
        store.write(S, 0, rows(3, **everyone), AT_START)
        marks = {
            mark: node.client()
            for node in nodes
            for mark in node.client().scan_iter(b"tidewheel:*" + S.feast_view.encode())
        }
        assert len(marks) == len(nodes)
        kept = {mark: client.hgetall(mark) for mark, client in marks.items()}
        store.write(S, 0, rows(5, **everyone), LATER)
        assert store.progress([S]) == {S.state_id: {0: LATER}}
        mark, client = next(iter(marks.items()))
        client.hset(mark, mapping=kept[mark])  # as a replica that lagged would say
        assert store.progress([S]) == {S.state_id: {0: AT_START}}
        client.flushall()  # a node that comes back with nothing
        assert store.progress([S]) == {}
        assert None in read(store, S, *range(1, 50))
        with pytest.raises(LostWrites):
            store.write(S, 0, rows(5, **everyone), LATER)
        store.write(S, 0, rows(5, **everyone), LATER)
        assert read(store, S, *range(1, 50)) == list(everyone.values())
        assert store.progress([S]) == {S.state_id: {0: LATER}}
        store.keep_only("tiny", [])
        assert [node.client().dbsize() for node in nodes] == [0, 0, 0]
        store.close()


def test_a_removed_state_leaves_another_projects_progress(server: RedisServer):
    store = store_of(server)
    elsewhere = replace(S, project="very-tiny", state_id=S.state_id[:8] + "0" * 24)
    for of in (S, elsewhere):
        store.write(of, 0, rows(1, k1=b"1"), AT_START)
    store.keep_only("tiny", [])
    assert store.progress([elsewhere]) == {elsewhere.state_id: {0: AT_START}}
    assert read(store, elsewhere, 1) == [b"1"]
    store.close()


def test_numbers_of_many_entities_go_through_in_lots(server: RedisServer):
    store, n = store_of(server), 5000
    many = rows(1, **{f"k{i}": bytes(3000) for i in range(n)})
    store.write(S, 0, many, AT_START)
    (found,) = store.read([(S, many.keys)])
    assert found == [bytes(3000)] * n
    assert np.array_equal(many.positions, np.ones(n))
    store.close()
