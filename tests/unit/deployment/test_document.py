"""The document's codec: a round trip, and every fault named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidewheel.deployment.document import DeploymentDocument, Variant, document_from_json
from tidewheel.errors import ContractViolation

BANDS = {"approve": 0.0, "decline": 0.9}
DOCUMENT = DeploymentDocument(
    project="tiny",
    generation=7,
    unit_key="customer_id",
    salt="tiny:2",
    champion="1",
    variants=(Variant("1", "a" * 64, BANDS), Variant("2", "b" * 64, BANDS), Variant("3", "c" * 64, BANDS)),
    weights={"2": 0.25, "1": 0.75},
    shadow=("3",),
    warm=(),
)


def test_a_document_reads_back_as_it_was_written() -> None:
    assert document_from_json(DOCUMENT.to_json()) == DOCUMENT
    assert list(document_from_json(DOCUMENT.to_json()).weights) == ["2", "1"]


def test_a_document_before_the_first_champion_has_no_weights() -> None:
    first = DeploymentDocument("tiny", 1, "customer_id", "s", None, (Variant("1", "a", BANDS),), {}, (), ("1",))
    assert document_from_json(first.to_json()) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"weights": {"1": 0.5}}, "weights: must sum to 1 (got 0.5)", id="weights that do not sum to 1"),
        pytest.param({"weights": {"1": 1.0, "9": 0.0}}, "weights: no such variant (got '9')", id="an unknown weight"),
        pytest.param({"weights": {"1": "1"}}, "weights: every weight must be between 0 and 1", id="a weight as text"),
        pytest.param({"champion": "3"}, "champion: must have a weight (got '3')", id="a champion without traffic"),
        pytest.param({"champion": None}, "weights: must be empty without a champion", id="traffic for nobody"),
        pytest.param({"generation": -1}, "generation: must not be negative (got -1)", id="a negative generation"),
        pytest.param({"generation": True}, "generation: wrong type (got bool)", id="a flag as generation"),
        pytest.param({"shadow": ["9"]}, "shadow: no such variant (got '9')", id="an unknown shadow"),
        pytest.param({"surprise": 1}, "surprise: unknown field", id="an unknown field"),
        pytest.param({"variants": [{"version": "1"}]}, "variants.0.digest: required field is missing", id="no digest"),
        pytest.param(
            {"variants": [{"version": "1", "digest": "a", "decision": {"approve": 0.5}}]},
            "variants.0.decision: one decision must start at 0.0",
            id="bands that leave a gap",
        ),
    ],
)
def test_a_fault_is_named(change: dict[str, Any], message: str) -> None:
    body = json.loads(DOCUMENT.to_json()) | change
    with pytest.raises(ContractViolation) as error:
        document_from_json(json.dumps(body).encode(), "x.json")
    assert str(error.value).startswith("x.json: ")
    assert message in str(error.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", DOCUMENT.to_json()[:100]])
def test_a_damaged_file_is_refused_whole(data: bytes) -> None:
    with pytest.raises(ContractViolation):
        document_from_json(data)
