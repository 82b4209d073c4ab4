"""The spool: what was acknowledged is shipped once, whatever happens in between."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.adapters.lake_parts import part_writer
from tidewheel.clock import FixedClock
from tidewheel.serving.prediction_log import PredictionLog, segments
from tidewheel.serving.prediction_record import RecordFrame
from tidewheel.serving.prediction_table import prediction_schema
from tidewheel.serving.shipper import Shipper
from tidewheel.serving.shipper_files import LoggedColumns, write_columns


def record(number: int, **columns: Any) -> RecordFrame:
    return RecordFrame(
        project="tiny", version="1", digest="d", feature_digest="f", role="champion", generation=3, logged_at_us=17,
        request_ids=[f"r{number}"], tests=(), event_times_us=[1_600_000_000_000_000 + number],
        event_ids=[f"e{number}"], units=["7"], features=np.array([number, np.nan]).tobytes(), positions=b"",
        scores=[0.5], decisions=["review"], reasons=(), latencies_us=[900],
        columns={name: [value] for name, value in {"customer_id": 7, "amount": 1.5, **columns}.items()},
    )  # fmt: skip


def open_log(tmp_path: Path, **how: Any) -> PredictionLog:
    return PredictionLog(tmp_path / "spool" / "tiny-0", FixedClock(1_000), **how)


COLUMNS = LoggedColumns({"customer_id": "int64", "amount": "float64", "channel": "string"}, "paid_at", "payment_id")


def shipper(log: PredictionLog, tmp_path: Path) -> Shipper:
    write_columns(log.folder, COLUMNS)
    return Shipper(log.folder, part_writer(str(tmp_path / "lake")))


def shipped(log: PredictionLog, tmp_path: Path) -> Shipper:
    """A shipper that has shipped all that was written."""
    log.rotate()
    made = shipper(log, tmp_path)
    made.ship()
    return made


def lake(tmp_path: Path) -> list[str]:
    if not list((tmp_path / "lake").glob("part-*.parquet")):
        return []
    return sorted(pq.read_table(tmp_path / "lake")["request_id"].to_pylist())


def test_records_arrive_in_the_lake_with_the_requests_own_types(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    assert log.write([record(1), record(2, amount=None, channel="online")])
    log.rotate()
    assert shipper(log, tmp_path).ship() == 2
    (part,) = (tmp_path / "lake").glob("part-*.parquet")
    table = pq.read_table(part)
    schema = prediction_schema(COLUMNS.columns, COLUMNS.event_time, COLUMNS.event_id)
    assert table.schema.remove_metadata().equals(schema.remove_metadata())
    rows = table.select(["request.customer_id", "request.amount", "request.channel", "request.payment_id"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(7, 1.5, None, "e1"), (7, None, "online", "e2")]
    assert table["features"].to_pylist()[0][0] == 1.0
    assert pa.types.is_timestamp(table.schema.field("request.paid_at").type)
    assert segments(log.folder) == []


def test_a_crash_before_shipping_loses_nothing(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.write([record(1)])
    log.close()  # as the kernel does when the process is killed
    again = open_log(tmp_path)
    again.write([record(2)])
    shipped(again, tmp_path)
    assert lake(tmp_path) == ["r1", "r2"]


def test_a_crash_between_part_and_removal_ships_the_same_part_again(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.write([record(1), record(2)])
    (segment,) = log.rotate()
    kept = segment.read_bytes()
    shipped(log, tmp_path)
    segment.write_bytes(kept)  # the removal never happened
    shipped(log, tmp_path)
    assert lake(tmp_path) == ["r1", "r2"]


@pytest.mark.parametrize("cut", [1, 5, 9, 40])
def test_a_torn_tail_is_cut_off(tmp_path: Path, cut: int) -> None:
    log = open_log(tmp_path)
    log.write([record(1)])
    log.write([record(2)])
    (segment,) = log.rotate()
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert shipped(log, tmp_path).torn_bytes > 0
    assert lake(tmp_path) == ["r1"]


def test_a_damaged_tail_is_cut_off(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.write([record(1)])
    log.write([record(2)])
    (segment,) = log.rotate()
    data = bytearray(segment.read_bytes())
    data[-3] ^= 0xFF
    segment.write_bytes(bytes(data))
    shipped(log, tmp_path)
    assert lake(tmp_path) == ["r1"]


def test_a_dead_sink_delays_and_loses_nothing(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    (tmp_path / "lake").write_text("a file where the folder should be")
    ship = shipper(log, tmp_path)
    for number in (1, 2):
        log.write([record(number)])
        log.rotate()
        assert ship.ship() == 0
    assert (ship.failures, "lake" in ship.error) == (2, True)
    (tmp_path / "lake").unlink()
    assert ship.ship() == 2
    assert lake(tmp_path) == ["r1", "r2"]


def test_a_full_disk_is_counted_and_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path)
    log.write([record(1)])
    real, full = os.write, True

    def write(descriptor: int, data: bytes) -> int:
        if not full:
            return real(descriptor, data)
        real(descriptor, data[:10])  # some bytes still fitted
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "write", write)
    assert not log.write([record(2), record(3)])
    assert (log.counters.lost, log.counters.failing) == (2, True)
    full = False
    assert log.write([record(4)])
    assert not log.counters.failing
    shipped(log, tmp_path)
    assert lake(tmp_path) == ["r1", "r4"]


def test_a_spool_over_its_limit_drops_and_counts_until_it_was_shipped(tmp_path: Path) -> None:
    log = open_log(tmp_path, max_spool_bytes=400)
    assert [log.write([record(n)]) for n in range(4)].count(False) == log.counters.lost > 0
    log.rotate()
    assert not log.write([record(8)]), "what is closed still takes up room"
    shipped(log, tmp_path)
    log.rotate()
    assert log.write([record(9)])


def test_what_was_lost_is_a_gap_in_the_numbers_of_the_lake(tmp_path: Path) -> None:
    log = open_log(tmp_path, max_spool_bytes=600)
    for number in range(5):
        log.write([record(number)])
    shipped(log, tmp_path)
    log.rotate()
    log.write([record(9)])
    shipped(log, tmp_path)
    table = pq.read_table(tmp_path / "lake")
    assert len(set(table["writer"].to_pylist())) == 1
    kept = sorted(table["sequence"].to_pylist())
    assert kept[-1] == 5
    assert 6 - len(kept) == log.counters.lost > 0


def test_a_writer_that_starts_again_counts_anew_under_another_name(tmp_path: Path) -> None:
    for number in range(2):
        log = open_log(tmp_path, pod_uid="pod-7")
        log.write([record(number)])
        shipped(log, tmp_path)
        log.close()
    table = pq.read_table(tmp_path / "lake")
    assert table["sequence"].to_pylist() == [0, 0]
    assert len({name for name in table["writer"].to_pylist() if name.startswith("pod-7:")}) == 2


def test_a_disk_is_synced_only_where_something_was_written(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.sync()
    assert log.counters.syncs == 0
    log.write([record(1)])
    log.sync()
    log.sync()
    assert log.counters.syncs == 1
    log.write([record(2)])
    log.sync()
    assert log.counters.syncs == 2


def test_the_same_record_twice_in_a_segment_is_kept_once(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.write([record(1), record(1)])
    shipped(log, tmp_path)
    assert lake(tmp_path) == ["r1"]


def test_a_living_spool_belongs_to_one_process(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    with pytest.raises(BlockingIOError):
        open_log(tmp_path)
    log.close()
    open_log(tmp_path).close()


def test_what_a_dead_neighbour_left_is_shipped_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    dead = PredictionLog(tmp_path / "spool" / "tiny-1", FixedClock(5))
    dead.write([record(1)])
    dead.close()
    living = PredictionLog(tmp_path / "spool" / "tiny-2", FixedClock(5))
    living.write([record(2)])
    other_project = PredictionLog(tmp_path / "spool" / "tiny-more-0", FixedClock(5))
    other_project.write([record(3)])
    other_project.close()
    shipper(open_log(tmp_path), tmp_path).adopt_orphans()
    assert lake(tmp_path) == ["r1"]


def test_segment_names_are_never_used_twice(tmp_path: Path) -> None:
    log = open_log(tmp_path)  # the clock stands still
    names = set()
    for number in range(3):
        log.write([record(number)])
        names |= {path.name for path in log.rotate()}
    assert len(names) == 3
