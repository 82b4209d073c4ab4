"""The protocols of a running model server: whatever a caller speaks, it gets the same answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doc_examples import examples_of, shape_of
from memory.tiny import T0_US
from servers.model_server import Rig, bundles, rig_at, wait_for

__all__ = ["bundles"]  # a fixture
pytestmark = pytest.mark.integration

V2, V1 = "/v2/models/tiny", "/v1/models/tiny"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Path, dict[str, str]]) -> Iterator[Rig]:
    """Version 1 serves, version 2, which has other features, is warm."""
    with rig_at(tmp_path_factory.mktemp("home"), bundles) as made:
        made.deploy({"1": 1.0}, warm=("2",))
        made.start()
        wait_for("version 2", lambda: made.status().versions["2"].state == "ready")
        wait_for("its swap", lambda: made.send("POST", f"{V2}/versions/2/infer", b"{}").status == 400)
        yield made


def tensor(name: str, datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data, **more}


ASKED = [
    tensor("customer_id", "INT64", [7, 8]),
    tensor("amount", "FP64", [9.0, 290.0]),
    tensor("paid_at", "INT64", [T0_US, T0_US]),
]


def outputs_of(answer: dict[str, Any]) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


@pytest.fixture(scope="module")
def expected(served: Rig) -> dict[str, list[Any]]:
    outputs = outputs_of(served.send("POST", f"{V2}/infer", {"inputs": ASKED}).json)
    assert outputs["score"][0] != outputs["score"][1]
    return outputs


def test_v1_rows_and_columns_get_the_answer_of_v2(served: Rig, expected: dict[str, list[Any]]) -> None:
    columns = {one["name"]: one["data"] for one in ASKED}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    told = served.send("POST", f"{V1}:predict", {"instances": rows}).json["predictions"]
    assert {name: [row[name] for row in told] for name in expected} == expected
    assert served.send("POST", f"{V1}:predict", {"inputs": columns}).json["outputs"] == expected


def test_binary_tensors_get_the_answer_of_json_ones_as_bytes(served: Rig, expected: dict[str, list[Any]]) -> None:
    raw = [np.array(one["data"], {"INT64": "<i8", "FP64": "<f8"}[one["datatype"]]).tobytes() for one in ASKED]
    inputs = [
        {k: v for k, v in one.items() if k != "data"} | {"parameters": {"binary_data_size": len(part)}}
        for one, part in zip(ASKED, raw, strict=True)
    ]
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "score", "parameters": {"binary_data": True}}]}).encode()
    answer = served.send("POST", f"{V2}/infer", b"".join((head, *raw)), Inference_Header_Content_Length=str(len(head)))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    length = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.body[length:], "<f8").tolist() == expected["score"]


def test_a_vector_gets_the_answer_of_the_keys_that_it_was_read_for(served: Rig, expected: dict[str, list[Any]]) -> None:
    told = served.send("GET", V2).json["parameters"]["features"]
    assert told == ["n_1d", "amount_mean_1d", "large"]
    vectors = [[1.0, 9.0, 0.05], [1.0, 290.0, 0.95]]
    whole = {"name": "features", "shape": [2, 3], "datatype": "FP64", "data": vectors}
    named = [tensor(name, "FP64", list(values)) for name, values in zip(told, zip(*vectors, strict=True), strict=True)]
    for inputs in ([whole], named):
        got = served.send("POST", f"{V2}/infer", {"inputs": inputs})
        assert (got.status, outputs_of(got.json)) == (200, expected)
    assert (
        served.send("POST", f"{V1}:predict", {"instances": vectors}).json["predictions"][1]["decision"]
        == (expected["decision"][1])
    )


def test_a_vector_is_of_the_version_that_the_path_names(served: Rig) -> None:
    vector = {"name": "features", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 0.95]}
    got = served.send("POST", f"{V2}/versions/2/infer", {"inputs": [vector]})
    assert (got.status, outputs_of(got.json)["model_version"]) == (200, ["2"])
    got = served.send("POST", f"{V2}/infer", {"inputs": [vector]})
    assert (got.status, got.json["error"]) == (
        400,
        "features: must have shape [n, 3], one value per feature of version 1 (got [1, 2] for 2 values)",
    )


def test_a_vector_is_logged_as_what_it_is(served: Rig) -> None:
    vector = {"name": "features", "shape": [1, 3], "datatype": "FP64", "data": [5.0, 6.0, 0.5]}
    asked = served.send("POST", f"{V2}/infer", {"id": "sent-vector", "inputs": [vector]})
    assert asked.status == 200
    rows = wait_for("the log", lambda: [row for row in served.logged() if row["request_id"] == "sent-vector"])
    assert [(row["role"], row["features"], row["request.customer_id"]) for row in rows] == [
        ("vector", [5.0, 6.0, 0.5], None)
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        pytest.param("GET", f"{V2}/infer", 405, "POST", id="reading infer"),
        pytest.param("DELETE", V2, 405, "GET, HEAD", id="deleting a model"),
        pytest.param("GET", f"{V1}:predict", 405, "POST", id="reading predict"),
        pytest.param("POST", f"{V1}:train", 404, None, id="a verb that is not there"),
        pytest.param("POST", "/v1/models/other:predict", 404, None, id="another model"),
        pytest.param("POST", f"{V2}/versions/9/infer", 404, None, id="a version that is not loaded"),
        pytest.param("GET", f"{V2}/versions/9/ready", 404, None, id="readiness of such a version"),
        pytest.param("POST", "/v2/repository/models/tiny/unload", 404, None, id="unloading"),
        pytest.param("GET", "/docs", 404, None, id="a page that is not there"),
        pytest.param("GET", "/%2e%2e/etc/passwd", 404, None, id="a path out of the server"),
    ],
)
def test_what_is_not_there_is_told(served: Rig, method: str, path: str, status: int, allow: str | None) -> None:
    answer = served.send(method, path)
    assert (answer.status, answer.headers.get("allow")) == (status, allow)
    assert answer.json["error"]


@pytest.mark.parametrize(
    "path", ["/", "/v1/models", V1, "/v2", "/v2/models", V2, f"{V2}/ready", f"{V2}/versions/2/ready", "/v2/health/live"]
)
def test_what_is_there_is_told(served: Rig, path: str) -> None:
    assert served.send("GET", path).status == 200
    assert served.send("HEAD", path).body == b""


def test_a_callers_own_timeout_lowers_the_deadline(served: Rig) -> None:
    answer = served.send("POST", f"{V2}/infer", {"inputs": ASKED}, x_request_timeout_ms="1")
    assert answer.status == 200
    for wrong in ("0", "-1", "soon", "9999999999"):
        answer = served.send("POST", f"{V2}/infer", {"inputs": ASKED}, x_request_timeout_ms=wrong)
        assert (answer.status, "x-request-timeout-ms: must be" in answer.json["error"]) == (400, True)


def test_the_examples_of_the_http_reference_are_answered_as_it_says(served: Rig, repository: Path) -> None:
    examples = examples_of((repository / "docs" / "reference" / "http.md").read_text())
    assert len(examples) >= 4
    for example in examples:
        answer = served.send(example.method, example.path, example.body, **example.headers)
        assert answer.status == example.status, (example, answer.body)
        if example.answer is not None:
            assert shape_of(answer.json) == shape_of(example.answer), example


def test_with_api_keys_only_those_who_know_one_are_answered(
    tmp_path: Path, bundles: tuple[Path, dict[str, str]]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("old-key\nnew-key\n")
    with rig_at(tmp_path / "home", bundles) as rig:
        rig.deploy({"1": 1.0})
        rig.start(environment={"TIDEWHEEL_API_KEY_FILE": str(keys)})
        for path in ("/v2/health/live", "/v2/health/ready", "/metrics", "/"):
            assert rig.send("GET", path).status == 200
        for method, path in (("GET", V2), ("GET", "/v1/models"), ("POST", f"{V2}/infer"), ("POST", f"{V1}:predict")):
            answer = rig.send(method, path, authorization="Bearer nokey")
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        asked = {"inputs": ASKED}
        assert rig.send("POST", f"{V2}/infer", asked, authorization="Bearer new-key").status == 200


@pytest.mark.parametrize("name", ["TIDEWHEEL_API_KEY_FILE", "TIDEWHEEL_MESH_CLIENTS_FILE"])
def test_a_server_does_not_start_without_the_keys_it_was_told_of(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "tidewheel.apps.model_server", "--home", str(tmp_path), "--project", "tiny"]
    environment = {**os.environ, name: str(tmp_path / "none")}
    done = subprocess.run(
        [*command, "--port", "0"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_a_score_is_explained_by_what_each_feature_added_to_it(served: Rig) -> None:
    body = {"inputs": [{"name": "customer_id", "shape": [2], "datatype": "INT64", "data": [7, 8]},
                       {"name": "amount", "shape": [2], "datatype": "FP64", "data": [290.0, 10.0]}],
            "parameters": {"explain": True}}  # fmt: skip
    told = {one["name"]: one for one in served.send("POST", f"{V2}/infer", body).json["outputs"]}
    features = served.send("GET", V2).json["parameters"]["features"]
    assert told["contributions"]["shape"] == [2, len(features) + 1]
    added = np.array(told["contributions"]["data"]).reshape(2, -1).sum(axis=1)
    assert np.allclose(1 / (1 + np.exp(-added)), told["score"]["data"], atol=1e-5), "log odds add up to the score"
    rows = {"instances": [{"customer_id": 7, "amount": 290.0}]}
    (row,) = served.send("POST", f"{V1}:explain", rows).json["predictions"]
    assert np.allclose(row["contributions"], told["contributions"]["data"][: len(features) + 1])
    assert "contributions" not in served.send("POST", f"{V1}:predict", rows).json["predictions"][0]


def test_a_request_id_comes_back_and_counts_where_the_body_has_none(served: Rig) -> None:
    body = {"inputs": [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [7]}]}
    answer = served.send("POST", f"{V2}/infer", body, x_request_id="from-the-gateway-17")
    assert (answer.headers["x-request-id"], answer.json["id"]) == ("from-the-gateway-17",) * 2
    named = served.send("POST", f"{V2}/infer", {"id": "mine", **body}, x_request_id="from-the-gateway-18")
    assert (named.headers["x-request-id"], named.json["id"]) == ("from-the-gateway-18", "mine")
    odd = served.send("POST", f"{V2}/infer", body, x_request_id="x" * 500)
    assert "x-request-id" not in odd.headers


def test_readiness_says_which_generation_is_served(served: Rig) -> None:
    assert served.send("GET", "/v2/health/ready").json == {"ready": True, "generation": served.generation}


def test_features_say_how_old_they_are(served: Rig) -> None:
    body = {"inputs": [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [7]}]}
    told = {one["name"]: one["data"] for one in served.send("POST", f"{V2}/infer", body).json["outputs"]}
    assert told["feature_age_ms"][0] >= 0.0
