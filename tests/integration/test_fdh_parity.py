"""Every engine recomputes the published window features of the Fraud Detection Handbook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from servers.spark import need_spark
from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.features.load import load_features
from tidewheel.features.replay import compute_by_stream
from tidewheel.spec.load import load_project

SMALL = ("fdh_raw_small_fixture.parquet", "fdh_golden_small_fixture.parquet")
WHOLE = (
    "fdh_raw_dev_2018-04-01_2018-07-24.parquet",
    "fdh_golden_features_dev_2018-04-01_2018-07-24.parquet",
)

pytestmark = [pytest.mark.integration, pytest.mark.data, pytest.mark.timeout(900)]


def mismatches(out: pa.Table, golden: pa.Table, folder: Path) -> dict[str, int]:
    """Values over 1e-5 relative difference, per published feature, outside rows of tied timestamps."""
    ids = out.column("TRANSACTION_ID").to_numpy()
    assert (ids == golden.column("TRANSACTION_ID").to_numpy()).all()
    ties = pc.read_csv(folder / "timestamp_tie_rows.csv").column("TRANSACTION_ID").to_numpy()
    compared = ~np.isin(ids, ties)
    counts = {}
    for name in golden.column_names[1:]:
        got, want = (table.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False) for table in (out, golden))
        counts[name] = int((~np.isclose(got, want, rtol=1e-5, atol=1e-9))[compared].sum())
    return counts


@pytest.mark.parametrize(
    ("engine", "files"),
    [
        pytest.param("duckdb", SMALL, id="duckdb, small fixture"),
        pytest.param("stream", SMALL, id="stream, small fixture"),
        pytest.param("duckdb", WHOLE, id="duckdb, all 1.1 million"),
        pytest.param("spark", WHOLE, id="spark, all 1.1 million"),
    ],
)
def test_every_published_feature_is_recomputed(real_data, repository, engine, files):
    folder = real_data / "fdh"
    code = repository / "tests" / "data" / "fdh_project"
    project = load_project(code)
    features = load_features(code, project)
    raw, golden = pq.read_table(folder / files[0]), pq.read_table(folder / files[1])
    sources = {"transactions": folder / files[0]}
    if engine != "stream":
        made = DuckDbFeatures() if engine == "duckdb" else need_spark()
        out = made.compute(features, project, raw, sources)
    else:
        out = compute_by_stream(features, project, raw, sources)
    assert out.select(raw.column_names).drop_columns(["TX_AMOUNT"]).equals(raw.drop_columns(["TX_AMOUNT"]))
    assert mismatches(out, golden, folder) == dict.fromkeys(golden.column_names[1:], 0)
