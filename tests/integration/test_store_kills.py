"""A writer that is killed at random moments and started again leaves the same end state as one that was not."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import threading
from pathlib import Path

import numpy as np
import pytest

from contract.test_online_store import S, key
from servers.redis import cluster_url, redis_cluster, redis_server
from tidewheel.adapters.connections import online_store_at
from tidewheel.features.ports import OnlineStore, Progress, StateRows
from waiting import until

pytestmark = pytest.mark.integration

N_EVENTS, N_ENTITIES, BATCH = 30_000, 300, 500
ROUNDS = 12  # kills
ENTITY_OF = np.random.default_rng(5).integers(0, N_ENTITIES, N_EVENTS)  # of each offset


@pytest.fixture(scope="module", params=["sqlite", "redis", "redis-cluster"])
def url(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        yield f"sqlite:{folder / 'online.db'}"
    elif request.param == "redis":
        with redis_server(folder) as server:
            yield server.url
    else:
        with redis_cluster(folder) as nodes:
            yield cluster_url(nodes)


def blob(entity: int, position: int) -> bytes:
    """A pure function of the log's prefix: how many events, and a digest that depends on each of them."""
    mine = np.flatnonzero(ENTITY_OF[:position] == entity)
    return len(mine).to_bytes(8, "little") + hashlib.sha256(mine.tobytes()).digest() * 40


def take(store: OnlineStore, batch: int, limit: int = N_EVENTS) -> None:
    """From where the store says that the last one came."""
    told = store.progress([S]).get(S.state_id, {}).get(0)
    position = told.position if told else 0
    while position < limit:
        following = min(position + batch, N_EVENTS)
        store.write(S, 0, rows_of(position, following), Progress(following, following, N_EVENTS, 0, 0))
        position = following


def rows_of(position: int, following: int) -> StateRows:
    """What a batch of events makes of the entities that it touches."""
    touched = np.unique(ENTITY_OF[position:following]).tolist()
    return StateRows(
        [key(entity) for entity in touched], [blob(entity, following) for entity in touched],
        np.full(len(touched), following), np.full(len(touched), following * 1_000_000),
        np.full((len(touched), 2), float(following)),
    )  # fmt: skip


def _writer(url: str, batch: int) -> None:
    store = online_store_at(url, Path("unused"))
    take(store, batch)
    store.close()


def position_of(store: OnlineStore) -> int:
    told = store.progress([S]).get(S.state_id, {})
    return told[0].position if told else 0


def test_kills_at_random_and_two_writers_at_once_change_nothing(url: str):
    context, chance = multiprocessing.get_context("spawn"), random.Random(11)
    store, n_killed = online_store_at(url, Path("unused")), 0
    for number in range(ROUNDS):
        before = position_of(store)
        # Of each pair one is killed; the other goes on beside the next one, with batches of another size.
        batch = chance.choice([BATCH, BATCH // 3, BATCH // 7])
        writer = context.Process(target=_writer, args=(url, batch))
        writer.start()
        until(lambda before=before, writer=writer: position_of(store) > before or not writer.is_alive())
        threading.Event().wait(chance.random() * 0.05)  # where in a write the kill falls is up to chance
        rival = context.Process(target=_writer, args=(url, BATCH)) if number % 4 == 3 else None
        if rival is not None:
            rival.start()
            threading.Event().wait(chance.random() * 0.3)
            rival.kill()
            rival.join()
        writer.kill()
        writer.join()
        n_killed += position_of(store) < N_EVENTS
    assert n_killed >= ROUNDS // 2, "the writers were too quick to be killed"
    _writer(url, BATCH)
    late = online_store_at(url, Path("unused"))  # a zombie, which wakes up when all is done
    for following in (BATCH, N_EVENTS // 2, N_EVENTS - 1):
        late.write(S, 0, rows_of(following - BATCH, following), Progress(following, following, N_EVENTS, 0, 0))
    late.close()
    (found,) = store.read([(S, [key(entity) for entity in range(N_ENTITIES)])])
    assert position_of(store) == N_EVENTS
    wrong = [entity for entity in range(N_ENTITIES) if found[entity] != blob(entity, N_EVENTS)]
    assert wrong == []
    store.close()
