"""The event log in a real Kafka: offsets with gaps, poison, what was removed, a broker that goes, TLS and users."""

from __future__ import annotations

import json
from uuid import uuid4

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec

from servers.kafka import PASSWORD, kafka_server
from tidewheel.adapters import kafka_reader
from tidewheel.adapters.kafka_event_log import KafkaEventLog
from tidewheel.adapters.kafka_url import parse_kafka_url
from tidewheel.errors import Unavailable
from tidewheel.features.json_events import EventDecoder, encode_rows
from tidewheel.features.ports import UnreadableEvents
from unit.features.samples import sample_project
from waiting import until

pytestmark = pytest.mark.integration

PROJECT = sample_project()
AT = "2018-04-01T12:00:00Z"


def message(number: int, **members: object) -> bytes:
    good = {"card": f"c{number % 7}", "shop": number % 3, "at": AT, "payment": f"p{number}", "amount": float(number)}
    return json.dumps({**good, **members}).encode()


def produce(server, topic: str, bodies, partition: int = 0, commit: bool | None = None) -> None:
    """As somebody else's service would; in a transaction that is committed or not, where ``commit`` is said."""
    settings = {**server.settings, **({} if commit is None else {"transactional.id": uuid4().hex})}
    producer = Producer(settings)
    if commit is not None:
        producer.init_transactions(20)
        producer.begin_transaction()
    for body in bodies:
        producer.produce(topic, body, partition=partition)
    producer.flush(20)
    if commit is not None:
        (producer.commit_transaction if commit else producer.abort_transaction)(20)


@pytest.fixture
def log(kafka):
    log = KafkaEventLog(parse_kafka_url(kafka.url), None)
    yield log
    log.close()


def reads(log, topic: str, partition: int = 0, size: int = 1000) -> list:
    """Batches from the start to the end."""
    at, batches = log.begin(topic, partition), []
    while at < log.end(topic, partition):
        batch = log.read(topic, partition, at, size)
        assert batch.following > at
        at = batch.following
        batches.append(batch)
    return batches


def test_poison_is_told_with_its_offset_and_the_rest_passes(kafka, log):
    topic = kafka.topic()
    log.decode_by({topic: EventDecoder(PROJECT, "payments")})
    bodies = [message(0), b"{", message(1), message(2, amount="x"), None, message(3, at="2300-01-01T00:00:00Z"), b"[]"]
    produce(kafka, topic, [*bodies, message(4)])
    batch = log.read(topic, 0, 0, 100)
    assert batch.offsets.tolist() == [0, 2, 7]
    assert batch.events.column("payment").to_pylist() == ["p0", "p1", "p4"]
    assert [(one.offset, one.body) for one in batch.rejected] == [
        (offset, bodies[offset] or b"") for offset in (1, 3, 4, 5, 6)
    ]
    assert batch.following == 8
    # However it is cut, every rejected message is told once.
    told = [one.offset for part in reads(log, topic, size=1) for one in part.rejected]
    assert told == [1, 3, 4, 5, 6]


def test_what_follows_the_last_event_is_passed_over(kafka, log):
    topic = kafka.topic()
    produce(kafka, topic, [b'{"n":0}', b'{"n":1}'], commit=True)  # offsets 0 and 1; 2 says that it ended
    produce(kafka, topic, [b'{"n":9}'], commit=False)  # 3 was taken back at 4
    produce(kafka, topic, [b'{"n":2}'], commit=True)
    batches = reads(log, topic)
    assert [offset for batch in batches for offset in batch.offsets.tolist()] == [0, 1, 5]
    assert batches[-1].following == log.end(topic, 0) == 7
    again = log.read(topic, 0, 6, 10)
    assert (again.events.num_rows, again.following) == (0, 7)


def test_readers_at_several_places_of_a_partition_see_the_same(kafka, log):
    topic = kafka.topic(2)
    for partition in (0, 1):
        produce(kafka, topic, [b'{"n":%d}' % n for n in range(partition * 5000, partition * 5000 + 5000)], partition)
    places = {(partition, start): start for partition in (0, 1) for start in (0, 100, 2500, 4000, 4990)}
    seen: dict[tuple[int, int], list[int]] = {place: [] for place in places}
    while any(at < 5000 for at in places.values()):
        for (partition, start), at in places.items():
            if at < 5000:
                batch = log.read(topic, partition, at, 700 + start // 10)
                seen[partition, start] += batch.events.column("n").to_pylist()
                places[partition, start] = batch.following
    for (partition, start), values in seen.items():
        assert values == list(range(partition * 5000 + start, partition * 5000 + 5000))


def test_a_partition_that_nobody_reads_waits_in_the_broker_not_in_memory(kafka, log, monkeypatch):
    monkeypatch.setattr(kafka_reader, "BUFFER_BYTES", 50_000)
    topic, body = kafka.topic(2), b'{"text":"%s"}' % (b"x" * 1000)
    for partition in (0, 1):
        produce(kafka, topic, [body] * 3000, partition)
    log.read(topic, 1, 0, 1)
    at = 0
    while at < 3000:
        at = log.read(topic, 0, at, 500).following
    (reader,) = log._readers
    assert reader._cursors[topic, 1].paused
    assert sum(batch.events.num_rows for batch in reads(log, topic, 1)) == 3000


def test_events_that_are_no_longer_kept_are_named(kafka, log):
    topic = kafka.topic()
    produce(kafka, topic, [b'{"n":%d}' % n for n in range(10)])
    place = TopicPartition(topic, 0, 4)
    kafka.admin().delete_records([place])[place].result(20)
    assert log.begin(topic, 0) == 4
    with pytest.raises(UnreadableEvents) as caught:
        log.read(topic, 0, 1, 10)
    assert (caught.value.first, caught.value.until) == (1, 4)
    assert log.read(topic, 0, 4, 10).events.column("n").to_pylist() == [4, 5, 6, 7, 8, 9]


def test_a_topic_that_was_just_made_has_all_its_partitions_at_once(kafka, log):
    for _ in range(20):
        topic = f"t-{uuid4().hex[:12]}"
        log.make_topics({topic: 5})
        assert log.partitions(topic) == 5


def test_rows_that_are_appended_come_back_keyed_and_in_order(kafka):
    topic = f"t-{uuid4().hex[:12]}"
    log = KafkaEventLog(parse_kafka_url(f"{kafka.url}?partitions=3"), None, keys={topic: "card"})
    log.decode_by({topic: EventDecoder(PROJECT, "payments")})
    rows = EventDecoder(PROJECT, "payments").decode([message(n) for n in range(500)], [2**53] * 500).events
    log.append(topic, rows)
    assert log.partitions(topic) == 3
    got = [batch.events for partition in range(3) for batch in reads(log, topic, partition)]
    assert sum(map(len, got)) == 500
    for table in got:
        numbers = [int(payment[1:]) for payment in table.column("payment").to_pylist()]
        assert numbers == sorted(numbers)
    where: dict[str, set[int]] = {}
    for partition, table in enumerate(got):
        for card in table.column("card").to_pylist():
            where.setdefault(card, set()).add(partition)
    assert all(len(partitions) == 1 for partitions in where.values())
    back = pa.concat_tables(got).sort_by("amount")
    assert encode_rows(back.select(rows.column_names)) == encode_rows(rows)
    log.close()


def test_dead_letters_say_why_and_from_where(kafka, log):
    topic = kafka.topic()
    log.decode_by({topic: EventDecoder(PROJECT, "payments")})
    produce(kafka, topic, [b"{", message(1)])
    rejected = log.read(topic, 0, 0, 10).rejected
    log.dead_letter(topic, 0, rejected)
    log.dead_letter(topic, 0, rejected)
    client = Consumer({**kafka.settings, "group.id": "test", "auto.offset.reset": "earliest"})
    client.assign([TopicPartition(f"{topic}.dead", 0, 0)])
    first, second = client.consume(2, 20)
    client.close()
    assert (first.key(), first.value()) == (f"{topic}/0/0".encode(), b"{")
    assert dict(first.headers()) == {
        "reason": b"not JSON: Input data was truncated", "partition": b"0", "offset": b"0"
    }  # fmt: skip
    assert second.key() == first.key()


def test_a_broker_that_goes_is_unavailable_and_reading_goes_on_when_it_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr("tidewheel.adapters.kafka_event_log.TIMEOUT_S", 1.0)
    with kafka_server(tmp_path / "kafka") as server:
        topic = server.topic()
        produce(server, topic, [b'{"n":0}'])
        log = KafkaEventLog(parse_kafka_url(server.url), None)
        assert log.read(topic, 0, 0, 10).following == 1
        server.stop()

        def gone() -> bool:
            try:
                log.end(topic, 0)
            except Unavailable as error:
                assert "kafka://127.0.0.1" in str(error)
                return True
            return False

        until(gone)  # at most a second after the last answer
        server.start()
        produce(server, topic, [b'{"n":1}'])
        until(lambda: not gone() and log.end(topic, 0) == 2)
        assert log.read(topic, 0, 1, 10).events.column("n").to_pylist() == [1]
        log.close()


def test_tls_and_a_user_and_a_wrong_password(tmp_path, monkeypatch):
    with kafka_server(tmp_path / "kafka", secure=True) as server:
        log = KafkaEventLog(parse_kafka_url(f"{server.url}&partitions=1"), PASSWORD)
        log.append("t", pa.table({"n": [1, 2]}))
        assert log.read("t", 0, 0, 10).events.column("n").to_pylist() == [1, 2]
        log.close()
        monkeypatch.setattr("tidewheel.adapters.kafka_event_log.TIMEOUT_S", 1.0)
        stranger = KafkaEventLog(parse_kafka_url(server.url), "wrong")
        with pytest.raises(Unavailable):
            stranger.append("t", pa.table({"n": [3]}))
        stranger.close()
        assert server.admin().list_offsets({TopicPartition("t", 0): OffsetSpec.latest()})
