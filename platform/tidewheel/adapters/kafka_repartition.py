"""The messages of a topic once more, keyed so that all events of an entity are in one partition; exactly once.

What is written and how far was read are one transaction, which the group's generation guards: a member that was
replaced meanwhile cannot commit. So kill -9 at any point repeats nothing and loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import numpy as np
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from tidewheel.adapters.kafka_client import TIMEOUT_S, make_topics, new_producer, unavailable
from tidewheel.adapters.kafka_url import KafkaAddress
from tidewheel.errors import Unavailable
from tidewheel.features.json_events import Decoder
from tidewheel.features.topics import repartitioned_topic

AT_ONCE = 10_000
TRANSACTION_S = 10  # what a killed member left open holds readers back for this long at most
KEPT = ("retention.ms", "retention.bytes", "max.message.bytes")


class KafkaRepartitioner:
    """One member; run one in every replica of the worker. ``name`` is the replica's own and stays over restarts, so
    that what a killed one left open is closed at once; any name will do where there is none.

    Messages that are no events or have no such key are left out: who reads the topic itself tells of them. Kafka's time
    of a message stays, since it decides what is too far in the future.
    """

    def __init__(
        self,
        address: KafkaAddress,
        password: str | None,
        topic: str,
        keys: Sequence[str],
        decoder: Decoder,
        name: str | None = None,
    ) -> None:
        self._address, self._password, self._decoder = address, password, decoder
        self.topic, self._keys = topic, tuple(keys)
        self.target = repartitioned_topic(topic, keys)
        self._name = f"{self.target}.{name or uuid4().hex}"
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._rebalanced = False

    def step(self, wait_s: float = 0.0) -> int:
        """Move what has come; how many messages were read. Waits ``wait_s`` for the first. Raises Unavailable, after
        which a further step begins anew from what was committed."""
        try:
            if self._consumer is None or self._producer is None:
                self._open()
            assert self._consumer is not None
            return self._move(self._collect(wait_s))
        except KafkaException as error:
            self.close()
            raise unavailable(self._address, f"writing {self.target}", error) from error
        except Unavailable:
            self.close()
            raise

    def close(self) -> None:
        """Leave the group; what was not committed is as if it was never done."""
        consumer, self._consumer, self._producer = self._consumer, None, None
        if consumer is not None:
            consumer.close()

    def _open(self) -> None:
        self._make_target()
        settings = self._address.settings(self._password)
        self._producer = new_producer(
            self._address,
            self._password,
            **{"transactional.id": self._name, "transaction.timeout.ms": TRANSACTION_S * 1000,
               "delivery.timeout.ms": TRANSACTION_S * 1000, "linger.ms": 2},
        )  # fmt: skip
        self._producer.init_transactions(TIMEOUT_S)
        self._consumer = Consumer(
            settings
            | {
                "group.id": self.target,
                "session.timeout.ms": 10_000,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": 16_384,
                "fetch.max.bytes": 8 << 20,
            }
        )
        self._consumer.subscribe([self.topic], on_assign=self._assigned, on_revoke=self._changed, on_lost=self._changed)

    def _make_target(self) -> None:
        """As many partitions as the topic has, and kept as long."""
        admin = AdminClient(self._address.settings(self._password))
        told = admin.list_topics(self.topic, timeout=TIMEOUT_S).topics[self.topic]
        if told.error is not None:
            raise KafkaException(told.error)
        resource = ConfigResource(ResourceType.TOPIC, self.topic)
        values = admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result(2 * TIMEOUT_S)
        config = {name: str(values[name].value) for name in KEPT if name in values}
        wanted = {self.target: len(told.partitions)}
        make_topics(self._address, self._password, wanted, config | {"message.timestamp.type": "CreateTime"})

    def _collect(self, wait_s: float) -> list[Message]:
        assert self._consumer is not None
        self._rebalanced = False
        messages = self._consumer.consume(AT_ONCE, 0)
        if not messages:
            first = self._consumer.poll(wait_s)
            messages = [] if first is None else [first, *self._consumer.consume(AT_ONCE, 0)]
        if self._rebalanced:
            # Some may be another's by now, or come again: all is read from what was committed.
            mine = [TopicPartition(one.topic, one.partition) for one in self._consumer.assignment()]
            self._consumer.assign(mine)
            return []
        for message in messages:
            error = message.error()
            if error is not None and not error.retriable():
                if error.code() in (KafkaError._PARTITION_EOF, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                    continue
                raise KafkaException(error)
        return [message for message in messages if message.error() is None]

    def _move(self, messages: Sequence[Message]) -> int:
        if not messages:
            return 0
        consumer, producer = self._consumer, self._producer
        assert consumer is not None and producer is not None
        following: dict[int, int] = {}
        for message in messages:
            following[int(message.partition() or 0)] = int(message.offset() or 0) + 1
        producer.begin_transaction()
        for place, key in self._keyed(messages):
            message = messages[place]
            while True:
                try:
                    producer.produce(self.target, message.value(), key, timestamp=message.timestamp()[1])
                    break
                except BufferError:
                    producer.poll(0.1)
        offsets = [TopicPartition(self.topic, partition, offset) for partition, offset in following.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), TIMEOUT_S)
        producer.commit_transaction(TRANSACTION_S)
        return len(messages)

    def _keyed(self, messages: Sequence[Message]) -> list[tuple[int, bytes]]:
        """Places of the messages that go on, and their keys."""
        times_us = np.array([message.timestamp()[1] for message in messages], dtype=np.int64) * 1000
        got = self._decoder.decode([message.value() for message in messages], times_us)
        if any(key not in got.events.column_names for key in self._keys):
            return []
        texts = [pc.cast(got.events.column(key), "string").to_pylist() for key in self._keys]
        pairs = zip(got.kept.tolist(), zip(*texts, strict=True), strict=True)
        return [(place, "|".join(parts).encode()) for place, parts in pairs if None not in parts]

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalanced = True
        consumer.assign(partitions)

    def _changed(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalanced = True
        consumer.unassign()
