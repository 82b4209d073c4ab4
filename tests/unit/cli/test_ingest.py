"""tidewheel ingest and features over their real files, without any process."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.local_home import LocalHome
from tidewheel.cli.main import cli
from tidewheel.errors import InputError
from tidewheel.features.lake import read_batches
from unit.features.samples import FEATURES, MINUTE_US, SPEC, START_US, payments_table


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "project.yaml").write_text(SPEC)
    (folder / "features.py").write_text(FEATURES)
    return folder


def payments(n: int, **changes: object) -> pa.Table:
    rows = [
        {"card": "a", "shop": 1, "t": START_US + i * MINUTE_US, "id": f"p{i}", "amount": 1.0, "channel": "online",
         "items": 2, **changes}
        for i in range(n)
    ]  # fmt: skip
    return payments_table(rows)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_good_rows_reach_the_log_and_the_others_are_set_aside(project, tmp_path):
    table = pa.concat_tables([payments(3), payments(1, card=None)])
    pq.write_table(table, tmp_path / "day.parquet")
    result = run("ingest", project, "--source", f"payments={tmp_path / 'day.parquet'}", "--output", "json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])["sources"]["payments"]
    assert told == {
        "n_rows": 4, "n_accepted": 3, "n_rejected": 1, "reasons": {"card is missing": 1},
        "first_event_us": START_US, "last_event_us": START_US + 2 * MINUTE_US, "end": 3,
    }  # fmt: skip
    home = LocalHome.of(project)
    assert FileEventLog(home.event_log).end("payments", 0) == 3
    (aside,) = (home.lake / "_rejected" / "payments").glob("*.parquet")
    assert pq.ParquetFile(aside).read().column("reason").to_pylist() == ["card is missing"]


def test_csv_files_are_read_too(project, tmp_path):
    (tmp_path / "day.csv").write_text(
        "card,shop,at,payment,amount,channel,items\na,1,2018-04-01T12:00:00Z,p1,1.5,online,2\n"
    )
    result = run("ingest", project, "--source", f"payments={tmp_path / 'day.csv'}", "--output", "json")
    assert result.exit_code == 0, result.output
    events = FileEventLog(LocalHome.of(project).event_log).read("payments", 0, 0, 10).events
    assert events.to_pylist() == [
        {"card": "a", "shop": 1, "at": datetime(2018, 4, 1, 12, tzinfo=UTC), "payment": "p1", "amount": 1.5,
         "channel": "online", "items": 2}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "source", "message"),
    [
        pytest.param(b"", "payments", "is empty; a Parquet or CSV file is needed", id="an empty file"),
        pytest.param(b"nonsense", "payments", "cannot be read", id="not a Parquet file"),
        pytest.param(None, "payments", "no such file", id="no file"),
        pytest.param(b"", "payment", "unknown source 'payment'; declared are payments, labels, profiles", id="a typo"),
    ],
)
def test_a_file_that_cannot_be_used_sends_nothing(project, tmp_path, content, source, message):
    path = tmp_path / "day.parquet"
    if content is not None:
        path.write_bytes(content)
    result = run("ingest", project, "--source", f"{source}={path}")
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert FileEventLog(LocalHome.of(project).event_log).end("payments", 0) == 0


def test_a_wrong_file_stops_the_right_ones_beside_it(project, tmp_path):
    pq.write_table(payments(3), tmp_path / "good.parquet")
    pq.write_table(payments(3), tmp_path / "labels.parquet")  # without the label's column
    sources = [f"payments={tmp_path / 'good.parquet'}", f"labels={tmp_path / 'labels.parquet'}"]
    result = run("ingest", project, "--source", sources[0], "--source", sources[1])
    assert str(result.exception).startswith(f"{tmp_path / 'labels.parquet'}: labels: column(s) is_fraud are missing")
    assert FileEventLog(LocalHome.of(project).event_log).end("payments", 0) == 0


def test_a_damaged_page_is_named_with_its_file(tmp_path):
    path = tmp_path / "day.parquet"
    pq.write_table(payments(2000), path)
    data = bytearray(path.read_bytes())
    data[100:600] = b"\xff" * 500
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(path))}: cannot be read \(.*; a Parquet or CSV file is needed"
    ):
        list(read_batches(path))


@pytest.mark.parametrize("engine", ["duckdb", "stream"])
def test_compute_keeps_rows_and_columns_and_adds_the_features(project, tmp_path, engine):
    rows = payments(5).append_column("note", pa.array(list("abcde")))
    pq.write_table(rows, tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    source = f"payments={tmp_path / 'rows.parquet'}"
    options = ("--rows", tmp_path / "rows.parquet", "--output", out, "--source", source)
    result = run("features", "compute", project, *options, "--engine", engine, "--format", "json")
    assert result.exit_code == 0, result.output
    made = pq.ParquetFile(out).read()
    assert made.select(rows.column_names).equals(rows)
    assert made.column("n_1h").to_pylist() == [1, 2, 3, 4, 5]
    assert made.column("is_dear").type == pa.bool_()


def test_explain_says_what_each_view_keeps(project):
    result = run("features", "explain", project, "--output", "json")
    views = json.loads(result.stdout)["views"]
    assert [(view["name"], view["bytes_per_event"], view["retention"]) for view in views] == [
        ("card", 40, "49h"),
        ("others", 32, "49h"),
        ("judged", 32, "74h"),
        ("profile", 40, "49h"),
        ("is_dear", 0, None),
    ]
