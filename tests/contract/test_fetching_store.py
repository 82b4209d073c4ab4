"""What every store that is read without waiting does, whether it reads on the loop or by threads."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from contract.test_online_store import AT_START, OTHER, S, cluster, key, one_redis, redis_store, rows, secure_redis
from memory.fetching_store import MemoryFetcher
from memory.online_store import MemoryOnlineStore
from servers.redis import RedisServer, redis_server
from tidewheel.adapters.redis_fetch import RedisFetcher
from tidewheel.adapters.redis_store import RedisOnlineStore
from tidewheel.adapters.redis_url import parse_redis_url
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.adapters.threaded_fetch import ThreadedFetcher
from tidewheel.errors import Unavailable
from tidewheel.features.ports import Fetched, FetchingStore, OnlineStore, Wanted
from waiting import until

__all__ = ["cluster", "one_redis", "secure_redis"]  # fixtures
integration = pytest.mark.integration
LONG_US, SHORT_US = 10_000_000, 50_000

Outcome = Fetched | Unavailable
Opened = tuple[OnlineStore, Callable[[asyncio.AbstractEventLoop], FetchingStore]]


@pytest.fixture(
    params=["sqlite", *(pytest.param(k, marks=integration) for k in ("redis", "redis-tls-acl", "redis-cluster"))]
)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A store to write with, and how to open the same one for reads that do not wait."""
    store: OnlineStore
    if request.param == "memory":
        store = MemoryOnlineStore()
        yield store, lambda loop: MemoryFetcher(store)
    elif request.param == "sqlite":
        store = SqliteOnlineStore(tmp_path / "online.db")
        yield store, lambda loop: ThreadedFetcher(SqliteOnlineStore(tmp_path / "online.db"), loop)
    else:
        store = redis_store(request, request.param)
        if request.param == "redis-cluster":
            nodes = request.getfixturevalue("cluster")
            url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
            yield store, lambda loop: ThreadedFetcher(RedisOnlineStore(parse_redis_url(url)), loop)
        else:
            server = request.getfixturevalue({"redis": "one_redis", "redis-tls-acl": "secure_redis"}[request.param])
            yield store, lambda loop: RedisFetcher(parse_redis_url(server.url), server.password, loop)
    store.close()


class Reads:
    """Reads of one fetching store on a loop of its own."""

    def __init__(self, runner: asyncio.Runner, store: FetchingStore) -> None:
        self._runner, self.store = runner, store

    def together(self, *reads: tuple[Wanted, int]) -> list[Outcome]:
        """What each got; every one is told of exactly once and not before ``fetch`` returned."""

        async def all_of_them() -> list[Outcome]:
            got: dict[int, list[Outcome]] = {number: [] for number in range(len(reads))}
            through = asyncio.Event()

            def done(number: int, outcome: Outcome) -> None:
                assert asked[number], "told before fetch returned"
                got[number].append(outcome)
                if all(got.values()):
                    through.set()

            asked = [False] * len(reads)
            for number, (wanted, timeout_us) in enumerate(reads):
                self.store.fetch(wanted, timeout_us, lambda outcome, number=number: done(number, outcome))
                asked[number] = True
            await asyncio.wait_for(through.wait(), 30)
            await asyncio.sleep(0)
            assert all(len(outcomes) == 1 for outcomes in got.values())
            return [outcomes[0] for outcomes in got.values()]

        return self._runner.run(all_of_them())

    def one(self, wanted: Wanted, timeout_us: int = LONG_US) -> Outcome:
        return self.together((wanted, timeout_us))[0]


@contextmanager
def reads_of(open_: Callable[[asyncio.AbstractEventLoop], FetchingStore]) -> Iterator[Reads]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def make() -> FetchingStore:
            return open_(asyncio.get_running_loop())

        store = runner.run(make())
        try:
            yield Reads(runner, store)
        finally:
            store.close()


def blobs(outcome: Outcome) -> list[list[bytes | None]]:
    assert isinstance(outcome, Fetched), outcome
    assert not outcome.refused
    return outcome.blobs


def test_blobs_come_back_as_the_store_itself_reads_them(opened: Opened) -> None:
    store, open_ = opened
    store.write(S, 0, rows(1, k1=b"1", k2=b"2"), AT_START)
    store.write(OTHER, 0, rows(1, k1=b"3"), AT_START)
    keys = [key(2), key(9), key(1)]
    wanted = [(OTHER, keys), (S, keys), (S, [key(1)])]
    with reads_of(open_) as reads:
        assert blobs(reads.one(wanted)) == store.read(wanted) == [[None, None, b"3"], [b"2", None, b"1"], [b"1"]]


def test_reads_that_overlap_get_what_they_asked_for(opened: Opened) -> None:
    store, open_ = opened
    store.write(S, 0, rows(1, **{f"k{n}": b"s%d" % n for n in range(40)}), AT_START)
    with reads_of(open_) as reads:
        for _ in range(3):
            outcomes = reads.together(*(([(S, [key(n), key(n + 1)])], LONG_US) for n in range(30)))
            assert [blobs(one) for one in outcomes] == [[[b"s%d" % n, b"s%d" % (n + 1)]] for n in range(30)]


def test_nothing_wanted_is_nothing_read(opened: Opened) -> None:
    with reads_of(opened[1]) as reads:
        assert blobs(reads.one([])) == []


@integration
def test_many_keys_come_back_in_order(one_redis: RedisServer, request: pytest.FixtureRequest) -> None:
    store = redis_store(request, "redis")
    store.write(S, 0, rows(1, **{f"k{n}": b"s%d" % n * 50 for n in range(3000)}), AT_START)
    with reads_of(fetcher_of(one_redis)) as reads:
        assert blobs(reads.one([(S, [key(n) for n in range(3000)])])) == [[b"s%d" % n * 50 for n in range(3000)]]


def fetcher_of(server: RedisServer) -> Callable[[asyncio.AbstractEventLoop], FetchingStore]:
    return lambda loop: RedisFetcher(parse_redis_url(server.url), server.password, loop)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        store = RedisOnlineStore(parse_redis_url(server.url))
        store.write(S, 0, rows(1, k1=b"1", k2=b"2"), AT_START)
        store.close()
        yield server


WANTED = [(S, [key(1)])]


@integration
def test_a_stalled_server_costs_the_time_out_and_nothing_later(own_redis: RedisServer) -> None:
    assert own_redis.process is not None
    with reads_of(fetcher_of(own_redis)) as reads:
        assert blobs(reads.one(WANTED)) == [[b"1"]]
        os.kill(own_redis.process.pid, signal.SIGSTOP)
        try:
            late = reads.together((WANTED, SHORT_US), (WANTED, SHORT_US))
        finally:
            os.kill(own_redis.process.pid, signal.SIGCONT)
        assert all("nothing within 50 ms" in str(one) for one in late)
        # Replies of the reads that were given up are still to come: nobody may get them.
        assert [blobs(one) for one in reads.together((WANTED, LONG_US), ([(S, [key(2)])], LONG_US))] == [
            [[b"1"]],
            [[b"2"]],
        ]


@integration
def test_a_server_that_is_down_is_told_of_at_once_and_read_again_when_it_is_back(own_redis: RedisServer) -> None:
    with reads_of(fetcher_of(own_redis)) as reads:
        assert blobs(reads.one(WANTED)) == [[b"1"]]
        own_redis.stop(signal.SIGKILL)
        for _ in range(3):
            assert "the online store does not answer" in str(reads.one(WANTED))
        own_redis.start()
        assert blobs(reads.one(WANTED)) == [[None]]  # it keeps nothing


@integration
def test_a_connection_that_the_server_closed_while_idle_costs_nothing(own_redis: RedisServer) -> None:
    with reads_of(fetcher_of(own_redis)) as reads:
        assert [blobs(one) for one in reads.together(*[(WANTED, LONG_US)] * 3)] == [[[b"1"]]] * 3
        with own_redis.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        assert [blobs(one) for one in reads.together(*[(WANTED, LONG_US)] * 3)] == [[[b"1"]]] * 3


@integration
def test_a_key_of_another_kind_is_refused_alone(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        (name,) = [one for one in client.scan_iter() if one.startswith(key(2))]
        client.delete(name)
        client.set(name, "no hash")
    with reads_of(fetcher_of(own_redis)) as reads:
        outcome = reads.one([(S, [key(1), key(2), key(3)])])
    assert isinstance(outcome, Fetched)
    assert outcome.blobs == [[b"1", None, None]]
    assert list(outcome.refused) == [(0, 1)]
    assert "WRONGTYPE" in outcome.refused[0, 1]


@integration
def test_who_may_not_read_is_told_so(secure_redis: RedisServer) -> None:
    address = parse_redis_url(secure_redis.url)
    with reads_of(lambda loop: RedisFetcher(address, "wrong", loop)) as reads:
        assert "refuses us (WRONGPASS" in str(reads.one(WANTED))


def test_a_store_that_never_answers_is_given_up(tmp_path: Path) -> None:
    held = StuckStore(tmp_path / "online.db")
    with reads_of(lambda loop: ThreadedFetcher(held, loop, threads=2)) as reads:
        try:
            assert "nothing within 50 ms" in str(reads.one(WANTED, SHORT_US))
            held.stuck = False
            assert blobs(reads.one(WANTED)) == [[None]]  # by the other thread
        finally:
            held.free()
    until(lambda: held.n_read == 2)


class StuckStore(SqliteOnlineStore):
    """A real store whose first reads do not return until it is freed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        import threading

        self.stuck, self.n_read = True, 0
        self._freed = threading.Event()

    def read(self, wanted: Wanted) -> list[list[bytes | None]]:
        if self.stuck:
            self._freed.wait(30)
        found = super().read(wanted)
        self.n_read += 1
        return found

    def free(self) -> None:
        self._freed.set()


def test_a_failure_of_the_store_is_an_answer_too(tmp_path: Path) -> None:
    class Failing(SqliteOnlineStore):
        def read(self, wanted: Any) -> list[list[bytes | None]]:
            raise ValueError("damaged")

    with reads_of(lambda loop: ThreadedFetcher(Failing(tmp_path / "online.db"), loop)) as reads:
        assert "the online store failed (ValueError: damaged)" in str(reads.one(WANTED))
