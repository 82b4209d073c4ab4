"""The gRPC codec: typed and raw contents, and what each fault is called."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tidewheel.serving.columns import Accepted, RequestColumns
from tidewheel.serving.proto import open_inference_pb2 as pb
from tidewheel.serving.protocols.assemble import Call
from tidewheel.serving.protocols.oip import OUTPUTS
from tidewheel.serving.protocols.oip_grpc import decode_request, encode_reply, parse
from tidewheel.serving.request import BadRequest, PredictReply

COLUMNS = RequestColumns(
    {"customer_id": "int64"}, "paid_at", "payment_id",
    {"amount": "float64", "items": "int32", "channel": "string", "gift": "bool"}, ("customer_id",),
)  # fmt: skip
ACCEPTED = Accepted(COLUMNS, "3", ("n_1d", "mean_1d"))
CALL = Call("new", 1_700_000_000_000_000, 1)
FIELDS = {
    "BOOL": "bool_contents", "INT32": "int_contents", "UINT8": "uint_contents", "INT64": "int64_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def message(*tensors: tuple[str, str, list[Any]], raw: list[bytes] | None = None, **more: Any) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="tiny", **more)
    for name, datatype, data in tensors:
        tensor = made.inputs.add(name=name, datatype=datatype, shape=[len(data)])
        if raw is None:
            getattr(tensor.contents, FIELDS[datatype]).extend(data)
    made.raw_input_contents.extend(raw or [])
    return parse(made.SerializeToString())


CUSTOMERS = ("customer_id", "INT64", [7, 8])


def test_typed_contents_of_every_kind_are_read_by_name() -> None:
    got, form = decode_request(
        message(
            CUSTOMERS, ("amount", "FP64", [1.5, math.nan]), ("items", "UINT8", [1, 2]), ("gift", "BOOL", [True, False]),
            ("channel", "BYTES", [b"web", "né".encode()]), id="mine",
        ),
        ACCEPTED, CALL,
    )  # fmt: skip
    assert (got.request_id, form.raw) == ("mine", False)
    assert got.columns == {
        "customer_id": [7, 8], "amount": [1.5, None], "items": [1, 2], "gift": [True, False], "channel": ["web", "né"],
    }  # fmt: skip


def test_raw_contents_are_read_in_the_order_of_the_inputs() -> None:
    raw = [np.array([7, 8], "<i8").tobytes(), np.array([1.5, 2.5], "<f2").tobytes()]
    got, form = decode_request(message(CUSTOMERS, ("amount", "FP16", [0, 0]), raw=raw), ACCEPTED, CALL)
    assert (got.columns, form.raw) == ({"customer_id": [7, 8], "amount": [1.5, 2.5]}, True)


def test_a_whole_vector_needs_no_key() -> None:
    asked = pb.ModelInferRequest()
    asked.inputs.add(name="features", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    got, _ = decode_request(asked, ACCEPTED, CALL)
    assert got.vectors is not None
    assert (got.vectors.tolist(), got.pinned, got.request_id) == ([[1.0, 2.0]], "3", "new")


def both_contents() -> pb.ModelInferRequest:
    made = message(CUSTOMERS)
    made.raw_input_contents.append(b"\0" * 16)
    return made


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        pytest.param(message(), "inputs: required but missing: customer_id", id="no input"),
        pytest.param(
            message(CUSTOMERS, raw=[b"", b""]), "raw_input_contents: one for each of 1 inputs", id="too many",
        ),
        pytest.param(
            message(CUSTOMERS, raw=[b"\0" * 9]), "customer_id: INT64 of shape .2. takes 16 bytes", id="lies",
        ),
        pytest.param(both_contents(), "customer_id: has contents beside raw_input_contents", id="contents twice"),
        pytest.param(
            message(("amount", "FP64", [math.inf])), "amount: must be finite", id="an infinity",
        ),
        pytest.param(message(("channel", "BYTES", [b"\xff"])), "channel: texts must be UTF-8", id="no UTF-8"),
        pytest.param(
            pb.ModelInferRequest(inputs=[{"name": "amount", "datatype": "FP16", "shape": [1]}]),
            "amount: wrong datatype .got 'FP16'.; typed contents are", id="half floats typed",
        ),
        pytest.param(
            pb.ModelInferRequest(inputs=[{"name": "amount", "datatype": "FP64", "shape": [2**62, 2**62]}]),
            "amount: at most 1048576 values", id="a shape that lies about memory",
        ),
        pytest.param(message(CUSTOMERS, outputs=[{"name": "colour"}]), "outputs: ask once", id="an unknown output"),
    ],
)  # fmt: skip
def test_a_fault_names_the_field_and_what_is_allowed(asked: pb.ModelInferRequest, fault: str) -> None:
    with pytest.raises(BadRequest, match=fault):
        decode_request(asked, ACCEPTED, CALL)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(BadRequest, match="body: not a ModelInferRequest"):
        parse(b"\xff\xff\xff")


@pytest.mark.parametrize("raw", [False, True])
def test_a_reply_is_typed_or_raw_as_the_request_was(raw: bool) -> None:
    reply = PredictReply([0.25, None], ["approve", "review"], ["3", "3"], [(), ("ModelFailed",)])
    asked = message(CUSTOMERS, raw=[np.array([7, 8], "<i8").tobytes()] if raw else None)
    _, form = decode_request(asked, ACCEPTED, CALL)
    told = pb.ModelInferResponse.FromString(encode_reply("tiny", "mine", reply, form))
    assert (told.model_name, told.model_version, told.id) == ("tiny", "3", "mine")
    assert [one.name for one in told.outputs] == list(OUTPUTS)
    if raw:
        assert told.raw_output_contents[1] == b"\7\0\0\0approve\6\0\0\0review"
        assert str(np.frombuffer(told.raw_output_contents[0], "<f8").tolist()) == "[0.25, nan]"
    else:
        assert str(list(told.outputs[0].contents.fp64_contents)) == "[0.25, nan]"
        assert list(told.outputs[3].contents.bool_contents) == [False, True]
        assert list(told.outputs[4].contents.bytes_contents) == [b"", b"ModelFailed"]


def test_a_call_may_ask_for_an_explanation_and_say_that_it_is_a_test() -> None:
    asked = message(CUSTOMERS, raw=[np.array([7, 8], "<i8").tobytes()])
    asked.parameters["explain"].bool_param = True
    request, form = decode_request(asked, ACCEPTED, CALL)
    assert (request.explain, request.test) == (True, False)
    contributions = np.array([[0.5, -1.0], [0.25, 0.0]])
    reply = PredictReply([0.25, 0.5], ["a", "b"], ["3", "3"], [(), ()], [0, 0], contributions=contributions)
    told = pb.ModelInferResponse.FromString(encode_reply("tiny", "mine", reply, form))
    assert (told.outputs[-1].name, list(told.outputs[-1].shape)) == ("contributions", [2, 2])
    assert np.frombuffer(told.raw_output_contents[-1], "<f8").tolist() == [0.5, -1.0, 0.25, 0.0]
    asked.parameters["explain"].string_param = "yes"
    with pytest.raises(BadRequest, match="parameters: explain: must be a bool_param"):
        decode_request(asked, ACCEPTED, CALL)
