"""The V1 protocol's codec."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidewheel.serving.columns import Accepted, RequestColumns
from tidewheel.serving.protocols.assemble import Call
from tidewheel.serving.protocols.v1 import decode_request, encode_reply
from tidewheel.serving.request import BadRequest, PredictReply, PredictRequest

NOW_US = 1_700_000_000_000_000
COLUMNS = RequestColumns(
    {"customer_id": "int64"}, "paid_at", "payment_id", {"amount": "float64", "channel": "string"}, ("customer_id",)
)
ACCEPTED = Accepted(COLUMNS, "3", ("n_1d", "mean_1d"))
REPLY = PredictReply([0.25, None], ["approve", "review"], ["3", ""], [(), ("FeaturesLate", "StaticDecision")])


def decode(**body: Any) -> tuple[PredictRequest, str]:
    return decode_request(json.dumps(body).encode(), ACCEPTED, Call("new", NOW_US, 1))


def test_rows_are_objects_by_name_and_what_one_lacks_is_missing() -> None:
    got, layout = decode(
        instances=[
            {"customer_id": 7, "amount": 3.5, "paid_at": "2023-11-14T22:13:20Z"},
            {"customer_id": 8, "channel": "web", "payment_id": 12},
        ]
    )
    assert (layout, got.request_id, got.n_rows, got.t_us) == ("rows", "new", 2, [NOW_US, NOW_US])
    assert got.columns == {"customer_id": [7, 8], "amount": [3.5, None], "channel": [None, "web"]}
    assert got.event_ids == ["new/0", "12"]


def test_columns_are_lists_by_name() -> None:
    got, layout = decode(inputs={"customer_id": [7, 8], "amount": [1, None]}, id="mine")
    assert (layout, got.request_id, got.columns) == ("columns", "mine", {"customer_id": [7, 8], "amount": [1.0, None]})


def test_lists_of_numbers_are_whole_feature_vectors() -> None:
    for body in ({"instances": [[1, 2.5], [3, None]]}, {"inputs": {"features": [[1, 2.5], [3, None]]}}):
        got, _ = decode(**body)
        assert got.vectors is not None
        assert str(got.vectors.tolist()) == "[[1.0, 2.5], [3.0, nan]]"
        assert got.pinned == "3"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param({}, 'body: needs either "instances" (a list) or "inputs" (lists by name)', id="neither"),
        pytest.param(
            {"instances": [], "inputs": {}}, 'body: needs either "instances" (a list) or "inputs" (lists by name)',
            id="both",
        ),
        pytest.param({"instances": []}, "instances: must be 1 to 4096 (got 0)", id="no instance"),
        pytest.param({"inputs": {}}, "inputs: required but missing: customer_id", id="no input"),
        pytest.param(
            {"instances": [7]}, "instances: must all be objects by name, or all lists of the model's features",
            id="a number for an instance",
        ),
        pytest.param(
            {"instances": [{"customer_id": 7}, [1, 2]]},
            "instances: must all be objects by name, or all lists of the model's features", id="a mixture",
        ),
        pytest.param(
            {"instances": [[1, 2], [3]]}, "features: shape does not fit the nested data (got [2, 2] for 2 lists)",
            id="vectors of different lengths",
        ),
        pytest.param(
            {"instances": [{"customer_id": "7"}]}, "customer_id: must be a whole number of 64 bits (got '7')",
            id="text for a number",
        ),
        pytest.param(
            {"inputs": {"customer_id": [7, 8], "amount": [1.0]}},
            "amount: every input must have the same number of rows (got 1 and 2)", id="columns of different lengths",
        ),
    ],
)  # fmt: skip
def test_a_fault_names_the_field_what_was_got_and_what_is_allowed(body: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as error:
        decode(**body)
    assert str(error.value) == message


def test_a_reply_has_an_object_per_row_or_a_list_per_name() -> None:
    rows = json.loads(encode_reply("mine", REPLY, "rows"))
    assert rows["id"] == "mine"
    assert rows["predictions"][0] == {
        "score": 0.25, "decision": "approve", "model_version": "3", "degraded": False, "reasons": "",
        "feature_age_ms": 0.0,
    }  # fmt: skip
    assert rows["predictions"][1]["reasons"] == "FeaturesLate;StaticDecision"
    columns = json.loads(encode_reply("mine", REPLY, "columns"))
    assert columns["outputs"]["score"] == [0.25, None]
