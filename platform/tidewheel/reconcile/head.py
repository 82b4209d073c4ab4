"""The journal's head: the one fact from which a project's deployment document follows.

A generation's body holds all of it, so that a controller that starts anew continues where another one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.deployment.rollout import RolloutState
from tidewheel.findings import Finding


@dataclass(frozen=True)
class Ending:
    """How a rollout ended, before all that follows from it is done. ``as_of_us`` is event time."""

    outcome: Literal["passed", "aborted"]
    as_of_us: int
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class ActiveRollout:
    """A candidate on its way and, at the end, how it ended."""

    state: RolloutState
    ending: Ending | None = None


@dataclass(frozen=True)
class Head:
    """``staged`` is what @champion asks for while servers load it, ``previous`` the champion before, kept warm.
    ``refused`` holds versions that must not serve and why, until no alias names them any more."""

    unit_key: str = ""
    champion: str | None = None
    previous: str | None = None
    staged: str | None = None
    rollout: ActiveRollout | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    shadow: tuple[str, ...] = ()
    variants: Mapping[str, Variant] = field(default_factory=dict)
    refused: Mapping[str, Finding] = field(default_factory=dict)

    @property
    def candidate(self) -> str | None:
        return self.rollout.state.version if self.rollout else None

    def pruned(self) -> Head:
        """The same without variants that nothing names."""
        kept = {self.champion, self.previous, self.staged, self.candidate}
        return replace(self, variants={name: v for name, v in self.variants.items() if name in kept})

    def with_variant(self, variant: Variant) -> Head:
        return replace(self, variants={**self.variants, variant.version: variant})

    def to_body(self) -> dict[str, Any]:
        """Plain JSON values for the journal."""
        body = asdict(self)
        body["variants"] = [asdict(variant) for variant in self.variants.values()]
        body["refused"] = {name: asdict(finding) for name, finding in self.refused.items()}
        return body


def head_from_body(body: Mapping[str, Any]) -> Head:
    rollout = body["rollout"]
    return Head(
        unit_key=body["unit_key"],
        champion=body["champion"],
        previous=body["previous"],
        staged=body["staged"],
        rollout=None
        if rollout is None
        else ActiveRollout(RolloutState(**rollout["state"]), _ending(rollout["ending"])),
        weights=dict(body["weights"]),
        shadow=tuple(body["shadow"]),
        variants={v["version"]: Variant(v["version"], v["digest"], dict(v["decision"])) for v in body["variants"]},
        refused={name: Finding(**finding) for name, finding in body["refused"].items()},
    )


def _ending(body: Mapping[str, Any] | None) -> Ending | None:
    if body is None:
        return None
    return Ending(body["outcome"], body["as_of_us"], tuple(Finding(**finding) for finding in body["findings"]))


def document_of(project: str, generation: int, head: Head) -> DeploymentDocument:
    """The document that a head stands for. Pure: the same head gives the same bytes on every machine."""
    used = {*head.weights, *head.shadow}
    # The journal stores objects by key order; the champion is always the last band.
    weights = {
        version: head.weights[version] for version in sorted(head.weights, key=lambda v: (v == head.champion, v))
    }
    variants = tuple(head.variants[name] for name in sorted(head.variants))
    return DeploymentDocument(
        project=project,
        generation=generation,
        unit_key=head.unit_key,
        # A new candidate meets other units than the one before; during its rollout they stay the same.
        salt=f"{project}:{head.candidate or head.champion or ''}",
        champion=head.champion,
        variants=tuple(replace(v, decision=dict(sorted(v.decision.items(), key=lambda b: b[1]))) for v in variants),
        weights=weights,
        shadow=head.shadow,
        warm=tuple(v.version for v in variants if v.version not in used),
    )
