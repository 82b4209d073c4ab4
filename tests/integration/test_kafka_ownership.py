"""Partitions are shared out among replicas, and handed over when one comes or goes, whether it says so or not."""

from __future__ import annotations

import multiprocessing
import os
import signal
from uuid import uuid4

import pytest

from memory.event_log import MemoryEventLog
from tidewheel.adapters.kafka_ownership import KafkaOwnership
from tidewheel.adapters.kafka_url import parse_kafka_url
from tidewheel.adapters.worker_log import PlainWorkerLog
from waiting import until

pytestmark = pytest.mark.integration


def test_the_only_worker_owns_all():
    assert PlainWorkerLog(MemoryEventLog()).owned(["a", "b"]) == {("a", 0), ("b", 0)}


def test_members_share_all_partitions_and_none_twice(kafka):
    topics = [kafka.topic(4), kafka.topic(3)]
    everything = {(topics[0], n) for n in range(4)} | {(topics[1], n) for n in range(3)}
    group, address = uuid4().hex, parse_kafka_url(kafka.url)
    first, second = KafkaOwnership(address, None, group), KafkaOwnership(address, None, group)
    until(lambda: first.owned(topics) == everything)

    def shared() -> bool:
        mine, others = first.owned(topics), second.owned(topics)
        assert not mine & others
        return mine | others == everything and min(len(mine), len(others)) >= 3

    until(shared)
    assert first.owned(topics[:1]) <= {(topics[0], n) for n in range(4)}
    until(lambda: first.owned(topics) | second.owned(topics) == everything)
    second.close()
    until(lambda: first.owned(topics) == everything)
    first.close()


def _member(url: str, group: str, topic: str, ready) -> None:
    ownership = KafkaOwnership(parse_kafka_url(url), None, group)
    while True:
        if ownership.owned([topic]):
            ready.set()


def test_what_a_killed_member_owned_goes_to_the_others(kafka):
    topic, group = kafka.topic(4), uuid4().hex
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_member, args=(kafka.url, group, topic, ready))
    other.start()
    assert ready.wait(60)
    mine = KafkaOwnership(parse_kafka_url(kafka.url), None, group)
    until(lambda: len(mine.owned([topic])) == 2)
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join(10)
    until(lambda: len(mine.owned([topic])) == 4)
    mine.close()
