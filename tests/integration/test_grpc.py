"""gRPC beside HTTP in one running model server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from memory.tiny import T0_US
from servers.mlflow import free_port
from servers.model_server import Rig, bundles, rig_at, wait_for
from tidewheel.serving.proto import open_inference_pb2 as pb

__all__ = ["bundles"]  # a fixture
pytestmark = pytest.mark.integration

SERVICE = "inference.GRPCInferenceService"


@dataclass
class Caller:
    """A client that speaks bytes, so that it can also say nonsense."""

    rig: Rig
    port: int

    def __post_init__(self) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")

    def call(self, method: str, asked: Any = b"", timeout: float | None = 10, **metadata: str) -> bytes:
        data = asked if isinstance(asked, bytes) else asked.SerializeToString()
        answer: bytes = self.channel.unary_unary(f"/{SERVICE}/{method}")(
            data, timeout=timeout, metadata=tuple(metadata.items())
        )
        return answer

    def fault(self, method: str, asked: Any = b"", **metadata: str) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as error:
            self.call(method, asked, **metadata)
        return error.value.code().name, error.value.details()


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Path, dict[str, str]]) -> Iterator[Caller]:
    with rig_at(tmp_path_factory.mktemp("home"), bundles) as rig:
        port = free_port()
        rig.deploy({"1": 1.0}, warm=("2",))
        rig.start(0, "--grpc-port", port)
        wait_for("version 2", lambda: rig.status().versions["2"].state == "ready")
        wait_for("its swap", lambda: rig.send("POST", "/v2/models/tiny/versions/2/infer", b"{}").status == 400)
        made = Caller(rig, port)
        yield made
        made.channel.close()


def asked(**more: Any) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="tiny", **more)
    made.inputs.add(name="customer_id", datatype="INT64", shape=[2]).contents.int64_contents.extend([7, 8])
    made.inputs.add(name="amount", datatype="FP64", shape=[2]).contents.fp64_contents.extend([9.0, 290.0])
    made.inputs.add(name="paid_at", datatype="INT64", shape=[2]).contents.int64_contents.extend([T0_US, T0_US])
    return made


def test_grpc_gives_the_answer_of_rest(caller: Caller) -> None:
    told = pb.ModelInferResponse.FromString(caller.call("ModelInfer", asked(id="mine")))
    inputs = [
        {"name": name, "datatype": kind, "shape": [2], "data": data}
        for name, kind, data in (
            ("customer_id", "INT64", [7, 8]), ("amount", "FP64", [9.0, 290.0]), ("paid_at", "INT64", [T0_US, T0_US])
        )
    ]  # fmt: skip
    rest = caller.rig.send("POST", "/v2/models/tiny/infer", {"inputs": inputs}).json
    assert (told.id, told.model_version) == ("mine", "1")
    assert list(told.outputs[0].contents.fp64_contents) == rest["outputs"][0]["data"]
    assert [one.decode() for one in told.outputs[1].contents.bytes_contents] == rest["outputs"][1]["data"]


def test_versions_are_named_in_the_message(caller: Caller) -> None:
    told = pb.ModelInferResponse.FromString(caller.call("ModelInfer", asked(model_version="2")))
    assert told.model_version == "2"
    ready = caller.call("ModelReady", pb.ModelReadyRequest(name="tiny", version="2"))
    assert pb.ModelReadyResponse.FromString(ready).ready
    metadata = pb.ModelMetadataResponse.FromString(caller.call("ModelMetadata", pb.ModelMetadataRequest(name="tiny")))
    assert sorted(metadata.versions) == ["1", "2"]
    assert ("customer_id", "INT64") in [(one.name, one.datatype) for one in metadata.inputs]
    assert pb.ServerLiveResponse.FromString(caller.call("ServerLive")).live
    assert pb.ServerReadyResponse.FromString(caller.call("ServerReady")).ready
    server = pb.ServerMetadataResponse.FromString(caller.call("ServerMetadata"))
    assert (server.name, json.loads(caller.rig.get("/v2"))["version"]) == ("tidewheel", server.version)


@pytest.mark.parametrize(
    ("method", "message", "code", "details"),
    [
        pytest.param("ModelInfer", b"\xff\xff", "INVALID_ARGUMENT",
                     "body: not a ModelInferRequest of the Open Inference Protocol v2", id="garbage"),
        pytest.param("ModelInfer", pb.ModelInferRequest(model_name="tiny"), "INVALID_ARGUMENT",
                     "inputs: required but missing: customer_id", id="no input"),
        pytest.param("ModelInfer", pb.ModelInferRequest(model_name="other"), "NOT_FOUND",
                     "model 'other': no such model; this server has 'tiny'", id="another model"),
        pytest.param("ModelInfer", asked(model_version="9"), "NOT_FOUND",
                     "version '9' is not loaded; loaded are 1, 2", id="another version"),
        pytest.param("ModelReady", pb.ModelReadyRequest(name="tiny", version="9"), "NOT_FOUND",
                     "version '9' is not loaded; loaded are 1, 2", id="readiness of another version"),
        pytest.param("ServerLive", b"\xff", "INVALID_ARGUMENT",
                     "body: not a ServerLiveRequest of the Open Inference Protocol v2", id="garbage for live"),
        pytest.param("Unload", b"", "UNIMPLEMENTED", "Method not found!", id="a method that is not there"),
    ],
)  # fmt: skip
def test_faults_have_codes_and_the_words_of_rest(
    caller: Caller, method: str, message: Any, code: str, details: str
) -> None:
    assert caller.fault(method, message) == (code, details)


def test_a_message_that_is_too_large_is_turned_away(caller: Caller) -> None:
    large = pb.ModelInferRequest(model_name="tiny", raw_input_contents=[b"x" * (1 << 21)])
    assert caller.fault("ModelInfer", large)[0] == "RESOURCE_EXHAUSTED"
    caller.call("ModelInfer", asked())


def test_health_and_reflection_know_the_service(caller: Caller) -> None:
    health = health_pb2_grpc.HealthStub(caller.channel)
    for service in ("", SERVICE):
        assert health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status == 1
    stub = reflection_pb2_grpc.ServerReflectionStub(caller.channel)
    listed = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10)
    names = {one.name for one in next(listed).list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_the_example_of_the_grpc_reference_is_answered(caller: Caller, repository: Path) -> None:
    page = (repository / "docs" / "reference" / "grpc.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"ADDRESS": f"127.0.0.1:{caller.port}"}
    exec(example.replace("timeout=0.2", "timeout=10"), names)
    assert (names["answer"].id, len(names["answer"].outputs)) == ("payment-17", 6)


def test_kserves_own_clients_are_served(caller: Caller, repository: Path) -> None:
    script = repository / "tests" / "servers" / "kserve_clients.py"
    command = [sys.executable, str(script), caller.rig.url, f"127.0.0.1:{caller.port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    one = told.pop("v2 rest")
    assert one["decision"] == ["approve", "review"]
    assert {name: got for name, got in told.items() if got != one} == {}
    assert sorted(told) == ["v1 rest", "v2 grpc raw", "v2 grpc typed", "v2 rest binary"]


def test_api_keys_and_draining_hold_for_grpc_too(tmp_path: Path, bundles: tuple[Path, dict[str, str]]) -> None:
    (tmp_path / "keys").write_text("a-key\n")
    with rig_at(tmp_path / "home", bundles) as rig:
        rig.deploy({"1": 1.0})
        port = free_port()
        environment = {"TIDEWHEEL_API_KEY_FILE": str(tmp_path / "keys")}
        server = rig.start(0, "--grpc-port", port, environment=environment)
        caller = Caller(rig, port)
        assert pb.ServerReadyResponse.FromString(caller.call("ServerReady")).ready
        assert caller.fault("ModelInfer", asked(), authorization="Bearer no")[0] == "UNAUTHENTICATED"
        caller.call("ModelInfer", asked(), authorization="Bearer a-key")
        watch = health_pb2_grpc.HealthStub(caller.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert any(told.status == 1 for told in watch)  # readiness reaches the health service a moment later
        server.terminate()
        try:
            assert next(watch).status == 2
        except grpc.RpcError as error:  # the server ended first
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert server.wait(timeout=15) == 0
        caller.channel.close()
