"""The OpenAPI document of one project's server, made from what it accepts at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidewheel.serving.columns import FLOAT_DATATYPES, Accepted, Column
from tidewheel.serving.protocols.assemble import MAX_ID, MAX_ROWS, VECTOR, VECTOR_DATATYPES
from tidewheel.serving.protocols.oip import CONTRIBUTIONS, OUTPUTS

Schema = dict[str, Any]

_VALUES: dict[str, Schema] = {
    "int64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "int32": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "float64": {"type": "number"},
    "float32": {"type": "number"},
    "bool": {"type": "boolean"},
    "string": {"type": "string", "maxLength": 10_000},
    "time": {
        "anyOf": [
            {"type": "integer", "minimum": 10**14, "maximum": 2**53 - 1, "description": "Microseconds, UTC."},
            {"type": "string", "format": "date-time"},
        ]
    },
    "id": {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 512}, {"type": "integer"}]},
}
_REPLY_VALUES: dict[str, Schema] = {
    "FP64": {"type": ["number", "null"]},
    "BYTES": {"type": "string"},
    "BOOL": {"type": "boolean"},
}
_FAULTS = {
    "400": "The body or a header is wrong; nothing was scored.",
    "401": "An API key is needed, and none or an unknown one came.",
    "404": "No such version.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "503": "Overloaded, nothing serves yet, or the deadline passed and no fallback is declared.",
}
_RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}


def openapi_of(project: str, accepted: Accepted | None, server_version: str) -> Schema:
    """OpenAPI 3.1; ``accepted`` is what the champion takes, None before anything serves."""
    columns = {} if accepted is None else {one.name: one for one in accepted.columns.by_name.values()}
    features = () if accepted is None else accepted.features
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{project}, served by tidewheel",
            "version": server_version,
            "description": "Decisions by Open Inference Protocol v2 and V1.",
        },
        "paths": _paths(project),
        "components": {
            "schemas": {
                "InferRequest": _infer_request(columns, features),
                "InferReply": _infer_reply(),
                "PredictRequest": _predict_request(columns, features),
                "PredictReply": _predict_reply(),
                "Error": _object({"error": {"type": "string"}}, ("error",)),
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _paths(project: str) -> Schema:
    infer, predict = _post("InferRequest", "InferReply", "infer"), _post("PredictRequest", "PredictReply", "predict")
    told: Schema = {"type": "object"}
    ready = {"503": {"description": "Not yet, or no more.", **_json(told)}}
    version = {"parameters": [{"name": "version", "in": "path", "required": True, "schema": _version_schema()}]}
    v2, v1 = f"/v2/models/{project}", f"/v1/models/{project}"
    return {
        f"{v2}/infer": {"post": infer},
        f"{v2}/versions/{{version}}/infer": {"post": {**infer, "operationId": "infer_version"}, **version},
        f"{v1}:predict": {"post": predict},
        f"{v1}:explain": {"post": {**predict, "operationId": "explain"}},
        f"{v1}/versions/{{version}}:predict": {"post": {**predict, "operationId": "predict_version"}, **version},
        v2: {"get": _get("metadata", "Inputs, outputs, versions and why one failed.", told)},
        f"{v2}/ready": {"get": _get("model_ready", "Whether the model can answer.", told, ready)},
        "/v2": {"get": _get("server", "Name, version and extensions.", told)},
        "/v2/models": {"get": _get("models", "The model's name.", told)},
        "/v2/health/live": {"get": _get("live", "The process runs.", told)},
        "/v2/health/ready": {"get": _get("ready", "A verified version serves.", told, ready)},
        "/v1/models": {"get": _get("v1_models", "The model's name.", told)},
        v1: {"get": _get("v1_ready", "Whether the model can answer.", told, ready)},
        "/status": {"get": _get("status", "What this replica has loaded and serves, for the controller.", told)},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus text.",
                "responses": {
                    "200": {"description": "Figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}
                },
            }
        },
    }


def _post(request: str, reply: str, name: str) -> Schema:
    wait = {"name": "X-Request-Timeout-Ms", "in": "header", "required": False,
            "description": "The most that the caller waits; lowers the project's deadline.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 3_600_000}}  # fmt: skip
    faults = {
        status: {"description": told, **_json(_ref("Error")), **({"headers": _RETRY} if status == "503" else {})}
        for status, told in _FAULTS.items()
    }
    return {
        "operationId": name,
        "summary": "A decision for each row.",
        "parameters": [wait],
        "requestBody": {"required": True, **_json(_ref(request))},
        "responses": {"200": {"description": "Decisions.", **_json(_ref(reply))}, **faults},
    }


def _get(name: str, summary: str, schema: Schema, more: Mapping[str, Schema] | None = None) -> Schema:
    faults = {"401": {"description": _FAULTS["401"], **_json(_ref("Error"))}}
    responses = {"200": {"description": summary, **_json(schema)}, **faults, **(more or {})}
    return {"operationId": name, "summary": summary, "responses": responses}


def _infer_request(columns: Mapping[str, Column], features: tuple[str, ...]) -> Schema:
    inputs = [_tensor(name, one.datatypes, _value(one)) for name, one in columns.items()]
    number: Schema = {"type": ["number", "null"]}
    inputs += [_tensor(name, (*FLOAT_DATATYPES, "BOOL"), number) for name in features if name not in columns]
    if features and VECTOR not in columns:
        inputs.append(_vector(len(features)))
    flags = {name: {"type": "boolean"} for name in ("binary_data_output", "test", "explain")}
    output = _object({"name": {"enum": list(OUTPUTS)}, "parameters": {"type": ["object", "null"]}}, ("name",))
    return _object(
        {
            "id": {"type": ["string", "null"], "maxLength": MAX_ID},
            "inputs": {"type": "array", "minItems": 1, "items": {"anyOf": inputs} if inputs else {}},
            "outputs": {"type": ["array", "null"], "items": output},
            "parameters": {"type": ["object", "null"], "properties": flags},
            "model_name": {"type": ["string", "null"]},
            "model_version": {"type": ["string", "null"]},
        },
        ("inputs",),
    )


def _tensor(name: str, datatypes: tuple[str, ...], value: Schema) -> Schema:
    return _object(
        {
            "name": {"const": name},
            "datatype": {"enum": list(datatypes)},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2},
            "data": {"type": "array", "items": value, "minItems": 1, "maxItems": MAX_ROWS},
            "parameters": {"type": ["object", "null"]},
        },
        ("name", "datatype", "shape", "data"),
    )


def _vector(n_features: int) -> Schema:
    row = {"type": "array", "items": {"type": ["number", "null"]}, "minItems": n_features, "maxItems": n_features}
    tensor = _tensor(VECTOR, VECTOR_DATATYPES, row)
    tensor["properties"]["data"] = {"type": "array", "items": {"anyOf": [row, {"type": ["number", "null"]}]}}
    return tensor


def _infer_reply() -> Schema:
    outputs = [
        _object(
            {
                "name": {"const": name},
                "datatype": {"const": datatype},
                "shape": {"type": "array", "items": {"type": "integer"}},
                "data": {"type": "array", "items": _REPLY_VALUES[datatype]},
                "parameters": {"type": "object"},
            },
            ("name", "datatype", "shape"),
        )
        for name, datatype in (*OUTPUTS.items(), (CONTRIBUTIONS, "FP64"))
    ]
    return _object(
        {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {"anyOf": outputs}},
        },
        ("model_name", "model_version", "id", "outputs"),
    )


def _predict_request(columns: Mapping[str, Column], features: tuple[str, ...]) -> Schema:
    by_name = _object({name: _value(one) for name, one in columns.items()}, ())
    number: Schema = {"type": ["number", "null"]}
    by_name["properties"] |= {name: number for name in features if name not in columns}
    kinds: list[Schema] = [by_name]
    if features:
        n = len(features)
        kinds.append({"type": "array", "items": number, "minItems": n, "maxItems": n})
    lists = {name: {"type": "array", "items": schema} for name, schema in by_name["properties"].items()}
    return _object(
        {
            "id": {"type": ["string", "null"], "maxLength": MAX_ID},
            "instances": {"type": "array", "items": {"anyOf": kinds}, "minItems": 1, "maxItems": MAX_ROWS},
            "inputs": _object(lists, ()),
            "signature_name": {"type": ["string", "null"]},
        },
        (),
    ) | {"oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}]}


def _predict_reply() -> Schema:
    row = _object({name: _REPLY_VALUES[datatype] for name, datatype in OUTPUTS.items()}, tuple(OUTPUTS))
    added: Schema = {"type": "array", "items": {"type": "number"}}
    row["properties"][CONTRIBUTIONS] = added
    lists = {name: {"type": "array", "items": _REPLY_VALUES[datatype]} for name, datatype in OUTPUTS.items()}
    lists[CONTRIBUTIONS] = {"type": "array", "items": added}
    return _object(
        {
            "id": {"type": "string"},
            "predictions": {"type": "array", "items": row},
            "outputs": _object(lists, tuple(OUTPUTS)),
        },
        ("id",),
    )


def _value(column: Column) -> Schema:
    schema = _VALUES[column.type]
    return schema if column.required else {"anyOf": [schema, {"type": "null"}]}


def _version_schema() -> Schema:
    return {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9._-]+$"}


def _object(properties: Mapping[str, Any], required: tuple[str, ...]) -> Schema:
    made: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return made | {"required": list(required)} if required else made


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Schema) -> Schema:
    return {"content": {"application/json": {"schema": schema}}}
