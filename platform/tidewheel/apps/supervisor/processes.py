"""The processes a local platform consists of: pure command lines, no starting here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidewheel.adapters.child_processes import python_module
from tidewheel.adapters.local_home import LocalHome

QUIET = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True)
class ProcessSpec:
    """One process. ``health_path`` is asked for 200 at ``port`` where it has one, else running is healthy."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    health_path: str | None = None
    health_parts: tuple[str, ...] = ()  # the JSON that is answered must call each of them healthy
    needed: bool = True  # `up` waits for it


def mlflow_server(home: LocalHome, port: int) -> ProcessSpec:
    """The tracking server and model registry, on SQLite and files."""
    command = python_module(
        "mlflow", "server",
        "--backend-store-uri", f"sqlite:///{home.mlflow_db}",
        "--artifacts-destination", home.mlflow_artifacts.as_uri(),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    )  # fmt: skip
    # Jobs serve generative features only and cost 600 MB; pickle is never loaded.
    environment = {
        **QUIET,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    return ProcessSpec("mlflow", tuple(command), environment, port, "/health")


def platform_processes(
    home: LocalHome, project: Path, mlflow_port: int, metrics_port: int, airflow: ProcessSpec | None = None
) -> tuple[ProcessSpec, ...]:
    """What runs besides model servers, in the order in which it starts. The worker's port is for Prometheus.

    ``airflow`` runs the stages that are due where it is given, and the scheduler then only tells it when.
    """
    uri = f"http://127.0.0.1:{mlflow_port}"
    at_home = ("--home", str(home.root))

    def process(name: str, module: str, *arguments: str, port: int | None = None) -> ProcessSpec:
        return ProcessSpec(name, tuple(python_module(module, *at_home, *arguments)), QUIET, port)

    told = ("--metrics-port", str(metrics_port))
    schedules = ["--project", str(project), "--tracking-uri", uri]
    if airflow is not None:
        schedules += ["--airflow", f"http://127.0.0.1:{airflow.port}"]

    return (
        mlflow_server(home, mlflow_port),
        process("stream-worker", "tidewheel.apps.stream_worker", *told, port=metrics_port),
        process("controller", "tidewheel.apps.controller", "--tracking-uri", uri),
        *((airflow,) if airflow is not None else ()),
        process("scheduler", "tidewheel.apps.scheduler", *schedules),
    )


def model_servers(
    home: LocalHome, service: Mapping[str, object], port: int, grpc_port: int = 0
) -> tuple[ProcessSpec, ...]:
    """The replicas of one project; they share the ports. ``grpc_port`` 0 leaves gRPC out."""
    name = str(service["project"])
    replicas = int(str(service.get("replicas", 1)))
    return tuple(
        ProcessSpec(
            f"model-server-{name}-{replica}",
            tuple(
                python_module(
                    "tidewheel.apps.model_server", "--home", str(home.root), "--project", name,
                    "--replica", str(replica), "--port", str(port), "--grpc-port", str(grpc_port),
                )
            ),
            QUIET, port, "/v2/health/live", needed=False,
        )
        for replica in range(replicas)
    )  # fmt: skip


def desired_services(home: LocalHome) -> tuple[dict[str, object], ...]:
    """What the controller asked for; a file that is being replaced or is not ours is left for the next look."""
    services = []
    for path in sorted(home.services.glob("*.json")) if home.services.is_dir() else ():
        try:
            body = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(body, dict) and "project" in body:
            services.append(body)
    return tuple(services)
