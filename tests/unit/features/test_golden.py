"""A golden file pins what every feature means: no engine and no release may change these values.

``make_golden.py`` writes it again, after a change of meaning that was decided.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.features.replay import compute_by_stream
from unit.features.naive import naive_values
from unit.features.samples import (
    every_features,
    every_project,
    labels_table,
    payments_table,
    profiles_table,
    written,
)

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
PROJECT = every_project()
FEATURES = every_features(PROJECT)


def engine_values(engine: str, folder: Path) -> dict[str, list[float | None]]:
    if engine == "oracle":
        return naive_values(FEATURES, GOLDEN["rows"], GOLDEN["events"])
    makers = {"payments": payments_table, "labels": labels_table, "profiles": profiles_table}
    paths = written(folder, {name: makers[name](events) for name, events in GOLDEN["events"].items()})
    compute = DuckDbFeatures().compute if engine == "duckdb" else compute_by_stream
    out = compute(FEATURES, PROJECT, payments_table(GOLDEN["rows"]), paths)
    return {name: out.column(name).cast(pa.float64(), safe=False).to_pylist() for name in GOLDEN["values"]}


@pytest.mark.parametrize("engine", ["oracle", "duckdb", "stream"])
def test_the_golden_values_hold(tmp_path, engine):
    values = engine_values(engine, tmp_path)
    assert values.keys() == GOLDEN["values"].keys()
    for name, wanted in GOLDEN["values"].items():
        assert values[name] == [None if one is None else pytest.approx(one, rel=1e-12, abs=1e-12) for one in wanted], (
            name
        )
