"""Everything a plan is made from, as one frozen value; ``gather.py`` fills it, tests write it by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.deployment.rollout import Observations
from tidewheel.deployment.status import ServerStatus, VersionStatus
from tidewheel.findings import Finding
from tidewheel.reconcile.head import Head
from tidewheel.reconcile.ports import ModelServer
from tidewheel.spec.project import ModelProject


@dataclass(frozen=True)
class Observed:
    """One project's facts. ``aliases`` None: the registry does not answer. ``fetched`` maps versions that aliases name
    to what their bundle holds, or to why it must not be used; a version that is not in it is still to be fetched.

    ``now_us`` is the newest event time of the requests seen in the rollout's step, ``wall_us`` the wall clock;
    ``promotion`` is the state of the recorded promotion of the candidate, None before it is recorded.
    """

    project: str
    spec: ModelProject | None
    generation: int = 0
    head: Head = field(default_factory=Head)
    aliases: Mapping[str, str] | None = None
    n_versions: int = 0
    fetched: Mapping[str, Variant | Finding] = field(default_factory=dict)
    document: DeploymentDocument | None = None
    server: ModelServer | None = None
    statuses: tuple[ServerStatus, ...] = ()
    seen: Observations = field(default_factory=Observations)
    now_us: int | None = None
    wall_us: int = 0
    promotion: str | None = None
    paused: bool = False  # a person holds the rollout: guards go on, steps wait
    signed: frozenset[str] = frozenset()  # refused for their signature, which is good now

    def on_servers(self, version: str) -> list[VersionStatus | None]:
        """What each living server says about a version."""
        return [status.versions.get(version) for status in self.statuses]

    def ready_everywhere(self, version: str) -> bool:
        """Every living server, and at least one, has it verified, golden-checked and with its features caught up."""
        variant = self.head.variants.get(version)
        told = self.on_servers(version)
        return (
            variant is not None
            and bool(told)
            and all(
                state is not None and state.state == "ready" and state.features_ready and state.digest == variant.digest
                for state in told
            )
        )

    def load_failure(self, version: str) -> Finding | None:
        """Why a living server could not load a version."""
        for state in self.on_servers(version):
            if state is not None and state.state == "failed":
                return Finding(state.reason or "LoadFailed", state.message, "critical", version)
        return None
