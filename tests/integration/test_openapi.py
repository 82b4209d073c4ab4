"""The OpenAPI document is true of the server: schemathesis asks by it, and judges every answer by it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from servers.model_server import Rig, bundles, rig_at

__all__ = ["bundles"]  # a fixture
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

EXAMPLES = int(os.environ.get("TIDEWHEEL_SCHEMATHESIS_EXAMPLES", "40"))
CHECKS = (
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    negative_data_rejection, unsupported_method,
)  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Path, dict[str, str]]) -> Iterator[Rig]:
    with rig_at(tmp_path_factory.mktemp("live"), bundles) as made:
        made.deploy({"1": 1.0})
        made.start()
        yield made


@pytest.fixture(scope="module")
def document(live: Rig) -> Any:
    return schemathesis.openapi.from_url(f"{live.url}/openapi.json")


OPERATIONS = (
    "infer", "infer_version", "predict", "explain", "predict_version", "metadata", "model_ready", "server", "models",
    "live", "ready", "v1_models", "v1_ready", "metrics", "status",
)  # fmt: skip


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_answers_as_the_document_says(document: Any, name: str, mode: GenerationMode) -> None:
    operation = document.find_operation_by_id(name)
    if mode is GenerationMode.NEGATIVE and not operation.body and not operation.path_parameters:
        mode = GenerationMode.POSITIVE  # there is nothing to get wrong; other methods are asked for below

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate),
    )  # fmt: skip
    @given(operation.as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        case.call_and_validate(checks=list(CHECKS), timeout=10)

    answers()


def test_the_document_has_every_operation(document: Any) -> None:
    operations = [found.ok().definition.raw["operationId"] for found in document.get_all_operations()]
    assert sorted(operations) == sorted(OPERATIONS)


def test_the_document_knows_the_project_s_columns(live: Rig) -> None:
    told = json.loads(live.get("/openapi.json"))
    inputs = told["components"]["schemas"]["InferRequest"]["properties"]["inputs"]["items"]["anyOf"]
    names = {one["properties"]["name"]["const"] for one in inputs}
    assert {"customer_id", "paid_at", "payment_id", "amount", "channel", "features"} <= names
    assert told["openapi"] == "3.1.0"


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Any value that a schema of the document allows."""
    if "anyOf" in schema:
        return st.one_of([values(one) for one in schema["anyOf"]])
    if schema.get("format") == "date-time":
        moments = st.datetimes(datetime(1975, 1, 1), datetime(2240, 1, 1), timezones=st.just(UTC))
        return moments.map(datetime.isoformat)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    made: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(schema.get("minimum"), schema.get("maximum")),
        "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**80), 2**80),
        "boolean": st.booleans(),
        "string": st.text(st.characters(codec="utf-8"), min_size=schema.get("minLength", 0), max_size=40),
        "null": st.none(),
    }
    return st.one_of([made[kind] for kind in kinds])


@st.composite
def requests(draw: st.DrawFn, tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A request of one to three rows with the key and some columns."""
    n = draw(st.integers(1, 3))
    others = draw(st.sets(st.sampled_from(sorted(tensors.keys() - {"customer_id"}))))
    inputs = []
    for name in ("customer_id", *sorted(others)):
        schema = tensors[name]["properties"]
        data = draw(st.lists(values(schema["data"]["items"]), min_size=n, max_size=n))
        datatype = draw(st.sampled_from(schema["datatype"]["enum"]))
        inputs.append({"name": name, "datatype": datatype, "shape": [n], "data": data})
    return {"inputs": inputs}


def test_whatever_the_document_allows_for_columns_is_answered(live: Rig) -> None:
    told = json.loads(live.get("/openapi.json"))
    inputs = told["components"]["schemas"]["InferRequest"]["properties"]["inputs"]["items"]["anyOf"]
    tensors = {one["properties"]["name"]["const"]: one for one in inputs}
    columns = {name: tensors[name] for name in ("customer_id", "payment_id", "paid_at", "amount", "channel")}
    reply = Draft202012Validator({"$ref": "#/components/schemas/InferReply", "components": told["components"]})

    @settings(max_examples=5 * EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(requests(columns))
    def answered(body: dict[str, Any]) -> None:
        infer = live.send("POST", "/v2/models/tiny/infer", body)
        assert infer.status == 200, infer.body
        assert list(reply.iter_errors(infer.json)) == []
        by_name = {one["name"]: one["data"] for one in body["inputs"]}
        predict = live.send("POST", "/v1/models/tiny:predict", {"inputs": by_name})
        assert predict.status == 200, predict.body

    answered()


def test_a_value_of_the_wrong_type_is_wrong_by_the_document_too(live: Rig) -> None:
    components = json.loads(live.get("/openapi.json"))["components"]
    validator = Draft202012Validator({"$ref": "#/components/schemas/InferRequest", "components": components})
    body: dict[str, Any] = {"inputs": [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [7]}]}
    assert list(validator.iter_errors(body)) == []
    body["inputs"][0]["data"] = ["seven"]
    assert list(validator.iter_errors(body)) != []
