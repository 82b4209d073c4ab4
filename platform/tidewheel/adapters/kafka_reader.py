"""One Kafka consumer that reads partitions from wherever it is told to; no group, no commits."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tidewheel.adapters.kafka_client import TIMEOUT_S, unavailable
from tidewheel.adapters.kafka_url import KafkaAddress
from tidewheel.errors import Unavailable
from tidewheel.features.ports import UnreadableEvents

AT_ONCE = 16_384  # messages asked of librdkafka at a time
BUFFER_BYTES = 8 << 20  # of one partition, that wait here while others are read
IDLE_S = 60.0  # a partition that nobody has read for this long is let go

Place = tuple[str, int]  # topic and partition

# Bounds of what waits inside librdkafka, per consumer.
FETCH = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "queued.max.messages.kbytes": 32_768,
    "fetch.max.bytes": 16 << 20,
    "max.partition.fetch.bytes": 2 << 20,
    "fetch.wait.max.ms": 500,
    "fetch.error.backoff.ms": 100,
    "fetch.queue.backoff.ms": 20,
}


@dataclass
class _Cursor:
    """Messages of one partition from ``at`` on; ``end`` is where the log was found to end, past transaction marks."""

    at: int
    waiting: deque[Message] = field(default_factory=deque)
    n_bytes: int = 0
    end: int | None = None
    paused: bool = False
    lost: KafkaError | None = None
    used_s: float = 0.0


class KafkaReader:
    """Not safe for threads; the log that owns it holds a lock."""

    def __init__(self, address: KafkaAddress, password: str | None) -> None:
        self._address = address
        self.consumer = Consumer(address.settings(password) | FETCH | {"group.id": "tidewheel-reads-without-a-group"})
        self._cursors: dict[Place, _Cursor] = {}
        self._failed: KafkaError | None = None

    def position(self, place: Place) -> tuple[int, float] | None:
        """The offset that ``take`` goes on from without a jump, and when it was last asked (monotonic, s)."""
        cursor = self._cursors.get(place)
        return None if cursor is None else (cursor.at, cursor.used_s)

    def take(self, place: Place, offset: int, max_rows: int, wait_s: float) -> tuple[list[Message], int]:
        """Messages from ``offset`` on, and where to read on; waits for the first. None at the end, where the second
        may lie behind transaction marks. Raises Unavailable, and UnreadableEvents where the log begins later."""
        now_s = time.monotonic()
        cursor = self._at(place, offset, now_s)
        deadline_s = now_s + wait_s
        if not cursor.waiting:
            self._collect(0.0)  # an end that was told before may be one no more
        while not cursor.waiting and cursor.lost is None and (cursor.end is None or cursor.end < cursor.at):
            self._collect(deadline_s - time.monotonic())
            if cursor.waiting or cursor.end is not None or time.monotonic() < deadline_s:
                continue
            if wait_s < TIMEOUT_S:
                return [], offset
            text = f" ({self._failed.str()})" if self._failed is not None else ""
            raise Unavailable(f"{self._address}: no answer in {wait_s:g} s, reading {place[0]}/{place[1]}{text}")
        if cursor.lost is not None:
            self._let_go(place)
            raise self._lost(place, offset, cursor.lost)
        taken = [cursor.waiting.popleft() for _ in range(min(max_rows, len(cursor.waiting)))]
        if not taken:
            cursor.at = max(cursor.at, cursor.end or 0)
            return [], cursor.at
        cursor.n_bytes -= sum(map(len, taken))
        cursor.at = int(taken[-1].offset()) + 1
        if cursor.paused and cursor.n_bytes < BUFFER_BYTES // 2:
            self.consumer.resume([TopicPartition(*place)])
            cursor.paused = False
        return taken, cursor.at

    def cached_end(self, place: Place) -> int:
        """The end as the last fetch told it, -1 where it is not known."""
        if place not in self._cursors:
            return -1
        _, high = self.consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        return int(high) if high is not None and high >= 0 else -1

    def close(self) -> None:
        self.consumer.close()

    def _at(self, place: Place, offset: int, now_s: float) -> _Cursor:
        cursor = self._cursors.get(place)
        if cursor is None or cursor.at != offset:
            if cursor is not None:
                self._let_go(place)
            for other in [other for other, one in self._cursors.items() if now_s - one.used_s > IDLE_S]:
                self._let_go(other)
            cursor = self._cursors[place] = _Cursor(offset)
            self._try(lambda: self.consumer.incremental_assign([TopicPartition(*place, offset)]), place)
        cursor.used_s = now_s
        return cursor

    def _let_go(self, place: Place) -> None:
        del self._cursors[place]
        self._try(lambda: self.consumer.incremental_unassign([TopicPartition(*place)]), place)

    def _try(self, call, place: Place) -> None:  # type: ignore[no-untyped-def]
        try:
            call()
        except KafkaException as error:
            raise unavailable(self._address, f"reading {place[0]}/{place[1]}", error) from error

    def _collect(self, wait_s: float) -> None:
        """Sort what has come by partition; waits for something where nothing has."""
        # A wait for many messages goes on until it has all of them; so only the first is waited for.
        messages = self.consumer.consume(AT_ONCE, 0)
        if not messages:
            first = self.consumer.poll(max(wait_s, 0.0))
            messages = [] if first is None else [first, *self.consumer.consume(AT_ONCE, 0)]
        full: list[TopicPartition] = []
        for message in messages:
            error = message.error()
            cursor = self._cursors.get((message.topic(), message.partition()))
            if error is not None:
                self._note(error, cursor, message)
            elif cursor is not None:
                cursor.waiting.append(message)
                cursor.n_bytes += len(message)
                cursor.end = None
                if cursor.n_bytes > BUFFER_BYTES and not cursor.paused:
                    cursor.paused = True
                    full.append(TopicPartition(message.topic(), message.partition()))
        if full:
            self.consumer.pause(full)

    def _note(self, error: KafkaError, cursor: _Cursor | None, message: Message) -> None:
        if cursor is not None and error.code() == KafkaError._PARTITION_EOF:
            cursor.end = int(message.offset())
        elif cursor is not None and error.code() in (
            KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._UNKNOWN_PARTITION,
        ):  # fmt: skip
            cursor.lost = error
        else:
            self._failed = error

    def _lost(self, place: Place, offset: int, error: KafkaError) -> Exception:
        where = f"{self._address}: {place[0]}/{place[1]}"
        if error.code() not in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            return Unavailable(f"{where}: cannot be read ({error.str()})")
        low, high = self.consumer.get_watermark_offsets(TopicPartition(*place), timeout=TIMEOUT_S)
        if offset < low:
            return UnreadableEvents(f"{where}: events {offset} to {low - 1} are no longer kept", offset, int(low))
        return Unavailable(
            f"{where}: ends at {high}, but {offset} was read before; if the topic was made anew, empty the online store"
        )
