"""Whatever a caller sends is either answered or refused with a typed error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewheel.clock import FixedClock
from tidewheel.serving.columns import RequestColumns
from tidewheel.serving.oip import decode_request, encode_reply
from tidewheel.serving.prediction_record import decode_frames, encode_frames, prediction_schema, to_table
from tidewheel.serving.predictor import answer, make_batch, records, replies
from tidewheel.serving.request import BadRequest, PredictReply
from tidewheel.serving.snapshot import Snapshot
from unit.serving.conftest import Bench

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["9999-12-31T23:59:59-14:00", "0001-01-01", "2020-09-13T12:26:40Z", 1_600_000_000_000_000, 7]),
)
NAMES = st.sampled_from(["customer_id", "amount", "channel", "paid_at", "payment_id", "event_time", "junk"])
KINDS = st.sampled_from(["INT64", "FP64", "BYTES", "BOOL", "UINT8", "nonsense"])


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    data = draw(st.lists(SCALARS, min_size=0, max_size=3))
    shape = draw(st.sampled_from([[len(data)], [len(data), 1], [], [2**40], [-1]]))
    return {"name": draw(NAMES), "shape": shape, "datatype": draw(KINDS), "data": data}


HEALTHY = {"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [7]}


@pytest.fixture
def snapshot(bench: Bench) -> Snapshot:
    return bench.snapshot(bench.load("1"), weights={"1": 1.0})


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(tensors(), max_size=4), st.booleans())
def test_a_request_is_answered_or_refused(snapshot: Snapshot, inputs: list[dict[str, Any]], with_key: bool) -> None:
    body = json.dumps({"inputs": [HEALTHY, *inputs] if with_key else inputs}).encode()
    try:
        request = decode_request(body, snapshot.columns, new_id="n", now_us=1_600_000_000_000_000, arrived_us=0)
    except BadRequest:
        return
    answered = answer(make_batch(snapshot, [request]))
    (reply,) = replies(answered)
    assert isinstance(reply, PredictReply)
    json.loads(encode_reply("tiny", request.request_id, reply))
    made = records(answered, [True], FixedClock())
    back, _ = decode_frames(encode_frames(made))
    assert len(back) == request.n_rows
    to_table(back, prediction_schema(snapshot.columns.logged, "paid_at", "payment_id"))


COLUMNS = RequestColumns({"customer_id": "int64"}, "paid_at", "payment_id", {"amount": "float64"}, ("customer_id",))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_no_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_request(body, COLUMNS, new_id="n", now_us=0, arrived_us=0)
