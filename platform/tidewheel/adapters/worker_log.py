"""The event log as a worker uses it: which partitions are its own, what messages mean, who keys them anew."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from tidewheel.adapters.connections import event_log_kind, open_event_log, read_connections
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.passwords import password
from tidewheel.errors import Unavailable
from tidewheel.features.ports import EventLog, RejectedEvent
from tidewheel.features.stream import Tell
from tidewheel.features.topics import source_topic

if TYPE_CHECKING:
    from tidewheel.adapters.kafka_event_log import KafkaEventLog
    from tidewheel.adapters.kafka_repartition import KafkaRepartitioner
    from tidewheel.adapters.kafka_url import KafkaAddress
    from tidewheel.features.json_events import Decoder

RETRY_S = 0.5
WAIT_S = 0.05  # how long a repartitioner waits for a message before it looks whether it should end

Place = tuple[str, int]  # topic and partition


class WorkerLog(Protocol):
    """Raises Unavailable where the log does not answer."""

    log: EventLog
    alone: bool  # whether only one worker of a home may run

    def decode_by(self, decoders: Mapping[str, Decoder]) -> None:
        """What the messages of each topic are; topics that do not exist are made."""
        ...

    def key_anew(self, wanted: Mapping[str, tuple[str, ...]]) -> None:
        """Topics to write, each from its source topic by these columns."""
        ...

    def owned(self, topics: Collection[str]) -> frozenset[Place]:
        """Ask often: a rebalance goes on only while it is asked."""
        ...

    def dead_letter(self, topic: str, partition: int, rejected: Sequence[RejectedEvent]) -> None: ...

    def close(self) -> None: ...


class PlainWorkerLog:
    """A log whose events are what they should be and are all ours, as one in files."""

    def __init__(self, log: EventLog) -> None:
        self.log, self.alone = log, True

    def decode_by(self, decoders: Mapping[str, Decoder]) -> None:
        return

    def key_anew(self, wanted: Mapping[str, tuple[str, ...]]) -> None:
        return

    def owned(self, topics: Collection[str]) -> frozenset[Place]:
        return frozenset((topic, place) for topic in topics for place in range(self.log.partitions(topic)))

    def dead_letter(self, topic: str, partition: int, rejected: Sequence[RejectedEvent]) -> None:
        return

    def close(self) -> None:
        return


class KafkaWorkerLog:
    """Workers of one home share out the partitions as members of one group."""

    def __init__(self, log: KafkaEventLog, address: KafkaAddress, secret: str | None, group: str, tell: Tell) -> None:
        from tidewheel.adapters.kafka_ownership import KafkaOwnership

        self.log: EventLog = log
        self.alone = False
        self._kafka, self._address, self._secret, self._tell = log, address, secret, tell
        self._ownership = KafkaOwnership(address, secret, group)
        self._decoders: Mapping[str, Decoder] = {}
        self._running: dict[str, tuple[threading.Event, threading.Thread]] = {}

    def decode_by(self, decoders: Mapping[str, Decoder]) -> None:
        self._decoders = dict(decoders)
        self._kafka.make_topics(dict.fromkeys(decoders))
        self._kafka.decode_by(decoders)
        self._end(list(self._running))  # begun again by what the messages are now

    def key_anew(self, wanted: Mapping[str, tuple[str, ...]]) -> None:
        self._end([topic for topic in self._running if topic not in wanted])
        for topic, keys in wanted.items():
            if topic not in self._running:
                self._begin(topic, keys)

    def owned(self, topics: Collection[str]) -> frozenset[Place]:
        return self._ownership.owned(topics)

    def dead_letter(self, topic: str, partition: int, rejected: Sequence[RejectedEvent]) -> None:
        self._kafka.dead_letter(topic, partition, rejected)

    def close(self) -> None:
        self._end(list(self._running))
        self._ownership.close()
        self._kafka.close()

    def _begin(self, topic: str, keys: tuple[str, ...]) -> None:
        from tidewheel.adapters.kafka_repartition import KafkaRepartitioner

        source = source_topic(topic)
        mover = KafkaRepartitioner(self._address, self._secret, source, keys, self._decoders[source])
        stopped = threading.Event()
        thread = threading.Thread(target=self._move, args=(mover, stopped), name=topic, daemon=True)
        self._running[topic] = (stopped, thread)
        thread.start()

    def _move(self, mover: KafkaRepartitioner, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                mover.step(WAIT_S)
            except Unavailable as error:
                self._tell("retrying", reason=str(error))
                stopped.wait(RETRY_S)
        mover.close()

    def _end(self, topics: Collection[str]) -> None:
        for topic in topics:
            self._running[topic][0].set()
        for topic in topics:
            self._running.pop(topic)[1].join()


def open_worker_log(home: LocalHome, tell: Tell) -> WorkerLog:
    """The log that the home is connected to. Raises InputError for a URL that cannot be used."""
    url = read_connections(home).event_log
    log = open_event_log(home)
    if event_log_kind(url) == "file":
        return PlainWorkerLog(log)
    from tidewheel.adapters.kafka_event_log import KafkaEventLog
    from tidewheel.adapters.kafka_url import parse_kafka_url

    assert url is not None and isinstance(log, KafkaEventLog)
    return KafkaWorkerLog(log, parse_kafka_url(url), password("KAFKA"), f"tidewheel.worker.{_home_id(home)}", tell)


def _home_id(home: LocalHome) -> str:
    """One per home, so that two homes at one cluster do not share out each other's work."""
    path = home.root / "stream-group"
    if not path.exists():
        own = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        own.write_text(uuid4().hex)
        with suppress(FileExistsError):
            os.link(own, path)  # whoever is first names it for all
        own.unlink()
    return path.read_text()
