"""Rows of a file as request bodies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from memory.tiny import T0_US, write_project
from tidewheel.errors import InputError
from tidewheel.serving.rows import bodies
from tidewheel.spec.load import load_project
from tidewheel.spec.project import ModelProject


@pytest.fixture
def project(tmp_path: Path) -> ModelProject:
    return load_project(write_project(tmp_path))


def sent(table: pa.Table, project: ModelProject) -> list[dict[str, Any]]:
    return [
        {i["name"]: (i["datatype"], i["data"][0]) for i in json.loads(body)["inputs"]}
        for body in bodies(table, project)
    ]


def test_a_row_becomes_a_request_with_what_the_project_knows(project: ModelProject) -> None:
    table = pa.table(
        {
            "customer_id": [7, 8],
            "payment_id": [12, 13],
            "paid_at": pa.array([T0_US, T0_US + 1], pa.timestamp("us", tz="UTC")),
            "amount": [1.5, float("nan")],
            "channel": ["online", None],
            "fraud": [True, False],  # the label is not known when one asks
            "colour": ["red", "blue"],
        }
    )
    assert sent(table, project) == [
        {
            "customer_id": ("INT64", 7),
            "payment_id": ("BYTES", "12"),
            "paid_at": ("INT64", T0_US),
            "amount": ("FP64", 1.5),
            "channel": ("BYTES", "online"),
        },
        {"customer_id": ("INT64", 8), "payment_id": ("BYTES", "13"), "paid_at": ("INT64", T0_US + 1)},
    ]


def test_times_may_be_text_or_seconds_in_any_zone(project: ModelProject) -> None:
    table = pa.table({"customer_id": [7], "paid_at": ["2020-09-13T12:26:40Z"]})
    assert sent(table, project)[0]["paid_at"] == ("BYTES", "2020-09-13T12:26:40Z")
    zoned = pa.table({"customer_id": [7], "paid_at": pa.array([1_600_000_000], pa.timestamp("s", tz="Europe/Paris"))})
    assert sent(zoned, project)[0]["paid_at"] == ("INT64", T0_US)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param({"amount": [1.0]}, "column(s) customer_id are missing (got amount)", id="no key"),
        pytest.param(
            {"customer_id": [7], "paid_at": pa.array([T0_US], pa.timestamp("us"))},
            "column 'paid_at' has no time zone; declare one for the source 'payments', such as 'timezone: UTC'",
            id="a time without zone",
        ),
        pytest.param({"customer_id": ["x"]}, "column 'customer_id' must be int64 (got string)", id="text for a number"),
    ],
)
def test_a_column_that_cannot_be_sent_is_named(table: dict[str, Any], message: str, project: ModelProject) -> None:
    with pytest.raises(InputError) as error:
        list(bodies(pa.table(table), project))
    assert str(error.value).startswith(message)
