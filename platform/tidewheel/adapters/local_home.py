"""Where the platform keeps its state on one machine: one folder, ``.tidewheel`` inside the project.

Everything here may be deleted while nothing runs, except ``log/`` (the events) and the databases.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = ".tidewheel"


@dataclass(frozen=True)
class LocalHome:
    """Paths under one state folder. Nothing is created by asking."""

    root: Path

    @classmethod
    def of(cls, project: Path) -> LocalHome:
        """The home of the project in folder ``project``."""
        return cls((project / FOLDER).resolve())

    @property
    def state_file(self) -> Path:
        """What the supervisor says: processes, ports, health. Written atomically."""
        return self.root / "platform.json"

    @property
    def connections(self) -> Path:
        """Where online store and event log are, by URL; no secrets."""
        return self.root / "connections.json"

    @property
    def feast(self) -> Path:
        """A folder for stock Feast clients: feature_store.yaml and the registry."""
        return self.root / "feast"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def services(self) -> Path:
        """Desired model servers, one JSON file per project: the local cluster's API."""
        return self.root / "services"

    @property
    def server_status(self) -> Path:
        """What each model server replica says it loaded, one JSON file per replica."""
        return self.root / "server-status"

    @property
    def deployments(self) -> Path:
        """Deployment documents, one JSON file per project."""
        return self.root / "deployments"

    @property
    def bundles(self) -> Path:
        """Model bundles by digest, verified before they appear."""
        return self.root / "bundles"

    @property
    def keys(self) -> Path:
        """The key that signs bundles here, and those that are trusted."""
        return self.root / "keys"

    @property
    def verdicts(self) -> Path:
        """Bundles that a child parsed without harm, by digest."""
        return self.root / "verdicts"

    @property
    def projects(self) -> Path:
        """Applied project code by digest."""
        return self.root / "projects"

    @property
    def event_log(self) -> Path:
        return self.root / "log"

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def spool(self) -> Path:
        """Prediction records on their way to the lake."""
        return self.root / "spool"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def online_db(self) -> Path:
        return self.root / "online.db"

    @property
    def journal_url(self) -> str:
        return f"sqlite:///{self.root / 'journal.db'}"

    @property
    def mlflow_db(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"
