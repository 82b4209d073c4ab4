"""Everything `tidewheel status` shows of one project, gathered once; the console will show the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.platform_state import PlatformState
from tidewheel.apps.local_platform import running_platform
from tidewheel.apps.watermark import stream_lag, watermark_us
from tidewheel.deployment.document import DeploymentDocument, document_from_json
from tidewheel.deployment.status import ServerStatus, status_from_json
from tidewheel.errors import ContractViolation
from tidewheel.findings import Finding
from tidewheel.journal.decisions import DecisionRecord
from tidewheel.journal.findings import RecordedFinding
from tidewheel.journal.ledger import Journal
from tidewheel.journal.runs import StageRun
from tidewheel.reconcile.head import head_from_body
from tidewheel.spec.project import ModelProject

NEWEST_DECISIONS = 10


@dataclass(frozen=True)
class Overview:
    """One project as it is now. Times are event time; ``as_of_us`` is how far it has come, None before any event."""

    project: str
    tier: int
    platform: PlatformState | None
    document: DeploymentDocument | None
    servers: tuple[ServerStatus, ...]
    as_of_us: int | None
    last_runs: dict[str, int]
    findings: tuple[RecordedFinding, ...]  # of the newest monitor run
    decisions: tuple[DecisionRecord, ...]  # the newest, newest first
    monitor: StageRun | None  # the newest finished monitor run
    refused: Mapping[str, Finding]  # versions that an alias asks for and that must not serve, and why
    lag: Mapping[str, int]  # events that the stream worker has still to take, by source; empty where none

    @property
    def champion(self) -> str | None:
        return self.document.champion if self.document else None

    @property
    def rollout(self) -> str | None:
        """The candidate on its way and how it gets traffic, None where there is none."""
        if self.document is None:
            return None
        for version in self.document.shadow:
            return f"version {version} in shadow"
        for version, weight in self.document.weights.items():
            if version != self.document.champion:
                return f"version {version} at {weight:.0%} of traffic"
        return None

    @property
    def waiting(self) -> tuple[DecisionRecord, ...]:
        """Decisions that wait for a person."""
        return tuple(decision for decision in self.decisions if decision.state == "pending")

    @property
    def generation_served(self) -> int | None:
        """The oldest generation that a live replica serves, None where none lives."""
        return min((server.generation for server in self.servers), default=None)


def read_overview(home: LocalHome, folder: Path, project: ModelProject) -> Overview:
    """Read everything; what does not exist yet is None or empty."""
    journal = Journal(home.journal_url) if home.has_journal else None
    platform = running_platform(home)
    last_runs = journal.last_runs(project.name) if journal else {}
    newest = last_runs.get("monitor")
    findings = journal.findings(project.name, newest, newest) if journal and newest is not None else ()
    decisions = journal.decisions(project.name, limit=NEWEST_DECISIONS, newest_first=True) if journal else ()
    runs = journal.runs(project.name, stage="monitor", since_us=newest, until_us=newest) if journal and newest else ()
    return Overview(
        project.name,
        project.tier,
        platform,
        _document(home, project.name),
        tuple(_servers(home, project.name)) if platform else (),
        watermark_us(home, folder, project),
        last_runs,
        findings,
        decisions,
        runs[0] if runs else None,
        _refused(journal, project.name) if journal else {},
        stream_lag(home, folder, project),
    )


def _refused(journal: Journal, name: str) -> Mapping[str, Finding]:
    head = journal.head(name)
    return head_from_body(head.body).refused if head else {}


def _document(home: LocalHome, name: str) -> DeploymentDocument | None:
    try:
        return document_from_json((home.deployments / f"{name}.json").read_bytes())
    except (FileNotFoundError, ContractViolation):  # a damaged one is written again by the controller
        return None


def _servers(home: LocalHome, name: str) -> Iterator[ServerStatus]:
    for path in sorted(home.server_status.glob(f"{name}-*.json")):
        try:
            status = status_from_json(path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError):  # being replaced
            continue
        if status.project == name:
            yield status
