"""The cluster on one machine: files in the home that the supervisor and the model servers follow."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

from tidewheel.adapters.local_home import LocalHome
from tidewheel.clock import SECOND_US, Clock, SystemClock
from tidewheel.deployment.document import DeploymentDocument, document_from_json
from tidewheel.deployment.status import ServerStatus, status_from_json
from tidewheel.errors import ContractViolation
from tidewheel.reconcile.ports import ModelServer
from tidewheel.whole_file import write_whole

# A living replica writes its status at least every second; a busy machine gets some grace.
STATUS_VALID_US = 15 * SECOND_US


class LocalCluster:
    """Implements reconcile.ports.Cluster."""

    def __init__(self, home: LocalHome, clock: Clock | None = None) -> None:
        self._home, self._clock = home, clock or SystemClock()

    def apply_server(self, server: ModelServer) -> None:
        write_whole(self._home.services / f"{server.project}.json", json.dumps(asdict(server)).encode())

    def delete_server(self, project: str) -> None:
        (self._home.services / f"{project}.json").unlink(missing_ok=True)

    def servers(self) -> tuple[ModelServer, ...]:
        found = []
        for path in sorted(self._home.services.glob("*.json")):
            try:
                found.append(ModelServer(**json.loads(path.read_bytes())))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # damaged: it is written again
        return tuple(found)

    def server_status(self, project: str) -> tuple[ServerStatus, ...]:
        now_us = self._clock.now_us()
        found = []
        for path in sorted(self._home.server_status.glob(f"{project}-*.json")):
            try:
                status = status_from_json(path.read_bytes())
            except (OSError, ValueError, KeyError, TypeError):
                continue
            fresh = now_us - status.written_at_us <= STATUS_VALID_US
            if status.project == project and fresh and _alive(status.pid):
                found.append(status)
        return tuple(sorted(found, key=lambda status: status.replica))

    def write_document(self, document: DeploymentDocument) -> None:
        write_whole(self._home.deployments / f"{document.project}.json", document.to_json())

    def read_document(self, project: str) -> DeploymentDocument | None:
        path = self._home.deployments / f"{project}.json"
        try:
            return document_from_json(path.read_bytes(), str(path))
        except (OSError, ContractViolation):
            return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
