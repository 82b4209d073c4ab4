"""Two workers on a real Kafka and a real Redis: killed at random, fed rubbish, they end with the values of DuckDB."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from integration.test_stream_worker import apply, events, worker
from servers.kafka import KafkaServer
from servers.redis import RedisServer, redis_server
from tidewheel.adapters.connections import Connections, write_connections
from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.adapters.kafka_event_log import KafkaEventLog
from tidewheel.adapters.kafka_url import parse_kafka_url
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.redis_store import RedisOnlineStore
from tidewheel.adapters.redis_url import parse_redis_url
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.events import validate_events
from tidewheel.features.lake import lake_end, source_paths
from tidewheel.features.load import load_features
from tidewheel.features.reader import FeatureReader
from tidewheel.features.rows import request_arrays
from tidewheel.features.schema import topic_of
from tidewheel.features.topics import message_keys, source_topic, topic_read_by
from tidewheel.spec.load import load_project
from tidewheel.spec.project import ModelProject
from unit.features.samples import SPEC
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

ROUNDS = 10
N_PARTITIONS = 3
POISON = [b"{not json", b"[]", b"\xff\xfe", b'{"card":"card-1","shop":1,"at":"2150-01-01T00:00:00Z","payment":"far"}']


@pytest.fixture
def redis_at(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


def keyed_spec() -> str:
    """Topics of this test alone. Payments and labels are keyed by card, so the views by shop need them keyed anew."""
    mark = uuid4().hex[:8]
    spec = SPEC.replace("{topic: payments,", f"{{topic: payments-{mark}, key: card,")
    spec = spec.replace("{topic: labels,", f"{{topic: labels-{mark}, key: card,")
    return spec.replace("profiles: {path", f"profiles: {{topic: profiles-{mark}, key: card, path")


def late(table: pa.Table) -> pa.Table:
    """Some arrive half an hour late, some three hours: the allowed lateness is ten minutes."""
    n = table.num_rows
    held = sorted({*range(n // 3, n // 3 + 60, 3), *range(n - 700, n - 600, 5)})
    rest = [place for place in range(n) if place not in set(held)]
    return table.take(pa.array([*rest[: n - 450], *held, *rest[n - 450 :]]))


class World:
    """A home whose events come by Kafka and whose states are in Redis."""

    def __init__(self, home: LocalHome, code: Path, kafka: KafkaServer, redis: RedisServer) -> None:
        self.home, self.kafka = home, kafka
        url = f"{kafka.url}?partitions={N_PARTITIONS}"
        write_connections(home, Connections(online_store=redis.url, event_log=url))
        self.project: ModelProject = load_project(code)
        self.features: FeatureSet = load_features(code, self.project)
        self.log = KafkaEventLog(parse_kafka_url(url), None, keys=message_keys(self.project))
        self.store = RedisOnlineStore(parse_redis_url(redis.url), None)
        self.log.make_topics({topic_of(self.project, name): None for name in self.project.sources})

    def send(self, name: str, table: pa.Table) -> None:
        self.log.append(topic_of(self.project, name), validate_events(table, name, self.project).good)

    def caught_up(self) -> bool:
        told = self.store.progress(self.features.states)
        for state in self.features.states:
            topic = topic_read_by(state, self.project, N_PARTITIONS)
            if topic != state.topic and not self._moved(topic):
                return False
            positions = {p: one.position for p, one in told.get(state.state_id, {}).items()}
            if positions != {p: self.log.end(topic, p) for p in range(N_PARTITIONS)}:
                return False
        return all(
            lake_end(folder, p) == self.log.end(topic_of(self.project, name), p)
            for name, folder in source_paths(self.home.lake, self.project).items()
            for p in range(N_PARTITIONS)
        )

    def _moved(self, topic: str) -> bool:
        """Whether everything was keyed anew."""
        source = source_topic(topic)
        consumer = Consumer({**self.kafka.settings, "group.id": topic})
        places = [TopicPartition(source, p) for p in range(N_PARTITIONS)]
        committed = consumer.committed(places, timeout=10)
        consumer.close()
        return all(max(one.offset, 0) == self.log.end(source, one.partition) for one in committed)

    def close(self) -> None:
        self.log.close()
        self.store.close()


def poison(kafka: KafkaServer, topic: str) -> None:
    producer = Producer(kafka.settings)
    for partition in range(N_PARTITIONS):
        for body in POISON:
            producer.produce(topic, body, partition=partition)
    assert producer.flush(20) == 0


def differing(world: World, asked: pa.Table) -> dict[str, int]:
    """Values of Redis that are not DuckDB's over the lake, per feature."""
    project, features = world.project, world.features
    offline = DuckDbFeatures().compute(features, project, asked, source_paths(world.home.lake, project))
    normal = validate_events(asked, project.request, project).good
    t_us = normal.column(project.request_source.event_time).cast(pa.int64()).to_numpy()
    online = FeatureReader(features, world.store).read(request_arrays(normal, features), t_us).values
    counts = {}
    for index, name in enumerate(features.names):
        want = offline.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        counts[name] = int((~np.isclose(online[:, index], want, rtol=1e-9, atol=1e-6, equal_nan=True)).sum())
    return counts


def offsets_in_lake(folder: Path, partition: int) -> list[int]:
    table = pa.concat_tables(
        [pq.ParquetFile(part).read(["_partition", "_offset"]) for part in sorted(folder.glob("*.parquet"))]
    )
    mine = table.filter(pa.array(table.column("_partition").to_numpy() == partition))
    return [int(offset) for offset in mine.column("_offset").to_pylist()]


def test_workers_that_are_killed_at_random_end_with_duckdbs_values_and_a_whole_lake(
    tmp_path: Path, kafka: KafkaServer, redis_at: RedisServer
) -> None:
    home = LocalHome(tmp_path / "home")
    world = World(home, apply(home, spec=keyed_spec()), kafka, redis_at)
    tables = {name: late(table) if name == "payments" else table for name, table in events().items()}
    chance = random.Random(11)
    starts = dict.fromkeys(tables, 0)
    kills = 0
    with ExitStack() as last:
        running: list[tuple[ExitStack, Any]] = []

        def start() -> None:
            stack = ExitStack()
            running.append((stack, stack.enter_context(worker(home))))
            last.callback(stack.close)

        start(), start()
        for number in range(ROUNDS):
            stops = {name: table.num_rows * (number + 1) // ROUNDS for name, table in tables.items()}
            while any(starts[name] < stops[name] for name in tables):
                for name, table in tables.items():
                    size = min(chance.randrange(100, 600), stops[name] - starts[name])
                    world.send(name, table.slice(starts[name], size))
                    if chance.random() < 0.3:  # the producer does not know that it was taken, and sends again
                        world.send(name, table.slice(starts[name], size))
                    starts[name] += size
            if number % 3 == 0:
                poison(kafka, topic_of(world.project, "payments"))
            time.sleep(chance.uniform(0.0, 3.0))  # the moment of the kill
            stack, process = running.pop(chance.randrange(2))
            process.send_signal(signal.SIGTERM if number == 4 else signal.SIGKILL)
            process.wait(timeout=20)
            kills += number != 4
            stack.close()
            start()
        until(world.caught_up, limit_s=180)
        for _, process in running:
            process.terminate()
        assert [process.wait(timeout=20) for _, process in running] == [0, 0]

    print(f"{ROUNDS} rounds, {kills} kills")
    n_poison = len([number for number in range(ROUNDS) if number % 3 == 0]) * len(POISON)
    for name, folder in source_paths(home.lake, world.project).items():
        for partition in range(N_PARTITIONS):
            offsets = offsets_in_lake(folder, partition)
            end = world.log.end(topic_of(world.project, name), partition)
            assert len(offsets) == len(set(offsets)) == end - (n_poison if name == "payments" else 0), (name, partition)
    aside = [pq.ParquetFile(part).read() for part in (home.lake / "_rejected" / "payments").glob("*.parquet")]
    places = {(row["_partition"], row["_offset"]) for one in aside for row in one.to_pylist()}
    assert (sum(one.num_rows for one in aside), len(places)) == (n_poison * N_PARTITIONS, n_poison * N_PARTITIONS)
    asked = tables["payments"].slice(tables["payments"].num_rows - 400)
    assert len(set(asked.column("card").to_pylist())) == 50
    assert len(set(asked.column("shop").to_pylist())) == 20
    assert differing(world, asked) == dict.fromkeys(world.features.names, 0)
    world.close()
