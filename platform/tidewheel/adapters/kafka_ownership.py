"""Which partitions this replica of the worker takes care of. Nothing is read and nothing committed here.

Positions are in the online store, so two owners at once do no harm and the group only shares out the work.
"""

from __future__ import annotations

from collections.abc import Collection

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tidewheel.adapters.kafka_client import unavailable
from tidewheel.adapters.kafka_url import KafkaAddress

Owned = frozenset[tuple[str, int]]


class KafkaOwnership:
    """A member of ``group`` whose partitions are paused. Ask often: a member that does not ask for five minutes loses
    everything to the others. Closing it hands them over at once, a crash in ten seconds."""

    def __init__(self, address: KafkaAddress, password: str | None, group: str) -> None:
        self._address = address
        self._topics: frozenset[str] = frozenset()
        self._owned: set[tuple[str, int]] = set()
        self._consumer = Consumer(
            address.settings(password)
            | {
                "group.id": group,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 3_000,
                "max.poll.interval.ms": 300_000,
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                # Partitions that are added, and topics that are made later, are noticed this soon.
                "topic.metadata.refresh.interval.ms": 10_000,
                "queued.max.messages.kbytes": 1_024,
            }
        )

    def owned(self, topics: Collection[str]) -> Owned:
        """Empty until the group has settled. Raises Unavailable where we may not be a member."""
        wanted = frozenset(topics)
        try:
            if wanted != self._topics:
                self._topics = wanted
                if wanted:
                    self._consumer.subscribe(
                        sorted(wanted), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
                    )
                else:
                    self._consumer.unsubscribe()
            while (message := self._consumer.poll(0)) is not None:
                error = message.error()
                if error is not None and error.code() in (
                    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED,
                ):  # fmt: skip
                    raise unavailable(self._address, "sharing out the work", error)
        except KafkaException as error:
            raise unavailable(self._address, "sharing out the work", error) from error
        return frozenset(place for place in self._owned if place[0] in wanted)

    def close(self) -> None:
        self._consumer.close()
        self._owned.clear()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)
        self._owned.update((one.topic, one.partition) for one in partitions)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned.difference_update((one.topic, one.partition) for one in partitions)
        consumer.incremental_unassign(partitions)
