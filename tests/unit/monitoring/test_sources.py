"""Reading windows out of a lake, and what a source usually delivers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.clock import DAY_US, parse_utc
from tidewheel.errors import InputError
from tidewheel.monitoring.given import ColumnFacts, SourceFacts
from tidewheel.monitoring.parquet_window import ParquetFolder
from tidewheel.monitoring.source_facts import read_source

START = parse_utc("2026-03-02")  # a Monday
NAMES = ("amount", "channel")


def write(folder: Path, day: int, amounts: list[float | None], *, channel: str = "ab") -> None:
    """One file with a day's events, evenly over the day; the last one at midnight belongs to the day."""
    folder.mkdir(exist_ok=True)
    n = len(amounts)
    times = START + day * DAY_US + (np.arange(1, n + 1) * DAY_US) // n
    table = pa.table(
        {
            "at": pa.array(times, pa.timestamp("us", "UTC")),
            "id": pa.array(times, pa.int64()),
            "amount": pa.array(amounts, pa.float64()),
            "channel": pa.array([channel[i % len(channel)] for i in range(n)]),
        }
    )
    pq.write_table(table, folder / f"part-{day:03d}.parquet", row_group_size=64)


def amounts(n: int) -> list[float | None]:
    return [float(i) for i in range(n)]


def read(folder: Path, day: int) -> SourceFacts | None:
    return read_source("payments", ParquetFolder(folder, "at"), NAMES, START + (day + 1) * DAY_US, DAY_US, "id")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "payments"
    for day in range(8):
        write(folder, day, amounts(200))
    return folder


def test_a_window_is_open_at_its_start_and_closed_at_its_end(lake: Path) -> None:
    folder = ParquetFolder(lake, "at")
    tables = list(folder.tables(("amount", "never"), START + DAY_US, START + 2 * DAY_US))
    rows = pa.concat_tables(tables, promote_options="permissive")
    assert rows["amount"].to_pylist() == amounts(200)
    assert rows["never"].null_count == 200
    assert (folder.first_us, folder.last_us) == (START + DAY_US // 200, START + 8 * DAY_US)


def test_the_index_of_files_follows_what_comes_and_goes(lake: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    assert ParquetFolder(lake, "at", index).last_us == START + 8 * DAY_US
    write(lake, 8, amounts(10))
    (lake / "part-000.parquet").unlink()
    folder = ParquetFolder(lake, "at", index)
    assert (folder.first_us, folder.last_us) == (START + DAY_US + DAY_US // 200, START + 9 * DAY_US)
    index.write_text("{damaged")
    assert ParquetFolder(lake, "at", index).last_us == START + 9 * DAY_US


def test_a_folder_that_is_not_there_or_empty_has_no_rows(tmp_path: Path) -> None:
    folder = ParquetFolder(tmp_path / "nothing", "at")
    assert (folder.first_us, list(folder.tables(NAMES, 0, 2**60))) == (None, [])
    write(tmp_path / "empty", 0, [])
    assert ParquetFolder(tmp_path / "empty", "at").first_us is None


def test_a_file_that_cannot_be_read_is_named(lake: Path) -> None:
    (lake / "part-999.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match=r"part-999.parquet: cannot be read"):
        ParquetFolder(lake, "at")


def test_a_usual_day_looks_like_the_days_before(lake: Path) -> None:
    want = SourceFacts(
        "payments",
        200,
        200.0,
        (
            ColumnFacts("amount", 200, 0.0, 0.0, 1 / 200, 1 / 200, 1 / 200),
            ColumnFacts("channel", 200, 0.0, 0.0, 0.5, 0.5, 0.5),
        ),
    )
    assert read(lake, 7) == want


def test_missing_values_and_a_stuck_column_show_beside_the_usual_share(lake: Path) -> None:
    write(lake, 7, [7.0 if i % 2 else None for i in range(200)], channel="a")
    facts = read(lake, 7)
    assert facts is not None
    assert facts.columns == (
        ColumnFacts("amount", 200, 0.5, 0.0, 1.0, 1 / 200, 1 / 200),
        ColumnFacts("channel", 200, 0.0, 0.0, 1.0, 0.5, 0.5),
    )


def test_a_quiet_weekday_is_compared_with_itself_a_week_before(lake: Path) -> None:
    write(lake, -1, amounts(200))
    write(lake, 0, amounts(20))
    write(lake, 7, amounts(19))
    facts = read(lake, 7)
    assert facts is not None
    assert (facts.n_events, facts.usual_n_events) == (19, 20.0)


def test_a_day_without_any_event_is_compared_with_the_days_before(lake: Path) -> None:
    (lake / "part-007.parquet").unlink()
    facts = read(lake, 7)
    assert facts is not None
    assert (facts.n_events, facts.usual_n_events) == (0, 200.0)


def test_two_days_of_history_are_too_few_to_say_what_is_usual(lake: Path) -> None:
    facts = read(lake, 2)
    assert facts is not None
    assert (facts.n_events, facts.usual_n_events) == (200, None)


def test_the_day_on_which_history_begins_is_not_usual(lake: Path) -> None:
    write(lake, 0, amounts(20))
    facts = read(lake, 7)
    assert facts is not None
    assert facts.usual_n_events == 200.0


def test_without_any_history_nothing_is_said(tmp_path: Path) -> None:
    assert read(tmp_path / "nothing", 7) is None


def test_a_file_that_was_sent_twice_does_not_change_how_many_events_are_usual(lake: Path) -> None:
    before = read(lake, 7)
    for day in range(7):
        (lake / f"part-{day:03d}-again.parquet").write_bytes((lake / f"part-{day:03d}.parquet").read_bytes())
    assert read(lake, 7) == before
