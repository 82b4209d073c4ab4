"""Messages keyed anew: every event once and all of an entity together, whoever is killed and when."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
from confluent_kafka import Producer

from tidewheel.adapters.kafka_event_log import KafkaEventLog
from tidewheel.adapters.kafka_repartition import KafkaRepartitioner
from tidewheel.adapters.kafka_url import parse_kafka_url
from tidewheel.features.json_events import EventDecoder
from unit.features.samples import sample_project
from waiting import until

pytestmark = pytest.mark.integration

AT = "2018-04-01T12:00:00Z"
N_SHOPS = 20


def message(number: int) -> bytes:
    return json.dumps({"card": f"c{number}", "shop": number % N_SHOPS, "at": AT, "payment": f"p{number}"}).encode()


def produce(server, topic: str, numbers, more=()) -> None:
    producer = Producer(server.settings)
    for number in numbers:
        producer.produce(topic, message(number), key=f"c{number}", timestamp=1_600_000_000_000)
    for body in more:
        producer.produce(topic, body)
    producer.flush(20)


def repartitioner(url: str, topic: str, name: str | None = None) -> KafkaRepartitioner:
    decoder = EventDecoder(sample_project(), "payments")
    return KafkaRepartitioner(parse_kafka_url(url), None, topic, ["shop"], decoder, name)


def moved(log: KafkaEventLog, topic: str) -> list[list[tuple[str, int]]]:
    """(event id, shop) by partition, of what is committed."""
    found = []
    for partition in range(log.partitions(topic)):
        at, rows = 0, []
        while at < log.end(topic, partition):
            batch = log.read(topic, partition, at, 10_000)
            if batch.following == at:
                break
            at = batch.following
            if batch.events.num_rows:
                rows += list(zip(batch.events["payment"].to_pylist(), batch.events["shop"].to_pylist(), strict=True))
        found.append(rows)
    return found


def read_log(server, topic: str) -> KafkaEventLog:
    return KafkaEventLog(parse_kafka_url(server.url), None, {topic: EventDecoder(sample_project(), "payments")})


def test_all_events_of_an_entity_come_to_one_partition_and_poison_stays_behind(kafka):
    topic = kafka.topic(3, **{"retention.ms": "-1"})
    produce(kafka, topic, range(600), more=[b"{", b'{"card":"x"}'])
    mover = repartitioner(kafka.url, topic)
    done = [0]

    def all_moved() -> bool:
        done[0] += mover.step(0.1)
        return done[0] == 602

    until(all_moved)
    mover.close()
    log = read_log(kafka, topic)
    found = moved(log, mover.target)
    assert len(found) == 3
    assert sorted(number for part in found for number, _ in part) == sorted(f"p{n}" for n in range(600))
    homes = [{shop for _, shop in part} for part in found]
    assert sum(map(len, homes)) == len(set.union(*homes)) == N_SHOPS
    log.close()


def _run(url: str, topic: str, name: str | None, tell) -> None:
    mover = repartitioner(url, topic, name)
    while True:
        if mover.step(0.05):
            tell.set()


def test_every_event_is_moved_once_whoever_is_killed_at_random(kafka):
    rng, n_events, n_kills = random.Random(11), 6_000, 6
    topic = kafka.topic(2, **{"retention.ms": "-1"})
    context = multiprocessing.get_context("spawn")
    tell = context.Event()

    def start(name: str | None):
        process = context.Process(target=_run, args=(kafka.url, topic, name, tell))
        process.start()
        return process

    # Two replicas, one of which keeps its name.
    members = {0: start("replica-0"), 1: start(None)}
    sent = 0
    for _ in range(n_kills):
        tell.clear()
        produce(kafka, topic, range(sent, sent + n_events // n_kills))
        sent += n_events // n_kills
        assert tell.wait(60)
        time.sleep(rng.random() * 0.2)  # somewhere within its work
        which = rng.randrange(2)
        os.kill(members[which].pid, signal.SIGKILL)
        members[which].join(10)
        members[which] = start("replica-0" if which == 0 else None)
    log = read_log(kafka, topic)
    target = f"tidewheel.{topic}.by.shop"
    until(lambda: sum(map(len, moved(log, target))) >= n_events, limit_s=120)
    for process in members.values():
        process.kill()
        process.join(10)
    ids = [number for part in moved(log, target) for number, _ in part]
    assert len(ids) == n_events
    assert set(ids) == {f"p{n}" for n in range(n_events)}
    log.close()
