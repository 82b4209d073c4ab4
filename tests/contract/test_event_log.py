"""What every event log does: the memory twin and the real one pass the same cases."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from memory.event_log import MemoryEventLog
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.kafka_event_log import KafkaEventLog
from tidewheel.adapters.kafka_url import parse_kafka_url
from tidewheel.features.ports import UnreadableEvents


def events(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64()), "text": [str(value) for value in values]})


@pytest.fixture(params=["memory", "file", pytest.param("kafka", marks=pytest.mark.integration)])
def log(request, tmp_path):
    if request.param == "memory":
        yield MemoryEventLog()
    elif request.param == "file":
        yield FileEventLog(tmp_path / "log")
    else:
        log = KafkaEventLog(parse_kafka_url(f"{request.getfixturevalue('kafka').url}?partitions=1"), None)
        yield log
        log.close()


@pytest.fixture
def topic():
    """A name that no other test uses: all have one broker."""
    return f"t-{uuid4().hex[:12]}"


def test_a_topic_that_does_not_exist_is_empty(log, topic):
    assert log.end(topic, 0) == 0
    batch = log.read(topic, 0, 0, 10)
    assert (batch.events.num_rows, len(batch.offsets), batch.following) == (0, 0, 0)


def test_offsets_count_rows(log, topic):
    log.append(topic, events(1, 2))
    log.append(topic, events(3))
    assert (log.end(topic, 0), log.end(f"{topic}-other", 0)) == (3, 0)


def test_a_read_crosses_appends_and_keeps_order(log, topic):
    for start in (0, 3, 6):
        log.append(topic, events(start, start + 1, start + 2))
    for offset in range(10):
        for size in (1, 2, 4, 100):
            batch = log.read(topic, 0, offset, size)
            got = batch.events.column("n").to_pylist() if batch.events.num_rows else []
            wanted = list(range(9))[offset : offset + size]
            assert (got, batch.offsets.tolist(), batch.following) == (wanted, wanted, offset + len(wanted))


def test_only_the_wanted_columns_are_read_and_unknown_ones_are_left_out(log, topic):
    log.append(topic, events(1))
    assert log.read(topic, 0, 0, 10, ["text", "unknown"]).events.to_pylist() == [{"text": "1"}]


def test_rows_count_even_where_none_of_the_wanted_columns_is_there(log, topic):
    log.append(topic, events(1, 2))
    log.append(topic, pa.table({"other": [1, 2, 3]}))
    log.append(topic, events(3))
    assert log.read(topic, 0, 0, 1000, ["n"]).events.column("n").to_pylist() == [1, 2, None, None, None, 3]
    assert log.read(topic, 0, 2, 1000, ["text"]).events.num_rows == 4


def test_an_append_of_no_rows_changes_nothing(log, topic):
    log.append(topic, events(1))
    log.append(topic, events())
    assert log.end(topic, 0) == 1


def test_a_column_that_came_later_is_null_before(log, topic):
    log.append(topic, events(1))
    log.append(topic, events(2).append_column("new", pa.array([True])))
    assert log.read(topic, 0, 0, 10).events.column("new").to_pylist() == [None, True]


def test_a_second_instance_sees_what_the_first_appends(tmp_path):
    writer, reader = FileEventLog(tmp_path), FileEventLog(tmp_path)
    assert reader.end("t", 0) == 0
    writer.append("t", events(1, 2))
    assert reader.end("t", 0) == 2
    writer.append("t", events(3))
    assert reader.read("t", 0, 1, 10).events.column("n").to_pylist() == [2, 3]
    assert FileEventLog(tmp_path).end("t", 0) == 3


def _append(folder: Path, worker: int, n: int) -> None:
    log = FileEventLog(folder)
    for i in range(n):
        log.append("t", events(worker * n + i, worker * n + i))


def test_appends_of_many_processes_never_mix_or_get_lost(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append, args=(tmp_path, worker, 20)) for worker in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    values = FileEventLog(tmp_path).read("t", 0, 0, 1000).events.column("n").to_pylist()
    assert sorted(values) == sorted(list(range(40)) * 2)
    assert values[0::2] == values[1::2]


def test_what_a_killed_appender_left_is_not_seen(tmp_path):
    log = FileEventLog(tmp_path)
    log.append("t", events(1))
    (tmp_path / "t" / ".00000000000000000001.arrow.99.tmp").write_bytes(b"half")
    assert FileEventLog(tmp_path).end("t", 0) == 1
    log.append("t", events(2))
    assert log.read("t", 0, 0, 10).events.column("n").to_pylist() == [1, 2]


def test_damaged_bytes_are_named_with_the_offsets_they_held(tmp_path):
    log = FileEventLog(tmp_path)
    for value in (1, 2, 3):
        log.append("t", events(value, value))
    (tmp_path / "t" / f"{2:020d}.arrow").write_bytes(b"damage")
    fresh = FileEventLog(tmp_path)
    assert fresh.end("t", 0) == 6
    assert fresh.read("t", 0, 0, 100).events.num_rows == 2
    with pytest.raises(UnreadableEvents) as caught:
        fresh.read("t", 0, 2, 100)
    assert (caught.value.first, caught.value.until) == (2, 4)
    assert fresh.read("t", 0, 4, 100).events.column("n").to_pylist() == [3, 3]
