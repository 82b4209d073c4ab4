"""What all our Kafka clients share: errors as ours, topics that are made, and a producer that waits for all acks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tidewheel.adapters.kafka_url import KafkaAddress
from tidewheel.errors import Unavailable

TIMEOUT_S = 10.0
DELIVERY_TIMEOUT_S = 30.0

# topic, key, body, headers, partition (-1: by key), timestamp in ms (0: now)
Record = tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]], int, int]


def unavailable(address: KafkaAddress, doing: str, error: KafkaException | KafkaError) -> Unavailable:
    """What librdkafka says, in one line that tells where and what was being done."""
    cause = error.args[0] if isinstance(error, KafkaException) and error.args else error
    text = cause.str() if isinstance(cause, KafkaError) else str(cause)
    return Unavailable(f"{address}: the event log does not answer, {doing} ({text})")


def make_topics(
    address: KafkaAddress, password: str | None, wanted: Mapping[str, int | None], config: Mapping[str, str]
) -> list[str]:
    """Topics of ``wanted`` that were missing and are there now; None partitions: as many as the URL says."""
    admin = AdminClient(address.settings(password))
    try:
        there = admin.list_topics(timeout=TIMEOUT_S).topics
        new = [
            NewTopic(name, n or address.partitions, address.replicas or -1, config=dict(config))
            for name, n in wanted.items()
            if name not in there
        ]
        futures = admin.create_topics(new, operation_timeout=TIMEOUT_S, request_timeout=TIMEOUT_S) if new else {}
        made = []
        for name, future in futures.items():
            try:
                future.result(2 * TIMEOUT_S)
                made.append(name)
            except KafkaException as error:
                # Somebody else made it at the same time.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        return made
    except KafkaException as error:
        raise unavailable(address, f"making topics {', '.join(wanted)}", error) from error


def new_producer(address: KafkaAddress, password: str | None, **more: Any) -> Producer:
    """Idempotent; keys go to the partition that Java's clients would choose."""
    return Producer(
        address.settings(password)
        | {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.kbytes": 65_536,
            "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
        }
        | more
    )


def send(producer: Producer, address: KafkaAddress, records: Iterable[Record], doing: str) -> int:
    """Produce all and wait for all acks; how many. Raises Unavailable where one was not taken."""
    failed: list[KafkaError] = []
    n_acked = 0

    def delivered(error: KafkaError | None, _message: Any) -> None:
        nonlocal n_acked
        if error is not None:
            failed.append(error)
        else:
            n_acked += 1

    n_sent = 0
    try:
        for topic, key, body, headers, partition, timestamp_ms in records:
            deadline = time.monotonic() + DELIVERY_TIMEOUT_S
            while not failed:
                try:
                    producer.produce(
                        topic, body, key, partition, on_delivery=delivered, timestamp=timestamp_ms, headers=headers
                    )
                    break
                except BufferError:  # what is on its way fills the buffer
                    producer.poll(0.1)
                    if time.monotonic() > deadline:
                        raise Unavailable(f"{address}: the event log takes nothing, {doing}") from None
            if failed:
                break
            n_sent += 1
            if n_sent % 1000 == 0:
                producer.poll(0)
        producer.flush(DELIVERY_TIMEOUT_S + 5)
    except KafkaException as error:
        raise unavailable(address, doing, error) from error
    if failed or n_acked < n_sent:
        reason = failed[0].str() if failed else "no answer in time"
        raise Unavailable(f"{address}: {n_acked} of the events were taken, then no more, {doing} ({reason}); "
                          "send all again when it answers: events that are known by their id drop")  # fmt: skip
    return n_acked
