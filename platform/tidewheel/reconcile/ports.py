"""The Cluster port: where model servers run and where they find their deployment document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tidewheel.deployment.document import DeploymentDocument
from tidewheel.deployment.status import ServerStatus


@dataclass(frozen=True)
class ModelServer:
    """The desired servers of one project. ``port`` None lets the cluster choose; one machine runs ``replicas`` and
    looks at nothing below it. ``as_wanted`` False: a live one that the cluster has otherwise than this says."""

    project: str
    replicas: int = 1
    port: int | None = None
    max_replicas: int = 1
    target_cpu_percent: int = 70
    cpu: str = "250m"
    cpu_limit: str = "2"
    memory: str = "768Mi"
    as_wanted: bool = True


class Cluster(Protocol):
    """Every method raises Unavailable when the cluster does not answer. Writes are idempotent and atomic."""

    def apply_server(self, server: ModelServer) -> None: ...

    def delete_server(self, project: str) -> None:
        """Deleting a server that is not there does nothing."""
        ...

    def servers(self) -> tuple[ModelServer, ...]:
        """Desired servers, by project name."""
        ...

    def server_status(self, project: str) -> tuple[ServerStatus, ...]:
        """What living replicas say, by replica."""
        ...

    def write_document(self, document: DeploymentDocument) -> None: ...

    def read_document(self, project: str) -> DeploymentDocument | None:
        """None where there is none or where it is damaged: the controller writes it again."""
        ...
