"""Where a process finds its state: one folder, ``.tidewheel`` inside the project; in a pod what TIDEWHEEL_HOME names.

On one machine everything here may be deleted while nothing runs, except ``log/`` (the events) and the databases. In a
pod all of it may go at any time: the object store and the journal's server hold what lasts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from tidewheel.adapters.passwords import password
from tidewheel.errors import InputError

HOME_VARIABLE, JOURNAL_VARIABLE = "TIDEWHEEL_HOME", "TIDEWHEEL_JOURNAL_URL"
FOLDER = ".tidewheel"
AIRFLOW_USER = "admin"


@dataclass(frozen=True)
class LocalHome:
    """Paths under one state folder. Nothing is created by asking."""

    root: Path

    @classmethod
    def of(cls, project: Path) -> LocalHome:
        """The home of the project in folder ``project``, or the one that TIDEWHEEL_HOME names."""
        return cls(Path(os.environ.get(HOME_VARIABLE) or project / FOLDER).resolve())

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
    def airflow(self) -> Path:
        """Airflow's own home: its database, logs, generated DAG files and the password of its user."""
        return self.root / "airflow"

    @property
    def airflow_passwords(self) -> Path:
        """User to password of Airflow's simple login, readable by this user alone."""
        return self.airflow / "passwords.json"

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
        """SQLAlchemy's URL with its password: TIDEWHEEL_JOURNAL_URL with TIDEWHEEL_JOURNAL_PASSWORD, or a file here."""
        return _with_password(os.environ.get(JOURNAL_VARIABLE)) or f"sqlite:///{self.root / 'journal.db'}"

    @property
    def has_journal(self) -> bool:
        """False where nothing was ever decided on this machine."""
        return bool(os.environ.get(JOURNAL_VARIABLE)) or (self.root / "journal.db").is_file()

    @property
    def mlflow_db(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"


def _with_password(url: str | None) -> str | None:
    """Raises InputError for a URL that holds a password itself: it would be seen where URLs are shown."""
    if not url:
        return None
    parts = urlsplit(url)
    if parts.password:
        raise InputError(f"{JOURNAL_VARIABLE}: holds a password; give it as TIDEWHEEL_JOURNAL_PASSWORD[_FILE] instead")
    secret = password("JOURNAL")
    if secret is None or parts.username is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{quote(secret, safe='')}@{host}"))
