"""Whatever a caller sends is either answered or refused with a typed error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewheel.clock import FixedClock
from tidewheel.features.ports import Fetched
from tidewheel.serving.answered import frames, replies
from tidewheel.serving.batch import make_batch
from tidewheel.serving.columns import Accepted, RequestColumns
from tidewheel.serving.prediction_record import decode_frames, encode_frames
from tidewheel.serving.prediction_table import prediction_schema, to_table
from tidewheel.serving.predictor import begin, finish, wanted_of
from tidewheel.serving.protocols import oip, v1
from tidewheel.serving.protocols.assemble import Call
from tidewheel.serving.request import BadRequest, PredictReply, PredictRequest
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
NAMES = st.sampled_from(
    ["customer_id", "amount", "channel", "paid_at", "payment_id", "event_time", "junk", "features", "large"]
)
KINDS = st.sampled_from(["INT64", "FP64", "FP32", "FP16", "BF16", "BYTES", "BOOL", "UINT8", "nonsense"])


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    data = draw(st.lists(SCALARS, min_size=0, max_size=3))
    shape = draw(st.sampled_from([[len(data)], [len(data), 1], [], [2**40], [-1]]))
    return {"name": draw(NAMES), "shape": shape, "datatype": draw(KINDS), "data": data}


HEALTHY = {"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [7]}


@pytest.fixture
def snapshot(bench: Bench) -> Snapshot:
    return bench.snapshot(bench.load("1"), weights={"1": 1.0})


CALL = Call("n", 1_600_000_000_000_000, 0)


def answered_or_refused(bench: Bench, snapshot: Snapshot, decode: Callable[[], tuple[PredictRequest, Any]]) -> None:
    try:
        request, form = decode()
    except BadRequest:
        return
    batch = make_batch(snapshot, [request])
    asked = begin(batch)
    answered = finish(batch, asked, Fetched(bench.store.read(wanted_of(asked))))
    (reply,) = replies(answered)
    assert isinstance(reply, PredictReply)
    if isinstance(form, str):
        json.loads(v1.encode_reply(request.request_id, reply, form))
    else:
        json.loads(oip.encode_reply("tiny", request.request_id, reply, form)[0])
    made = frames(answered, [True], FixedClock())
    back, _ = decode_frames(encode_frames(made))
    assert len(back) == request.n_rows
    to_table(back, prediction_schema(snapshot.columns.logged, "paid_at", "payment_id"))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(tensors(), max_size=4), st.booleans())
def test_a_request_is_answered_or_refused(
    bench: Bench, snapshot: Snapshot, inputs: list[dict[str, Any]], with_key: bool
) -> None:
    body = json.dumps({"inputs": [HEALTHY, *inputs] if with_key else inputs}).encode()
    answered_or_refused(bench, snapshot, lambda: oip.decode_request(body, snapshot.accepted["1"], CALL))


ROWS = st.dictionaries(NAMES, SCALARS, max_size=4).map(lambda row: {"customer_id": 7, **row})
VECTORS = st.lists(SCALARS, min_size=2, max_size=4)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS | VECTORS | SCALARS, max_size=3))
def test_rows_of_the_v1_protocol_are_answered_or_refused(
    bench: Bench, snapshot: Snapshot, instances: list[Any]
) -> None:
    body = json.dumps({"instances": instances}).encode()
    answered_or_refused(bench, snapshot, lambda: v1.decode_request(body, snapshot.accepted["1"], CALL))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors(), st.integers(-1, 20) | st.booleans(), st.binary(max_size=20), st.integers(-3, 3))
def test_binary_tensors_are_answered_or_refused(
    bench: Bench, snapshot: Snapshot, tensor: dict[str, Any], size: int, raw: bytes, lie: int
) -> None:
    del tensor["data"]
    head = json.dumps({"inputs": [HEALTHY, {**tensor, "parameters": {"binary_data_size": size}}]}).encode()
    answered_or_refused(
        bench, snapshot, lambda: oip.decode_request(head + raw, snapshot.accepted["1"], CALL, len(head) + lie)
    )


COLUMNS = RequestColumns({"customer_id": "int64"}, "paid_at", "payment_id", {"amount": "float64"}, ("customer_id",))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_no_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        oip.decode_request(body, Accepted(COLUMNS), CALL)
    with pytest.raises(BadRequest):
        v1.decode_request(body, Accepted(COLUMNS), CALL)
