"""The protocol's codec: what is accepted, and what each fault is called."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tidewheel.serving.columns import Accepted, RequestColumns
from tidewheel.serving.protocols.assemble import Call
from tidewheel.serving.protocols.oip import Form, decode_request, encode_reply
from tidewheel.serving.request import BadRequest, PredictReply, PredictRequest

COLUMNS = RequestColumns(
    keys={"customer_id": "int64", "terminal": "string"},
    event_time="paid_at",
    event_id="payment_id",
    columns={"amount": "float64", "items": "int32", "channel": "string", "gift": "bool"},
    required=("customer_id",),
)
NOW_US = 1_700_000_000_000_000
CALL = Call("new", NOW_US, 1)


def tensor(name: str, datatype: str, *data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)] if shape is None else shape, "datatype": datatype, "data": list(data)}


def decode(*inputs: dict[str, Any], **rest: Any) -> PredictRequest:
    body = json.dumps({"inputs": list(inputs), **rest}).encode()
    return decode_request(body, Accepted(COLUMNS), CALL)[0]


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
        decode_request(body, Accepted(COLUMNS), CALL)


def test_a_reply_has_one_value_per_row_and_output() -> None:
    late = ("FeaturesLate", "StaticDecision")
    reply = PredictReply([0.25, None], ["approve", "review"], ["3", ""], [(), late], [1500, 0])
    body = json.loads(encode_reply("tiny", "mine", reply)[0])
    assert (body["model_name"], body["model_version"], body["id"]) == ("tiny", "", "mine")
    assert {output["name"]: output["data"] for output in body["outputs"]} == {
        "score": [0.25, None],
        "decision": ["approve", "review"],
        "model_version": ["3", ""],
        "degraded": [False, True],
        "reasons": ["", "FeaturesLate;StaticDecision"],
        "feature_age_ms": [1.5, 0.0],
    }


def test_contributions_come_with_the_shape_that_they_have() -> None:
    reply = PredictReply([0.25], ["approve"], ["3"], [()], [0], contributions=np.array([[0.5, -1.0, 0.25]]))
    (output,) = [
        one for one in json.loads(encode_reply("tiny", "mine", reply)[0])["outputs"] if "contrib" in one["name"]
    ]
    assert output == {"name": "contributions", "datatype": "FP64", "shape": [1, 3], "data": [0.5, -1.0, 0.25]}


def test_a_request_may_ask_for_an_explanation_and_say_that_it_is_a_test() -> None:
    got = decode(tensor("customer_id", "INT64", 7), parameters={"explain": True, "test": True})
    assert (got.explain, got.test) == (True, True)
    with pytest.raises(BadRequest, match="parameters: explain: must be true or false"):
        decode(tensor("customer_id", "INT64", 7), parameters={"explain": "yes"})


def binary(*raw: bytes, sizes: list[Any] | None = None, **more: Any) -> tuple[bytes, int]:
    """A customer id and an amount behind the JSON, and the JSON's length."""
    kinds = [("customer_id", "INT64"), ("amount", "FP32")]
    inputs = [
        {"name": name, "shape": [2], "datatype": kind, "parameters": {"binary_data_size": size}}
        for (name, kind), size in zip(kinds, sizes or [len(part) for part in raw], strict=True)
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(raw), len(head)


IDS, AMOUNTS = np.array([7, 8], "<i8").tobytes(), np.array([1.5, np.nan], "<f4").tobytes()


def test_binary_tensors_stand_behind_the_json_in_order() -> None:
    body, length = binary(IDS, AMOUNTS)
    got, form = decode_request(body, Accepted(COLUMNS), CALL, length)
    assert (got.columns, form) == ({"customer_id": [7, 8], "amount": [1.5, None]}, Form())


@pytest.mark.parametrize(
    ("sizes", "length", "message"),
    [
        pytest.param([16, 9], 0, r"amount: binary_data_size must be a whole number of at most 8 bytes.*\(got 9\)",
                     id="a size beyond the body"),
        pytest.param([16, 4], 0, r"amount: FP32 of shape \[2\] takes 8 bytes \(got 4\)", id="a size too small"),
        pytest.param([-1, 8], 0, r"customer_id: binary_data_size must be .*\(got -1\)", id="a negative size"),
        pytest.param([True, 8], 0, r"customer_id: binary_data_size must be .*\(got True\)", id="a flag for a size"),
        pytest.param([2**70, 8], 0, r"customer_id: binary_data_size must be .*", id="a size beyond 64 bits"),
        pytest.param([16, 8], 10**6, "inference-header-content-length: must be 1 to", id="a header beyond the body"),
        pytest.param([16, 8], -1, "body: not a request of the Open Inference Protocol v2", id="a header cut short"),
    ],
)  # fmt: skip
def test_a_size_that_lies_is_refused(sizes: list[Any], length: int, message: str) -> None:
    body, true_length = binary(IDS, AMOUNTS, sizes=sizes)
    with pytest.raises(BadRequest, match=message):
        decode_request(body, Accepted(COLUMNS), CALL, true_length + length)


def test_bytes_that_no_tensor_claims_are_refused() -> None:
    body, length = binary(IDS, AMOUNTS)
    with pytest.raises(BadRequest, match="body: 3 bytes behind the last binary tensor"):
        decode_request(body + b"abc", Accepted(COLUMNS), CALL, length)
    with pytest.raises(BadRequest, match="customer_id: binary_data_size needs the header"):
        decode_request(body[:length], Accepted(COLUMNS), CALL)


REPLY = PredictReply([0.25, None], ["approve", "review"], ["3", "3"], [(), ("ModelFailed",)])


def form_of(**asked: Any) -> Form:
    inputs = [tensor("customer_id", "INT64", 7)]
    return decode_request(json.dumps({"inputs": inputs, **asked}).encode(), Accepted(COLUMNS), CALL)[1]


def test_a_caller_gets_the_outputs_it_asks_for_as_json_or_bytes() -> None:
    form = form_of(outputs=[{"name": "decision", "parameters": {"binary_data": True}}, {"name": "score"}])
    body, length = encode_reply("tiny", "mine", REPLY, form)
    assert length is not None
    told = json.loads(body[:length])
    assert told["outputs"] == [
        {"name": "decision", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 21}},
        {"name": "score", "datatype": "FP64", "shape": [2], "data": [0.25, None]},
    ]
    assert body[length:] == b"\7\0\0\0approve\6\0\0\0review"


def test_all_outputs_may_be_asked_for_as_bytes() -> None:
    body, length = encode_reply("tiny", "mine", REPLY, form_of(parameters={"binary_data_output": True}))
    assert length is not None
    sizes = {one["name"]: one["parameters"]["binary_data_size"] for one in json.loads(body[:length])["outputs"]}
    assert sizes == {
        "score": 16,
        "decision": 21,
        "model_version": 10,
        "degraded": 2,
        "reasons": 19,
        "feature_age_ms": 16,
    }
    assert len(body) == length + sum(sizes.values())
    assert np.isnan(np.frombuffer(body[length : length + 16], "<f8")).tolist() == [False, True]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        pytest.param({"outputs": [{"name": "colour"}]}, r"outputs: unknown name \(got 'colour'\)", id="unknown"),
        pytest.param({"outputs": [{"name": "score"}] * 2}, "outputs: ask for each output once", id="twice"),
        pytest.param(
            {"parameters": {"binary_data_output": 1}}, "binary_data_output: must be true or false", id="a number"
        ),
    ],
)
def test_outputs_that_do_not_exist_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        form_of(**asked)
