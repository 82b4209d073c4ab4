"""From the log to the lake by partition: everything once, rubbish aside once, one writer at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from memory.event_log import MemoryEventLog
from memory.online_store import MemoryOnlineStore
from tidewheel.clock import SECOND_US, FixedClock
from tidewheel.features.history import HistoryLog
from tidewheel.features.keys import entity_keys
from tidewheel.features.lake import compact, lake_end, live_parts, parts, read_parquet, source_files, write_parquet
from tidewheel.features.lake_keeper import LakeKeeper, LakePlace
from tidewheel.features.ports import RejectedEvent, UnreadableEvents
from tidewheel.features.stream import StateKeeper
from unit.features.samples import MINUTE_US, START_US, payments_table, sample_features, sample_project

START = FixedClock(START_US).now_us()


def payments(first: int, n: int) -> pa.Table:
    return payments_table(
        [{"card": f"c{i % 3}", "shop": i % 2, "t": START + i * MINUTE_US // 10, "id": f"p{i}", "amount": float(i),
          "channel": "shop", "items": 1} for i in range(first, first + n)]
    )  # fmt: skip


def keeper(log: MemoryEventLog, folder: Path, partition: int = 0, dead: Any = None) -> LakeKeeper:
    place = LakePlace("payments", "payments", folder / "payments", folder / "_rejected", partition)
    return LakeKeeper(place, sample_project(), log, FixedClock(START), lambda *_, **__: None, dead)


def take_all(one: LakeKeeper, log: MemoryEventLog) -> None:
    clock: Any = one._clock
    while one.position < log.end("payments", one.place.partition):
        one.step()
        clock.at_us += 3 * SECOND_US


def rows_of(folder: Path) -> list[tuple[int, int]]:
    found = [read_parquet(part.path) for part in live_parts(folder)[0]]
    return [(row["_partition"], row["_offset"]) for one in found for row in one.to_pylist()]


def test_partitions_have_parts_and_an_end_of_their_own(tmp_path):
    log = MemoryEventLog(2)
    log.append("payments", payments(0, 10), 0)
    log.append("payments", payments(10, 4), 1)
    for partition in (0, 1):
        take_all(keeper(log, tmp_path, partition), log)
    folder = tmp_path / "payments"
    assert (lake_end(folder), lake_end(folder, 1), lake_end(folder, 2)) == (10, 4, 0)
    assert rows_of(folder) == [(0, i) for i in range(10)] + [(1, i) for i in range(4)]
    table = read_parquet(live_parts(folder)[0][0].path)
    assert [table.schema.field(name).type for name in ("_partition", "_offset", "_id_hash")] == [
        pa.int32(), pa.int64(), pa.int64(),
    ]  # fmt: skip


def test_what_is_no_event_is_set_aside_once_however_often_it_is_tried(tmp_path):
    log, dead = MemoryEventLog(), []

    def dead_letter(topic: str, partition: int, rejected: tuple[RejectedEvent, ...]) -> None:
        dead.extend((topic, partition, one.offset) for one in rejected)

    log.append("payments", payments(0, 10))
    for offset in (3, 7):
        log.spoil("payments", 0, offset, "not JSON: at 1")
    first = keeper(log, tmp_path, dead=dead_letter)
    take_all(first, log)
    first.close()
    for part in parts(tmp_path / "payments"):
        part.path.unlink()  # killed after the messages were set aside and before the part was there
    log.append("payments", payments(10, 2))
    again = keeper(log, tmp_path, dead=dead_letter)
    take_all(again, log)
    assert rows_of(tmp_path / "payments") == [(0, i) for i in range(12) if i not in (3, 7)]
    aside = [read_parquet(path).to_pylist() for path in (tmp_path / "_rejected").iterdir()]
    assert [(row["_offset"], row["reason"], row["body"]) for rows in aside for row in rows] == [
        (3, "not JSON: at 1", b"rubbish"), (7, "not JSON: at 1", b"rubbish"),
    ]  # fmt: skip
    assert (set(dead), again.n_rejected) == ({("payments", 0, 3), ("payments", 0, 7)}, {"not JSON": 2})


def test_a_second_writer_of_a_partition_waits_and_goes_on_where_the_first_ended(tmp_path):
    log = MemoryEventLog(2)
    log.append("payments", payments(0, 10))
    one, other = keeper(log, tmp_path), keeper(log, tmp_path)
    take_all(one, log)
    log.append("payments", payments(10, 5))
    for _ in range(3):
        assert other.step() == 0
    one.close()
    take_all(other, log)
    assert rows_of(tmp_path / "payments") == [(0, i) for i in range(15)]


def test_older_parts_without_a_partition_are_those_of_the_first(tmp_path):
    folder = tmp_path / "payments"
    write_parquet(folder / f"part-{0:020d}-{10:020d}.parquet", payments(0, 10))
    log = MemoryEventLog()
    log.append("payments", payments(0, 12))
    take_all(keeper(log, tmp_path), log)
    assert [(part.partition, part.first, part.following) for part in parts(folder)] == [(0, 0, 10), (0, 10, 12)]
    assert source_files(folder) == [part.path for part in parts(folder)]


def test_compaction_joins_parts_of_one_partition_only(tmp_path):
    log = MemoryEventLog(2)
    keepers = [keeper(log, tmp_path, partition) for partition in (0, 1)]
    for number in range(4):
        for one in keepers:
            log.append("payments", payments(number * 2, 2), one.place.partition)
            take_all(one, log)
    folder = tmp_path / "payments"
    compact(folder, 1000, 2, partition=1)
    assert [(part.partition, part.first, part.following) for part in live_parts(folder)[0]] == [
        *((0, first, first + 2) for first in range(0, 8, 2)), (1, 0, 8),
    ]  # fmt: skip
    assert rows_of(folder) == [(p, i) for p in (0, 1) for i in range(8)]


def test_a_new_state_is_filled_from_the_lake_where_the_log_begins_later(tmp_path):
    log, project = MemoryEventLog(), sample_project()
    log.append("payments", payments(0, 40))
    log.spoil("payments", 0, 5, "not JSON")
    take_all(keeper(log, tmp_path), log)
    (view,) = [view for view in sample_features(project).views if view.name == "card"]

    def filled(source: Any) -> dict[bytes, bytes | None]:
        store = MemoryOnlineStore()
        one = StateKeeper(view, 0, source, store, FixedClock(START), lambda *_, **__: None)  # type: ignore[arg-type]
        one._limit = 7
        while one.step():
            pass
        assert one.progress.position == 40
        keys = entity_keys(view.state.keys, [["c0", "c1", "c2"]])  # type: ignore[union-attr,list-item]
        return dict(zip(keys, store.read([(view.state, keys)])[0], strict=True))  # type: ignore[union-attr]

    whole = filled(log)
    log.begins["payments", 0] = 25
    history = HistoryLog(log, lambda: {"payments": tmp_path / "payments"})
    assert (history.begin("payments", 0), log.begin("payments", 0)) == (0, 25)
    assert (len(whole), filled(history)) == (3, whole)


def test_what_neither_log_nor_lake_has_is_said(tmp_path):
    log = MemoryEventLog()
    log.append("payments", payments(0, 10))
    log.begins["payments", 0] = 5
    with pytest.raises(UnreadableEvents, match="removed up to 5"):
        HistoryLog(log, dict).read("payments", 0, 2, 10)
