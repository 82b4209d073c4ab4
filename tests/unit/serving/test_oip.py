"""The protocol's codec: what is accepted, and what each fault is called."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidewheel.serving.columns import RequestColumns
from tidewheel.serving.oip import decode_request, encode_reply
from tidewheel.serving.request import BadRequest, PredictReply, PredictRequest

COLUMNS = RequestColumns(
    keys={"customer_id": "int64", "terminal": "string"},
    event_time="paid_at",
    event_id="payment_id",
    columns={"amount": "float64", "items": "int32", "channel": "string", "gift": "bool"},
    required=("customer_id",),
)
NOW_US = 1_700_000_000_000_000


def tensor(name: str, datatype: str, *data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)] if shape is None else shape, "datatype": datatype, "data": list(data)}


def decode(*inputs: dict[str, Any], **rest: Any) -> PredictRequest:
    body = json.dumps({"inputs": list(inputs), **rest}).encode()
    return decode_request(body, COLUMNS, new_id="new", now_us=NOW_US, arrived_us=1)


def test_a_whole_request_is_read_by_name() -> None:
    got = decode(
        tensor("customer_id", "INT64", 7),
        tensor("terminal", "BYTES", "t-1"),
        tensor("paid_at", "INT64", NOW_US - 5),
        tensor("payment_id", "BYTES", "p-9"),
        tensor("amount", "FP64", 30.5, shape=[1, 1]),
        tensor("gift", "BOOL", True),
        id="mine",
    )
    assert (got.request_id, got.n_rows, got.t_us, got.event_ids) == ("mine", 1, [NOW_US - 5], ["p-9"])
    assert got.columns == {"customer_id": [7], "terminal": ["t-1"], "amount": [30.5], "gift": [True]}
    assert got.row_id(0) == "mine"


def test_what_a_caller_leaves_out_is_filled_by_the_server() -> None:
    got = decode(tensor("customer_id", "INT64", 7, 8))
    assert (got.request_id, got.t_us, got.event_ids) == ("new", [NOW_US, NOW_US], ["new/0", "new/1"])


def test_times_may_be_text_and_names_may_be_the_platforms() -> None:
    got = decode(
        tensor("customer_id", "INT64", 7),
        tensor("event_time", "BYTES", "2023-11-14T22:13:20Z"),
        tensor("event_id", "INT64", 12),
    )
    assert (got.t_us, got.event_ids) == ([NOW_US], ["12"])


def test_null_is_missing_except_in_a_key() -> None:
    assert decode(tensor("customer_id", "INT64", 7), tensor("amount", "FP64", None)).columns["amount"] == [None]
    with pytest.raises(BadRequest, match="customer_id: must not be null: it is a key"):
        decode(tensor("customer_id", "INT64", None))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param([tensor("amount", "FP64", 1.0)], "inputs: required but missing: customer_id", id="no key"),
        pytest.param([], "inputs: required but missing: customer_id", id="no input at all"),
        pytest.param(
            [tensor("customer_id", "INT64", 1), tensor("colour", "BYTES", "red")],
            "inputs: unknown name (got 'colour'); allowed are event_time, event_id, amount, items, channel, gift, "
            "terminal, customer_id, paid_at, payment_id",
            id="an unknown name",
        ),
        pytest.param(
            [tensor("customer_id", "INT64", "seven")],
            "customer_id: must be a whole number of 64 bits (got 'seven')",
            id="text for a number",
        ),
        pytest.param(
            [tensor("customer_id", "INT64", 2**63)],
            "customer_id: must be a whole number of 64 bits (got 9223372036854775808)",
            id="a number that does not fit",
        ),
        pytest.param(
            [tensor("customer_id", "INT64", True)],
            "customer_id: must be a whole number of 64 bits (got True)",
            id="a flag for a number",
        ),
        pytest.param(
            [tensor("customer_id", "FP64", 7.0)],
            "customer_id: wrong datatype (got 'FP64'); allowed are INT64, INT32, INT16, INT8, UINT64, UINT32, UINT16, "
            "UINT8",
            id="the wrong datatype",
        ),
        pytest.param(
            [tensor("customer_id", "INT64", 7, shape=[2])],
            "customer_id: shape does not fit data (got [2] for 1 values); allowed is [n] or [n, 1]",
            id="a shape that lies",
        ),
        pytest.param(
            [tensor("customer_id", "INT64", 7, 8), tensor("amount", "FP64", 1.0)],
            "amount: every input must have the same number of rows (got 1 and 2)",
            id="inputs of different lengths",
        ),
        pytest.param(
            [tensor("customer_id", "INT64", 7), tensor("customer_id", "INT64", 7)],
            "customer_id: sent twice; send each input once",
            id="an input twice",
        ),
        pytest.param(
            [tensor("customer_id", "INT64", 7), tensor("paid_at", "INT64", 1_700_000_000)],
            "paid_at: must be whole microseconds UTC between 1973 and 2255 (got 1700000000)",
            id="a time in seconds",
        ),
        pytest.param(
            [tensor("customer_id", "INT64", 7), tensor("gift", "BOOL", 1)],
            "gift: must be true or false (got 1)",
            id="a number for a flag",
        ),
    ],
)
def test_a_fault_names_the_field_what_was_got_and_what_is_allowed(inputs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadRequest) as error:
        decode(*inputs)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no inputs"),
        pytest.param(b'{"inputs": 1}', id="inputs that are no list"),
        pytest.param(b'{"inputs": [{"name": "amount"}]}', id="an input without data"),
        pytest.param(b'{"inputs": [], "surprise": 1}', id="an unknown field"),
        pytest.param(b'{"inputs":[{"name":"amount","shape":[1],"datatype":"FP64","data":[NaN]}]}', id="NaN"),
        pytest.param(b'{"inputs":[{"name":"amount","shape":[1],"datatype":"FP64","data":[Infinity]}]}', id="Infinity"),
        pytest.param(b'{"inputs":[{"name":"amount","shape":[1],"datatype":"FP64","data":[1e999]}]}', id="1e999"),
        pytest.param(b'{"inputs":[{"name":"\xff"}]}', id="not UTF-8"),
        pytest.param(b'{"inputs":[{"name":"\\ud800","shape":[1],"datatype":"FP64","data":[1]}]}', id="lone surrogate"),
        pytest.param(b'{"inputs":' + b"[" * 100_000, id="a depth bomb"),
        pytest.param(
            b'{"inputs":[{"name":"amount","shape":[1],"datatype":"FP64","data":'
            + b"[" * 50_000
            + b"]" * 50_000
            + b"}]}",
            id="a depth bomb in data",
        ),
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_request(body, COLUMNS, new_id="new", now_us=NOW_US, arrived_us=1)


def test_a_reply_has_one_value_per_row_and_output() -> None:
    reply = PredictReply([0.25, None], ["approve", "review"], ["3", ""], [(), ("FeaturesLate", "StaticDecision")])
    body = json.loads(encode_reply("tiny", "mine", reply))
    assert (body["model_name"], body["model_version"], body["id"]) == ("tiny", "", "mine")
    assert {output["name"]: output["data"] for output in body["outputs"]} == {
        "score": [0.25, None],
        "decision": ["approve", "review"],
        "model_version": ["3", ""],
        "degraded": [False, True],
        "reasons": ["", "FeaturesLate;StaticDecision"],
    }
