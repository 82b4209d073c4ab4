"""The event log in Kafka: JSON messages, read in batches from positions of our own and decoded once for all readers.

Offsets are Kafka's, so they have gaps where transactions ended or compaction removed something.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from numpy.typing import NDArray

from tidewheel.adapters.kafka_client import TIMEOUT_S, Record, make_topics, new_producer, send, unavailable
from tidewheel.adapters.kafka_reader import AT_ONCE, KafkaReader, Place
from tidewheel.adapters.kafka_url import KafkaAddress
from tidewheel.errors import Unavailable
from tidewheel.features.json_events import AnyDecoder, Decoder, encode_rows
from tidewheel.features.ports import LogBatch, RejectedEvent
from tidewheel.features.topics import dead_letter_topic, source_topic

MAX_READERS = 3  # places of one partition that are read at once without jumping: head, lake and a state that fills
HELD_ROWS, HELD_BYTES, HELD_BATCHES = 131_072, 32 << 20, 64  # decoded, per partition
READ_BYTES = 64 << 20
GATHER_S = 0.1  # how long a read with some events waits for more that are known to be there
LOOK_S = 1.0  # an end that a fetch told is believed for this long without asking
TOPIC_LOOK_S = 10.0
WAIT_S = 0.05

UNKNOWN = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC)
MOVING = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
DEAD_LETTERS = {"cleanup.policy": "compact,delete"}


@dataclass(frozen=True)
class _Chunk:
    """Decoded messages of offsets ``first`` .. ``following``."""

    first: int
    following: int
    offsets: NDArray[np.int64]
    events: pa.Table
    rejected: tuple[RejectedEvent, ...]
    n_bytes: int


class KafkaEventLog:
    """Safe for threads. ``decoders``: what the messages of a topic are; one that nobody declares is read as it is.
    ``keys``: the column whose value becomes the key of a topic's messages."""

    def __init__(
        self,
        address: KafkaAddress,
        password: str | None,
        decoders: Mapping[str, Decoder] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self._address, self._password = address, password
        self._decoders, self._keys = dict(decoders or {}), dict(keys or {})
        self._readers = [KafkaReader(address, password)]
        # A connection answers in order, so a question behind a fetch would wait until something comes: it has its own.
        self._asker = KafkaReader(address, password).consumer
        self._producer: Producer | None = None
        self._held: dict[Place, deque[_Chunk]] = {}
        self._ends: dict[Place, tuple[int, float]] = {}
        self._counts: dict[str, tuple[int, float]] = {}
        self._dead: set[str] = set()
        self._lock = threading.RLock()
        self._pause = threading.Event()

    def decode_by(self, decoders: Mapping[str, Decoder]) -> None:
        """From now on; what was decoded before is decoded again."""
        with self._lock:
            self._decoders = dict(decoders)
            self._held.clear()

    def append(self, topic: str, events: pa.Table) -> None:
        """Durable on all replicas in sync when it returns; where it raises, some may be there already."""
        if not events.num_rows:
            return
        self.make_topics({topic: None})
        column = self._keys.get(topic)
        bodies: Sequence[bytes] = encode_rows(events)
        named = column is not None and column in events.column_names
        keys = [_key(value) for value in events.column(column).to_pylist()] if named else [None] * len(bodies)
        records: Iterator[Record] = (
            (topic, key, body, [], -1, 0) for key, body in zip(keys, bodies, strict=True)
        )  # fmt: skip
        send(self._sender(), self._address, records, f"appending to {topic}")

    def make_topics(self, wanted: Mapping[str, int | None]) -> list[str]:
        """Make those that are missing, with so many partitions (None: as the URL says); their names."""
        missing = {topic: n for topic, n in wanted.items() if not self._count(topic)}
        if not missing:
            return []
        made = make_topics(self._address, self._password, missing, {"message.timestamp.type": "LogAppendTime"})
        with self._lock:
            for topic in missing:
                self._counts.pop(topic, None)
        self._wait_until_known(missing)
        return made

    def _wait_until_known(self, topics: Iterable[str]) -> None:
        """Brokers tell of a topic a moment after it was made; taken for one partition it would not be keyed anew."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while unknown := [topic for topic in topics if not self._count(topic)]:
            if time.monotonic() > deadline_s:
                raise Unavailable(f"{self._address}: made topics {', '.join(unknown)}, but no broker knows them yet")
            self._pause.wait(WAIT_S)

    def dead_letter(self, topic: str, partition: int, rejected: Sequence[RejectedEvent]) -> None:
        """Set messages aside in a topic of their own. Told twice it is the same message by key, and compaction
        keeps one."""
        if not rejected:
            return
        name = dead_letter_topic(topic)
        if name not in self._dead:
            make_topics(self._address, self._password, {name: 1}, DEAD_LETTERS)
            self._dead.add(name)
        records: Iterator[Record] = (
            (name, f"{topic}/{partition}/{one.offset}".encode(), one.body,
             [("reason", one.reason.encode()), ("partition", b"%d" % partition), ("offset", b"%d" % one.offset)], -1, 0)
            for one in rejected
        )  # fmt: skip
        send(self._sender(), self._address, records, f"setting messages of {topic} aside")

    def has_moved(self, topic: str, target: str, ends: Sequence[int]) -> bool:
        """Whether the messages before ``ends``, by partition, are in ``target``, where they are keyed anew."""
        group = Consumer(self._address.settings(self._password) | {"group.id": target})
        try:
            told = group.committed(
                [TopicPartition(topic, partition) for partition in range(len(ends))], timeout=TIMEOUT_S
            )
        except KafkaException as error:
            raise unavailable(self._address, f"asking how far {target} is", error) from error
        finally:
            group.close()
        return all(one.offset >= ends[one.partition] for one in told if ends[one.partition])

    def partitions(self, topic: str) -> int:
        return self._count(topic) or 1

    def begin(self, topic: str, partition: int) -> int:
        return self._ask((topic, partition))[0]

    def end(self, topic: str, partition: int) -> int:
        place, now_s = (topic, partition), time.monotonic()
        with self._lock:
            told, at_s = self._ends.get(place, (0, -LOOK_S))
            cached = max((reader.cached_end(place) for reader in self._readers), default=-1)
            if now_s - at_s < LOOK_S and cached >= 0:
                return max(told, cached)
            # Asked now and then, since a cluster that is gone must not look like one where nothing happens.
            end = max(self._ask(place)[1], cached)
            self._ends[place] = (end, now_s)
            return end

    def read(
        self, topic: str, partition: int, offset: int, max_rows: int, columns: Sequence[str] | None = None
    ) -> LogBatch:
        """Up to ``max_rows`` events; fewer where the rest does not come at once or is large."""
        place = (topic, partition)
        with self._lock:
            end = self.end(topic, partition)
            pieces: list[_Chunk] = []
            at, n_rows, n_bytes = offset, 0, 0
            give_up_s = time.monotonic() + GATHER_S
            while n_rows < max_rows and at < end and n_bytes < READ_BYTES:
                wait_s = TIMEOUT_S if at == offset else give_up_s - time.monotonic()
                chunk = self._chunk(place, at, wait_s)
                if chunk is None:
                    break
                piece = _cut(chunk, at, max_rows - n_rows)
                pieces.append(piece)
                n_rows, n_bytes, at = n_rows + len(piece.offsets), n_bytes + piece.n_bytes, piece.following
        return _joined(pieces, offset, columns)

    def close(self) -> None:
        with self._lock:
            for reader in self._readers:
                reader.close()
            self._asker.close()
            self._readers = []

    def _chunk(self, place: Place, at: int, wait_s: float) -> _Chunk | None:
        """Decoded messages that begin at ``at`` or hold it; None where none came."""
        held = self._held.setdefault(place, deque())
        for chunk in reversed(held):
            if chunk.first <= at < chunk.following:
                return chunk
        messages, following = self._reader(place, at).take(place, at, AT_ONCE, max(wait_s, 0.0))
        if following <= at:
            return None
        chunk = self._decoded(place[0], at, following, messages)
        held.append(chunk)
        while len(held) > 1 and (
            len(held) > HELD_BATCHES
            or sum(len(one.offsets) for one in held) > HELD_ROWS
            or sum(one.n_bytes for one in held) > HELD_BYTES
        ):
            held.popleft()
        return chunk

    def _reader(self, place: Place, at: int) -> KafkaReader:
        """One that goes on from there, else one that has not read this partition, else the one that did longest ago."""
        positions = [(reader, reader.position(place)) for reader in self._readers]
        for reader, found in positions:
            if found is not None and found[0] == at:
                return reader
        for reader, found in positions:
            if found is None:
                return reader
        if len(self._readers) < MAX_READERS:
            self._readers.append(KafkaReader(self._address, self._password))
            return self._readers[-1]
        return min(positions, key=lambda one: one[1][1] if one[1] else 0.0)[0]

    def _decoded(self, topic: str, first: int, following: int, messages: Sequence[Message]) -> _Chunk:
        bodies = [message.value() for message in messages]
        offsets = np.array([message.offset() for message in messages], dtype=np.int64)
        times_us = np.array([message.timestamp()[1] for message in messages], dtype=np.int64) * 1000
        decoder = self._decoders.get(source_topic(topic)) or AnyDecoder()
        got = decoder.decode(bodies, times_us)
        rejected = tuple(RejectedEvent(int(offsets[at]), why, bodies[at] or b"") for at, why in got.rejected)
        n_bytes = sum(map(len, messages))
        return _Chunk(first, following, offsets[got.kept], got.events, rejected, n_bytes)

    def _ask(self, place: Place) -> tuple[int, int]:
        """First offset and end, from the cluster; 0 and 0 where there is no such topic."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            try:
                told = self._asker.get_watermark_offsets(TopicPartition(*place), timeout=TIMEOUT_S)
                if told is not None:
                    return int(told[0]), int(told[1])
                error = KafkaException(KafkaError(KafkaError._TIMED_OUT))
            except KafkaException as caught:
                error = caught
            code = error.args[0].code()
            # Where the brokers are gone, too, it is called unknown; a list of topics tells them apart.
            if code in UNKNOWN and self._listed(place[0]) <= place[1]:
                return 0, 0
            if code not in (*UNKNOWN, *MOVING) or time.monotonic() > deadline_s:
                raise unavailable(self._address, f"asking for the end of {place[0]}/{place[1]}", error) from error
            self._pause.wait(0.05)

    def _count(self, topic: str) -> int:
        """Partitions, 0 where there is no such topic."""
        now_s = time.monotonic()
        count, at_s = self._counts.get(topic, (0, 0.0))
        if count and now_s - at_s < TOPIC_LOOK_S:
            return count
        count = self._listed(topic)
        self._counts[topic] = (count, now_s)
        return count

    def _listed(self, topic: str) -> int:
        try:
            told = self._asker.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
        except KafkaException as error:
            raise unavailable(self._address, f"asking for topic {topic}", error) from error
        if told.error is not None and told.error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, *MOVING):
            raise unavailable(self._address, f"asking for topic {topic}", told.error)
        return len(told.partitions)

    def _sender(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = new_producer(self._address, self._password)
            return self._producer


def _cut(chunk: _Chunk, at: int, max_rows: int) -> _Chunk:
    """What of it lies at or after ``at``, up to so many events."""
    start = int(np.searchsorted(chunk.offsets, at))
    stop = min(start + max_rows, len(chunk.offsets))
    following = int(chunk.offsets[stop]) if stop < len(chunk.offsets) else chunk.following
    rejected = tuple(one for one in chunk.rejected if at <= one.offset < following)
    events = chunk.events.slice(start, stop - start)
    return _Chunk(at, following, chunk.offsets[start:stop], events, rejected, chunk.n_bytes)


def _joined(pieces: Sequence[_Chunk], offset: int, columns: Sequence[str] | None) -> LogBatch:
    if not pieces:
        return LogBatch(np.zeros(0, dtype=np.int64), offset, pa.table({}))
    tables = [piece.events for piece in pieces]
    if columns is not None:
        tables = [table.select([name for name in columns if name in table.column_names]) for table in tables]
    events = tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="default")
    rejected = tuple(one for piece in pieces for one in piece.rejected)
    return LogBatch(np.concatenate([piece.offsets for piece in pieces]), pieces[-1].following, events, rejected)


def _key(value: object) -> bytes | None:
    return None if value is None else str(value).encode()
