"""A cluster in memory: what was asked for, and statuses that a test sets."""

from __future__ import annotations

from tidewheel.deployment.document import DeploymentDocument
from tidewheel.deployment.status import ServerStatus, VersionStatus
from tidewheel.reconcile.ports import ModelServer


class MemoryCluster:
    """Implements reconcile.ports.Cluster. ``obedient`` servers load whatever their document names."""

    def __init__(self, *, obedient: bool = True) -> None:
        self._servers: dict[str, ModelServer] = {}
        self._documents: dict[str, DeploymentDocument] = {}
        self.statuses: dict[str, tuple[ServerStatus, ...]] = {}
        self.obedient = obedient
        self.cannot_load: dict[str, VersionStatus] = {}
        self.written: list[DeploymentDocument] = []

    def apply_server(self, server: ModelServer) -> None:
        self._servers[server.project] = server
        self._obey(server.project)

    def delete_server(self, project: str) -> None:
        self._servers.pop(project, None)

    def servers(self) -> tuple[ModelServer, ...]:
        return tuple(self._servers[name] for name in sorted(self._servers))

    def server_status(self, project: str) -> tuple[ServerStatus, ...]:
        return self.statuses.get(project, ())

    def write_document(self, document: DeploymentDocument) -> None:
        self._documents[document.project] = document
        self.written.append(document)
        self._obey(document.project)

    def read_document(self, project: str) -> DeploymentDocument | None:
        return self._documents.get(project)

    def _obey(self, project: str) -> None:
        if self.obedient and project in self._servers and project in self._documents:
            document = self._documents[project]
            ready = {v.version: VersionStatus(v.digest, "ready", "", "", True) for v in document.variants}
            states = ready | {name: told for name, told in self.cannot_load.items() if name in ready}
            self.statuses[project] = (ServerStatus(project, 1, 0, 8080, document.generation, 0, states),)
