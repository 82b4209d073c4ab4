"""The peers as processes on the same features and the same trees: KServe's stack, MLServer and BentoML.

Each lives in an environment of its own under .peers/ (``make bench-peers``), with the versions of locks/peers-*.txt.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.redis_world import RedisWorld, published_fields
from benchmarks.serving import Target, free_port, listens, wait
from benchmarks.world import ROOT, scratch
from tidewheel.adapters.connections import read_connections
from tidewheel.adapters.feast_folder import start_writing
from tidewheel.bundle.files import MODEL_UBJ
from tidewheel.features.feast_definitions import feast_definitions
from tidewheel.features.lake import source_paths
from tidewheel.serving.client import OpenLoop

FILES = ROOT / "benchmarks" / "peers"
NAME = "card-fraud"
ENTITIES = ("customer_id", "terminal_id")
PATIENCE_S = 240.0  # their imports alone take many seconds on one CPU
OUR_REPLY = b'{"outputs":[]}'


@dataclass(frozen=True)
class Read:
    """What every peer needs: Feast's folder, the features in the model's order, the trees."""

    feast: Path
    references: tuple[str, ...]
    model: Path


@dataclass(frozen=True)
class Peer:
    """``bodies`` are what its callers send; ``score`` reads its reply. ``grpc`` is None where it has none."""

    told: str
    rest: Target
    bodies: list[bytes]
    score: Callable[[bytes], float]
    grpc: Target | None = None


class PeerLoop(OpenLoop):
    """Counts a reply of another protocol as answered where ``score`` can be read from it."""

    def __init__(self, *given: Any, score: Callable[[bytes], float], **more: Any) -> None:
        super().__init__(*given, **more)
        self._score = score

    def answered(self, connection: Any, status: int, body: bytes, keep: bool) -> None:
        if status == 200:
            self._score(body)
            body = OUR_REPLY
        super().answered(connection, status, body, keep)


class _Predictions(msgspec.Struct):
    predictions: list[float]


class _Score(msgspec.Struct):
    score: float


class _Output(msgspec.Struct):
    name: str
    data: list[Any]


class _Outputs(msgspec.Struct):
    outputs: list[_Output]


_predictions, _score, _outputs = (msgspec.json.Decoder(kind) for kind in (_Predictions, _Score, _Outputs))


def score_of_outputs(body: bytes) -> float:
    """Of a reply of the Open Inference Protocol, ours and MLServer's."""
    return float(next(one.data[0] for one in _outputs.decode(body).outputs if one.name == "score"))


def feast_read(world: RedisWorld) -> Read:
    """Feast's registry over what the world's Redis holds, written as ``tidewheel apply`` does."""
    folder, lake = scratch() / f"feast-{world.kind}", source_paths(world.home.lake, world.project)
    definitions = feast_definitions(world.project, world.features, [], lake)
    writing = start_writing(folder, definitions, read_connections(world.home), scratch() / "unused.db")
    if writing is not None and (reason := writing.finish()):
        raise RuntimeError(f"Feast's registry: {reason}")
    references = tuple(f"{view}:{name}" for _, view, names in published_fields(world) for name in names)
    return Read(folder, references, world.bundle / MODEL_UBJ)


def entity_ids(world: RedisWorld) -> list[tuple[int, int]]:
    columns = [world.requests[name].to_pylist() for name in ENTITIES]
    return list(zip(*columns, strict=True))


@contextlib.contextmanager
def kserve_stack(world: RedisWorld, read: Read) -> Iterator[Peer]:
    """Transformer, ``feast serve`` and predictor; for gRPC a second transformer in front of the same two."""
    python = python_of("kserve")
    feast_port, predictor, predictor_grpc = free_port(), free_port(), free_port()
    ports, spare = {"v1": free_port(), "grpc-v2": free_port()}, [free_port(), free_port()]
    # Else the feature server restarts every 1000 requests and breaks connections.
    serve = [python.parent / "feast", "-c", read.feast, "serve", "--port", feast_port, "--max-requests", 0]
    model = [python, FILES / "kserve_predictor.py", "--http_port", predictor, "--grpc_port", predictor_grpc]
    with contextlib.ExitStack() as stack:
        behind = [
            stack.enter_context(process_of("feast-serve", serve)),
            stack.enter_context(process_of("kserve-predictor", [*model, "--model_name", NAME, read.model])),
        ]
        fronts = {}
        for (protocol, port), other, host in zip(ports.items(), spare, (predictor, predictor_grpc), strict=True):
            http, grpc = (port, other) if protocol == "v1" else (other, port)
            command = [
                python, FILES / "kserve_transformer.py", "--model_name", NAME, "--http_port", http, "--grpc_port", grpc,
                "--predictor_host", f"127.0.0.1:{host}", "--predictor_protocol", protocol,
                f"http://127.0.0.1:{feast_port}", ",".join(ENTITIES), ",".join(read.references),
            ]  # fmt: skip
            fronts[protocol] = stack.enter_context(process_of(f"kserve-transformer-{protocol}", command))
        wait(
            lambda: all(listens(port) for port in (feast_port, predictor, predictor_grpc, *ports.values())), PATIENCE_S
        )
        bodies = [json.dumps({"instances": [ids]}).encode() for ids in entity_ids(world)]
        rest = Target(
            f"http://127.0.0.1:{ports['v1']}", fronts["v1"], f"/v1/models/{NAME}:predict",
            others=everyone(behind), loop=partial(PeerLoop, score=score_of_predictions),
        )  # fmt: skip
        grpc_target = Target(
            "", fronts["grpc-v2"], grpc_address=f"127.0.0.1:{ports['grpc-v2']}", others=everyone(behind)
        )
        yield Peer("KServe's stack with feast serve", rest, bodies, score_of_predictions, grpc_target)


def score_of_predictions(body: bytes) -> float:
    return _predictions.decode(body).predictions[0]


def score_of_field(body: bytes) -> float:
    return _score.decode(body).score


@contextlib.contextmanager
def mlserver(world: RedisWorld, read: Read) -> Iterator[Peer]:
    """MLServer with its defaults: one worker process for inference."""
    folder, python = scratch() / "mlserver", python_of("mlserver")
    (folder / NAME).mkdir(parents=True, exist_ok=True)
    http, grpc, metrics = free_port(), free_port(), free_port()
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    parameters = {"uri": str(read.model), "extra": {"feast": str(read.feast), "features": read.references}}
    told = {"name": NAME, "implementation": "mlserver_runtime.CardFraud", "parameters": parameters}
    (folder / NAME / "model-settings.json").write_text(json.dumps(told))
    with process_of("mlserver", [python.parent / "mlserver", "start", folder], PYTHONPATH=FILES) as process:
        wait(lambda: answers(f"http://127.0.0.1:{http}/v2/models/{NAME}/ready"), PATIENCE_S)
        bodies = [
            json.dumps({"inputs": [
                {"name": name, "shape": [1], "datatype": "INT64", "data": [value]}
                for name, value in zip(ENTITIES, ids, strict=True)
            ]}).encode()
            for ids in entity_ids(world)
        ]  # fmt: skip
        others = everyone([process])[1:]
        target = Target(
            f"http://127.0.0.1:{http}", process, f"/v2/models/{NAME}/infer", f"127.0.0.1:{grpc}", others=others
        )
        yield Peer("MLServer with the Feast SDK", target, bodies, score_of_outputs, target)


@contextlib.contextmanager
def bentoml(world: RedisWorld, read: Read) -> Iterator[Peer]:
    """BentoML with its defaults: one worker process."""
    python, port = python_of("bentoml"), free_port()
    command = [
        python.parent / "bentoml", "serve", "bentoml_service:CardFraud", "--working-dir", FILES,
        "--host", "127.0.0.1", "--port", port,
    ]  # fmt: skip
    environment = {
        "BENCHMARK_FEAST": read.feast, "BENCHMARK_FEATURES": ",".join(read.references), "BENCHMARK_MODEL": read.model,
        "BENTOML_HOME": scratch() / "bentoml", "BENTOML_DO_NOT_TRACK": "1",
    }  # fmt: skip
    with process_of("bentoml", command, **environment) as process:
        wait(lambda: answers(f"http://127.0.0.1:{port}/readyz"), PATIENCE_S)
        bodies = [json.dumps(dict(zip(ENTITIES, ids, strict=True))).encode() for ids in entity_ids(world)]
        target = Target(
            f"http://127.0.0.1:{port}", process, "/score", others=everyone([process])[1:],
            loop=partial(PeerLoop, score=score_of_field),
        )  # fmt: skip
        yield Peer("BentoML with the Feast SDK", target, bodies, score_of_field)


PEERS = {"kserve": kserve_stack, "mlserver": mlserver, "bentoml": bentoml}


def python_of(name: str) -> Path:
    """Raises RuntimeError where its environment was not made."""
    folder = ROOT / ".peers" / name
    if not (folder / ".ready").exists():
        raise RuntimeError(f"{folder.relative_to(ROOT)} was not made: make bench-peers")
    return folder / "bin" / "python"


@contextlib.contextmanager
def process_of(name: str, command: Sequence[object], **environment: object) -> Iterator[psutil.Process]:
    """A process on the first CPU, and its children; they end with the block."""
    with (scratch() / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(one) for one in command], cwd=scratch(), stdout=log, stderr=log,
            env={**os.environ, **{key: str(value) for key, value in environment.items()}},
        )  # fmt: skip
    os.sched_setaffinity(process.pid, {0})  # before it has threads or children
    mine = psutil.Process(process.pid)
    try:
        yield mine
    finally:
        family = mine.children(recursive=True) if mine.is_running() else []
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def everyone(processes: Sequence[psutil.Process]) -> tuple[psutil.Process, ...]:
    """Processes, each followed by its descendants."""
    return tuple(one for process in processes for one in (process, *process.children(recursive=True)))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
