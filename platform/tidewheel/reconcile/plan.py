"""Plans as data: what a controller is about to do, in order. ``apply.py`` carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tidewheel.deployment.document import DeploymentDocument
from tidewheel.findings import Decision, Finding
from tidewheel.reconcile.head import Head
from tidewheel.reconcile.ports import ModelServer


@dataclass(frozen=True)
class EnsureServer:
    server: ModelServer


@dataclass(frozen=True)
class DeleteServer:
    project: str


@dataclass(frozen=True)
class FetchBundle:
    """Download a version's bundle into the home and verify it."""

    version: str


@dataclass(frozen=True)
class SetAlias:
    """``before`` is what the alias named when this was planned: a person who moved it since then wins."""

    alias: str
    version: str
    before: str | None = None


@dataclass(frozen=True)
class DeleteAlias:
    alias: str


@dataclass(frozen=True)
class RecordFindings:
    stage: str
    as_of_us: int
    findings: tuple[Finding, ...]
    version: str


@dataclass(frozen=True)
class RecordDecision:
    """``suffix`` makes the id of the decision one per version and outcome."""

    as_of_us: int
    decision: Decision
    state: Literal["none", "pending", "approved"]
    version: str
    suffix: str


@dataclass(frozen=True)
class SettleDecision:
    """Bring a recorded promotion to its end, whatever state it is in."""

    id: str
    outcome: Literal["executed", "refused"]
    reason: str


@dataclass(frozen=True)
class Swap:
    """Compare-and-set of the journal's head: happens only if ``expected`` is still the head."""

    expected: int
    head: Head
    reason: str


@dataclass(frozen=True)
class WriteDocument:
    document: DeploymentDocument


Action = (
    EnsureServer | DeleteServer | FetchBundle | SetAlias | DeleteAlias | RecordFindings | RecordDecision
    | SettleDecision | Swap | WriteDocument
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Actions on one project, in order."""

    project: str
    actions: tuple[Action, ...] = ()
