"""Events are normalised once; a row that cannot be used is set aside with the reason, a wrong column refuses all."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from tidewheel.errors import InputError
from tidewheel.features.events import validate_events
from tidewheel.spec.load import parse_project
from unit.features.samples import SPEC, sample_project

PROJECT = sample_project()
AT = datetime(2018, 4, 1, 12, tzinfo=UTC)


def payments(**columns: object) -> pa.Table:
    base = {"card": ["a"], "shop": [1], "at": pa.array([AT]), "payment": ["p"], "amount": [1.5],
            "channel": ["online"], "items": [2]}  # fmt: skip
    return pa.table({**base, **columns})


def test_good_events_have_the_declared_columns_and_types():
    checked = validate_events(payments(extra=[1], payment=[7]), "payments", PROJECT)
    assert checked.good.schema == pa.schema(
        {"card": pa.string(), "shop": pa.int64(), "at": pa.timestamp("us", "UTC"), "payment": pa.string(),
         "amount": pa.float64(), "channel": pa.string(), "items": pa.int32()}
    )  # fmt: skip
    assert checked.good.to_pylist()[0]["payment"] == "7"
    assert checked.rejected.num_rows == 0


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        pytest.param({"card": pa.array([None], pa.string())}, "card is missing", id="no key"),
        pytest.param({"payment": pa.array([None], pa.string())}, "payment is missing", id="no event id"),
        pytest.param({"at": pa.array([None], pa.timestamp("us", "UTC"))}, "at is missing", id="no time"),
        pytest.param({"amount": [math.inf]}, "amount is infinite", id="infinity"),
        pytest.param({"items": [2**31]}, "items does not fit int32", id="too large"),
        pytest.param({"items": [1.5]}, "items does not fit int32", id="a fraction"),
        pytest.param({"at": pa.array([datetime(2300, 1, 1, tzinfo=UTC)])}, "event time is before 1970 or after 2199",
                     id="far future"),
    ],
)  # fmt: skip
def test_a_row_is_rejected_with_the_reason(columns, reason):
    two = pa.concat_tables([payments(**columns), payments(**columns).slice(0, 0)])
    checked = validate_events(two, "payments", PROJECT)
    assert (checked.good.num_rows, checked.rejected.column("reason").to_pylist()) == (0, [reason])


def test_an_event_of_the_future_is_rejected():
    at_us = int(AT.timestamp() * 1e6)
    two = pa.concat_tables([payments(), payments()])
    assert validate_events(two, "payments", PROJECT, latest_us=at_us).good.num_rows == 2
    reason = "event time lies more than an hour ahead of the clock"
    checked = validate_events(two, "payments", PROJECT, latest_us=np.array([at_us - 1, at_us]))
    assert (checked.good.num_rows, checked.rejected.column("reason").to_pylist()) == (1, [reason])
    assert validate_events(two, "payments", PROJECT, latest_us=at_us - 1).good.num_rows == 0


def test_nan_becomes_null_and_a_whole_float_an_integer():
    row = validate_events(payments(amount=[math.nan], items=[2.0]), "payments", PROJECT).good.to_pylist()[0]
    assert (row["amount"], row["items"]) == (None, 2)


def test_every_wrong_column_is_named_at_once():
    table = payments(amount=["x"], at=pa.array([datetime(2018, 4, 1)])).drop_columns(["card", "channel"])
    with pytest.raises(InputError) as caught:
        validate_events(table, "payments", PROJECT)
    assert str(caught.value) == (
        "payments: column(s) card, channel are missing (got shop, at, payment, amount, items); column 'at' has no "
        "time zone; declare one for the source, such as 'timezone: UTC'; column 'amount' must be double (got string)"
    )


def test_a_declared_zone_gives_local_times_their_instant():
    project = parse_project(
        SPEC.replace("event_id: payment, allowed", "event_id: payment, timezone: Europe/Paris, allowed"), "p"
    )
    times = pa.array([datetime(2018, 7, 1, 12), datetime(2018, 1, 1, 12)])
    both = pa.concat_tables([payments(at=times[:1]), payments(at=times[1:])])
    got = validate_events(both, "payments", project).good.column("at").to_pylist()
    assert got == [datetime(2018, 7, 1, 10, tzinfo=UTC), datetime(2018, 1, 1, 11, tzinfo=UTC)]


def test_text_times_are_read_with_their_offset():
    got = validate_events(payments(at=["2018-04-01T14:00:00+02:00"]), "payments", PROJECT).good
    assert got.column("at").to_pylist() == [AT]


def test_a_table_carries_the_keys_it_has_and_those_that_views_need():
    table = pa.table({"card": ["a"], "at": pa.array([AT]), "age": [3], "vip": [1]})
    assert validate_events(table, "profiles", PROJECT).good.column_names == ["card", "at", "age", "vip"]
    with pytest.raises(InputError, match=r"column\(s\) shop are missing"):
        validate_events(table, "profiles", PROJECT, keys=["shop"])
    with pytest.raises(InputError, match="no entity key; at least one of card, shop is needed"):
        validate_events(table.drop_columns(["card"]), "profiles", PROJECT)
