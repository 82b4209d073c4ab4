"""Messages become events one by one: a bad one is told apart with the reason and spoils no neighbour."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from tidewheel.features.events import normal_schema
from tidewheel.features.json_events import AnyDecoder, EventDecoder, encode_rows
from tidewheel.spec.load import parse_project
from unit.features.samples import SPEC, sample_project

PROJECT = sample_project()
AT = "2018-04-01T12:00:00Z"
AT_US = int(datetime(2018, 4, 1, 12, tzinfo=UTC).timestamp() * 1e6)
GOOD = {"card": "a", "shop": 1, "at": AT, "payment": "p", "amount": 1.5, "channel": "online", "items": 2}


def message(**members: object) -> bytes:
    return json.dumps({**GOOD, **members}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


def decoded(*bodies, source="payments", project=PROJECT, times_us=None, keys=()):
    times = np.full(len(bodies), AT_US) if times_us is None else np.array(times_us)
    return EventDecoder(project, source, keys).decode(bodies, times)


def test_a_message_becomes_an_event_in_the_declared_types():
    got = decoded(message(extra={"ignored": [1]}))
    want = normal_schema(PROJECT, "payments", ["card", "shop"])
    assert got.rejected == ()
    assert got.kept.tolist() == [0]
    assert {field.name: field.type for field in got.events.schema} == {field.name: field.type for field in want}
    assert got.events.select(list(GOOD)).to_pylist() == [{**GOOD, "at": datetime(2018, 4, 1, 12, tzinfo=UTC)}]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(None, "the message has no body", id="a tombstone"),
        pytest.param(b"", "not JSON: Input data was truncated", id="nothing"),
        pytest.param(b"\x00\x01", "not JSON: JSON is malformed: invalid character (byte 0)", id="bytes"),
        pytest.param(b"{}{}", "not JSON: JSON is malformed: trailing characters (byte 3)", id="two at once"),
        pytest.param(b'{"channel":"\xff"}', "not JSON: 'utf-8' codec can't decode byte 0xff in position 0: "
                     "invalid start byte", id="text that is not UTF-8"),
        pytest.param(b'{"amount":NaN}', "not JSON: JSON is malformed: invalid character (byte 10)", id="NaN"),
        pytest.param(b"[]", "Expected `object`, got `array`", id="a list"),
        pytest.param(b"null", "Expected `object`, got `null`", id="null"),
        pytest.param(message(amount="1"), "Expected `float | null`, got `str` - at `$.amount`", id="text for a number"),
        pytest.param(message(items=1.5), "Expected `int | null`, got `float` - at `$.items`", id="a fraction"),
        pytest.param(message(channel=True), "Expected `int | str | null`, got `bool` - at `$.channel`",
                     id="a bool for text"),
        pytest.param(message(shop=2**63), "Expected `int` <= 9223372036854775807 - at `$.shop`", id="beyond int64"),
        pytest.param(message(at=1522584000), "Expected `str | null`, got `int` - at `$.at`", id="a number for a time"),
        pytest.param(message(items=2**31), "items does not fit int32", id="beyond int32"),
        pytest.param(message().replace(b"1.5", b"1e999"), "Number out of range - at `$.amount`", id="infinity"),
        pytest.param(without("card"), "card is missing", id="no key"),
        pytest.param(without("payment"), "payment is missing", id="no event id"),
        pytest.param(without("at"), "at is missing", id="no event time"),
        pytest.param(message(at="yesterday"), "at has no time zone; declare one for the source, such as "
                     "'timezone: UTC'", id="a word for a time"),
        pytest.param(message(at="2018-04-01T12:00:00"), "at has no time zone; declare one for the source, such as "
                     "'timezone: UTC'", id="a time without a zone"),
        pytest.param(message(at="2018-02-31T12:00:00Z"), "at is no time; write 2018-06-04T12:30:00Z",
                     id="a day that does not exist"),
        pytest.param(message(at="1969-12-31T23:59:59Z"), "event time is before 1970 or after 2199", id="before 1970"),
        pytest.param(message(at="2018-04-01T13:00:00.000001Z"), "event time lies more than an hour ahead of the clock",
                     id="far in the future"),
    ],
)  # fmt: skip
def test_poison_is_rejected_with_the_reason_and_its_neighbours_pass(body, reason):
    got = decoded(message(payment="before"), body, message(payment="after"))
    assert got.rejected == ((1, reason),)
    assert got.kept.tolist() == [0, 2]
    assert got.events.column("payment").to_pylist() == ["before", "after"]
    assert decoded(body).rejected == ((0, reason),)


def test_what_becomes_of_a_message_does_not_depend_on_its_batch():
    rng = np.random.default_rng(7)
    kinds = [message(), message(payment=7), message(at="2018-04-01 14:00:00+02:00"), without("channel"), b"{", None,
             message(at="x"), message(items=None), message(amount=3), message(at="2019-01-01T00:00:00Z")]  # fmt: skip
    bodies = [kinds[kind] for kind in rng.integers(0, len(kinds), 200)]
    alone = [decoded(body) for body in bodies]
    together = decoded(*bodies)
    assert together.events.to_pylist() == [row for one in alone for row in one.events.to_pylist()]
    assert together.kept.tolist() == [place for place, one in enumerate(alone) if len(one.kept)]
    assert dict(together.rejected) == {place: one.rejected[0][1] for place, one in enumerate(alone) if one.rejected}


def test_a_time_without_a_zone_is_read_in_the_zone_of_the_source():
    spec = SPEC.replace("event_id: payment, allowed_lateness: 10m", "event_id: payment, timezone: Europe/Paris")
    got = decoded(message(at="2018-04-01T12:00:00"), message(at=AT), project=parse_project(spec, "project.yaml"))
    assert [at.hour for at in got.events.column("at").to_pylist()] == [10, 12]


def test_the_future_begins_an_hour_after_the_log_took_the_message():
    got = decoded(message(), message(), times_us=[AT_US - 3_600_000_000, AT_US - 3_600_000_001])
    assert got.kept.tolist() == [0]


def test_a_source_of_one_entity_needs_no_other_key():
    profile = json.dumps({"card": "a", "at": AT, "age": 40, "vip": 1}).encode()
    got = decoded(profile, b'{"at": "%s"}' % AT.encode(), source="profiles")
    assert got.events.to_pylist() == [{"card": "a", "age": 40, "vip": True, "at": datetime(2018, 4, 1, 12, tzinfo=UTC)}]
    assert dict(decoded(b'{"at": "%s"}' % AT.encode(), profile, source="profiles", keys=["shop"]).rejected) == {
        0: "shop is missing", 1: "shop is missing"
    }  # fmt: skip
    assert got.rejected == ((1, "card is missing"),)


def test_no_messages_are_no_events():
    got = decoded()
    assert (got.events.num_rows, len(got.kept), got.rejected) == (0, 0, ())


def test_rows_and_messages_are_the_same_both_ways():
    rows = pa.table(
        {"card": ["a", "ü"], "shop": [1, -(2**63)], "at": pa.array([AT_US, 1], pa.timestamp("us", "UTC")),
         "payment": ["p", "q"], "amount": [0.1, None], "channel": [None, "x"], "items": pa.array([1, 2], pa.int32())}
    )  # fmt: skip
    got = decoded(*encode_rows(rows))
    assert got.events.select(rows.column_names) == rows


def test_messages_without_a_declared_source_keep_the_members_they_have():
    got = AnyDecoder().decode([b'{"n": 1}', b"[]", b'{"m": "x"}'], np.zeros(3, dtype=np.int64))
    assert got.events.to_pylist() == [{"n": 1, "m": None}, {"n": None, "m": "x"}]
    assert [place for place, _ in got.rejected] == [1]
