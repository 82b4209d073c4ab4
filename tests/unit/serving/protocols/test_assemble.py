"""Feature vectors as input: by name or whole, in the version's order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidewheel.serving.columns import Accepted, RequestColumns
from tidewheel.serving.protocols.assemble import Call
from tidewheel.serving.protocols.oip import decode_request
from tidewheel.serving.request import BadRequest, PredictRequest

COLUMNS = RequestColumns({"customer_id": "int64"}, "paid_at", "payment_id", {"amount": "float64"}, ("customer_id",))
# A feature may pass a request column on under the column's own name.
ACCEPTED = Accepted(COLUMNS, "3", ("n_1d", "amount", "late"))


def tensor(name: str, datatype: str, data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)] if shape is None else shape, "datatype": datatype, "data": data}


def decode(*inputs: dict[str, Any], pinned: str | None = None) -> PredictRequest:
    body = json.dumps({"inputs": list(inputs)}).encode()
    return decode_request(body, ACCEPTED, Call("new", 1_700_000_000_000_000, 1, pinned))[0]


def vectors_of(request: PredictRequest) -> str:
    assert request.vectors is not None
    return str(request.vectors.tolist())


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([1, 2.5, 0, 4, None, 1], id="flat"),
        pytest.param([[1, 2.5, 0], [4, None, 1]], id="nested"),
    ],
)
def test_a_whole_vector_needs_no_key_and_belongs_to_one_version(sent: list[Any]) -> None:
    got = decode(tensor("features", "FP64", sent, [2, 3]))
    assert (vectors_of(got), got.n_rows, got.columns) == ("[[1.0, 2.5, 0.0], [4.0, nan, 1.0]]", 2, {})
    assert (got.pinned, got.event_ids) == ("3", ["new/0", "new/1"])


def test_keys_and_columns_may_come_with_a_vector_for_the_log() -> None:
    got = decode(tensor("customer_id", "INT64", [7]), tensor("features", "FP32", [1, 2, 3], [1, 3]), pinned="3")
    assert (got.columns, vectors_of(got)) == ({"customer_id": [7]}, "[[1.0, 2.0, 3.0]]")


def test_features_by_name_may_come_in_any_order() -> None:
    got = decode(tensor("late", "BOOL", [True]), tensor("amount", "FP64", [2.5]), tensor("n_1d", "INT64", [4]))
    assert (vectors_of(got), got.columns) == ("[[4.0, 2.5, 1.0]]", {"amount": [2.5]})


def test_a_request_column_alone_is_no_vector() -> None:
    got = decode(tensor("customer_id", "INT64", [7]), tensor("amount", "FP64", [2.5]))
    assert got.vectors is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param(
            [tensor("n_1d", "FP64", [1.0])], "inputs: features are sent all or none; missing: amount, late", id="one",
        ),
        pytest.param(
            [tensor("features", "FP64", [1.0, 2.0], [1, 2])],
            "features: must have shape [n, 3], one value per feature of version 3 (got [1, 2] for 2 values)",
            id="too few features",
        ),
        pytest.param(
            [tensor("features", "FP64", [1.0] * 3)],
            "features: must have shape [n, 3], one value per feature of version 3 (got [3] for 3 values)", id="no rows",
        ),
        pytest.param(
            [tensor("features", "INT64", [1, 2, 3], [1, 3])],
            "features: wrong datatype (got 'INT64'); allowed are FP64, FP32", id="the wrong datatype",
        ),
        pytest.param(
            [tensor("features", "FP64", [1, "2", 3], [1, 3])], "features: must be a number (got '2')", id="text",
        ),
        pytest.param(
            [tensor("features", "FP64", [1, 10**400, 3], [1, 3])],
            "features: a number does not fit in 64 bits of a float", id="a number that does not fit",
        ),
        pytest.param(
            [tensor("features", "FP64", [[1, 2], [3]], [1, 3])],
            "features: shape does not fit the nested data (got [1, 3] for 2 lists)", id="ragged lists",
        ),
        pytest.param(
            [tensor("features", "FP64", [[1, 2, 3]], [])],
            "features: shape does not fit the nested data (got [] for 1 lists)", id="lists without a shape",
        ),
        pytest.param(
            [tensor("features", "FP64", [1, 2, 3], [1, 3]), tensor("late", "FP64", [1.0])],
            "features: holds every feature already (got features, late as well)", id="whole and by name",
        ),
        pytest.param(
            [tensor("features", "FP64", [1, 2, 3], [1, 3]), tensor("customer_id", "INT64", [7, 8])],
            "customer_id: every input must have the same number of rows (got 2 and 1)", id="another number of rows",
        ),
        pytest.param(
            [tensor("colour", "BYTES", ["red"])],
            "inputs: unknown name (got 'colour'); allowed are event_time, event_id, amount, customer_id, paid_at, "
            "payment_id, or all features of version 3, by name or as 'features'",
            id="an unknown name",
        ),
    ],
)  # fmt: skip
def test_a_fault_names_the_field_what_was_got_and_what_is_allowed(inputs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadRequest) as error:
        decode(*inputs)
    assert str(error.value) == message
