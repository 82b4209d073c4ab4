"""The point-in-time join of Feast's credit tutorial, against the training set that Feast itself wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from servers.spark import need_spark
from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.features.load import load_features
from tidewheel.features.replay import compute_by_stream
from tidewheel.spec.load import load_project
from tidewheel.training.training_set import Span, TrainingSet

pytestmark = [pytest.mark.integration, pytest.mark.data, pytest.mark.timeout(600)]

# The other joined columns come from a table of which only a sample is published.
COLUMNS = ("tax_returns_filed", "population", "total_wages")


@pytest.fixture
def credit(real_data: Path, repository: Path, tmp_path: Path) -> tuple[Any, Any, dict[str, Path], pa.Table]:
    """Project, features, sources (with rows of the future, which must not matter) and what Feast joined."""
    code, folder = repository / "tests" / "data" / "credit_project", real_data / "feast_credit"
    project = load_project(code)
    zipcodes = pq.read_table(folder / "zipcode_table.parquet")
    times = zipcodes.column("event_timestamp")
    later = zipcodes.set_column(
        zipcodes.column_names.index("event_timestamp"), "event_timestamp",
        pc.add(times, pa.scalar(1702 * 86_400_000_000, pa.duration("us"))).cast(times.type),
    )  # fmt: skip
    for column in COLUMNS:
        later = later.set_column(later.column_names.index(column), column, pc.negate(later.column(column)))
    pq.write_table(pa.concat_tables([later, zipcodes]), tmp_path / "zipcodes.parquet")
    sources = {"loans": folder / "loan_table.parquet", "zipcodes": tmp_path / "zipcodes.parquet"}
    golden = pq.read_table(folder / "feast_joined_training_golden.parquet").sort_by("loan_id")
    return project, load_features(code, project), sources, golden


@pytest.mark.parametrize("engine", ["duckdb", "spark", "stream"])
def test_every_joined_value_is_feasts(credit, engine):
    project, features, sources, golden = credit
    assert int(pc.sum(pc.less(golden.column("population"), 0)).as_py()) == 0
    loans = pq.read_table(sources["loans"])
    if engine == "stream":
        out = compute_by_stream(features, project, loans, sources)
    else:
        made = DuckDbFeatures() if engine == "duckdb" else need_spark()
        out = made.compute(features, project, loans, sources)
    out = out.sort_by("loan_id")
    assert out.column("loan_id").equals(golden.column("loan_id"))
    for column in COLUMNS:
        assert out.column(column).equals(golden.column(column)), column


@pytest.mark.parametrize("engine", ["duckdb", "spark"])
def test_the_training_set_is_feasts_rows_by_time(credit, tmp_path, engine):
    project, features, sources, golden = credit
    made = DuckDbFeatures() if engine == "duckdb" else need_spark()
    with made.opened(project, sources) as found:
        newest_us = int(pc.max(golden.column("event_timestamp").cast(pa.int64())).as_py())
        facts = TrainingSet(found, features, project, Span(as_of_us=newest_us + project.label.delay_us)).write(
            tmp_path / "set.parquet"
        )
    out = pq.read_table(tmp_path / "set.parquet")
    assert facts.rows == golden.num_rows
    assert out.column("event_timestamp").to_pylist() == sorted(golden.column("event_timestamp").to_pylist())
    ids = out.column("loan_id").cast(pa.int64())
    out = out.set_column(out.column_names.index("loan_id"), "loan_id", ids).sort_by("loan_id")
    assert out.column("label").cast(pa.int64()).equals(golden.column("loan_status"))
    for column in COLUMNS:
        assert out.column(column).equals(golden.column(column)), column
