"""What should happen next to one project: a pure function from what was observed to a plan.

Aliases say what is wanted, the journal's head says what is, servers say what they can. One transition of the head at
a time; the controller asks again until nothing is left to do. Every transition may be interrupted anywhere: asked
again from what is then observed, it leads to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tidewheel.bundle.registry import CHALLENGER, CHAMPION
from tidewheel.deployment.rollout import LOADING, RolloutState, advance, step_shadow, step_weights
from tidewheel.findings import Decision, Finding, decision_id
from tidewheel.reconcile.head import ActiveRollout, Ending, Head, document_of
from tidewheel.reconcile.observed import Observed
from tidewheel.reconcile.plan import (
    Action,
    DeleteAlias,
    DeleteServer,
    EnsureServer,
    FetchBundle,
    Plan,
    RecordDecision,
    RecordFindings,
    SetAlias,
    SettleDecision,
    Swap,
    WriteDocument,
)
from tidewheel.reconcile.ports import ModelServer
from tidewheel.spec.project import ModelProject


@dataclass(frozen=True)
class Step:
    """Actions and, after them, the head that follows; ``head`` None leaves it as it is."""

    actions: tuple[Action, ...] = ()
    head: Head | None = None
    reason: str = ""


def plan_of(seen: Observed) -> Plan:
    """The next actions on one project; none where everything is as it should be."""
    if seen.spec is None:
        return Plan(seen.project, (DeleteServer(seen.project),) if seen.server else ())
    actions: list[Action] = [FetchBundle(version) for version in _versions_to_fetch(seen)]
    head, generation = seen.head, seen.generation
    for rule in RULES:
        step = rule(seen)
        if step is None:
            continue
        actions += step.actions
        if step.head is not None:
            head, generation = step.head.pruned(), seen.generation + 1
            actions.append(Swap(seen.generation, head, step.reason))
        break
    if head.variants:
        wanted = _wanted_server(seen.spec, seen.server.port if seen.server else None)
        document = document_of(seen.project, generation, head)
        if document != seen.document:
            actions.append(WriteDocument(document))
        if wanted != seen.server:
            actions.append(EnsureServer(wanted))
    return Plan(seen.project, tuple(actions))


def _wanted_server(spec: ModelProject, port: int | None) -> ModelServer:
    replicas, resources = spec.serving.replicas, spec.serving.resources
    return ModelServer(
        spec.name,
        replicas.min,
        port,
        replicas.max,
        round(100 * replicas.target_cpu_ratio),
        resources.cpu,
        resources.cpu_limit,
        resources.memory,
    )


# -- rules, first match acts ------------------------------------------------------------------------------------------


def ended_rollout_is_closed(seen: Observed) -> Step | None:
    """An aborted candidate: record why, clear @challenger, forget it. The traffic is off already."""
    rollout = seen.head.rollout
    if seen.aliases is None or rollout is None or rollout.ending is None or rollout.ending.outcome != "aborted":
        return None
    ending, version = rollout.ending, rollout.state.version
    actions: list[Action] = [RecordFindings("rollout", ending.as_of_us, ending.findings, version)]
    if seen.promotion in ("pending", "approved"):
        reason = "; ".join(finding.message for finding in ending.findings)
        actions.append(SettleDecision(promotion_id(ending.as_of_us, version), "refused", reason))
    decision = Decision("abort", ending.findings)
    actions.append(RecordDecision(ending.as_of_us, decision, "none", version, f"v{version}-abort"))
    if seen.aliases.get(CHALLENGER) == version:
        actions.append(DeleteAlias(CHALLENGER))
    return Step(tuple(actions), replace(seen.head, rollout=None), f"rollout of {version} aborted")


def champion_follows_its_alias(seen: Observed) -> Step | None:
    """@champion was moved, by a person or by a rollout that is through: stage, wait for the servers, switch."""
    head, aliases = seen.head, seen.aliases
    if aliases is None or (wanted := aliases.get(CHAMPION)) is None:
        return None
    if wanted == head.champion:
        if head.staged is None:
            return None
        return Step(head=replace(head, staged=None), reason="@champion was moved back")
    if wanted in head.refused:
        return None
    rollout = head.rollout
    if rollout is not None and rollout.ending is None and rollout.state.version != wanted:
        finding = Finding(
            "AliasMoved", f"@champion was moved to {wanted} during the rollout", "info", head.candidate or ""
        )
        return _abort(seen, rollout, (finding,))
    if seen.ready_everywhere(wanted):
        return _switch(seen, wanted)
    variant = seen.fetched.get(wanted)
    if variant is None:
        return None  # still to be fetched
    if isinstance(variant, Finding):
        return _refuse(seen, wanted, variant)
    if head.staged == wanted:
        failure = seen.load_failure(wanted)
        return _refuse(seen, wanted, failure) if failure else None
    new = replace(head.with_variant(variant), staged=wanted, unit_key=_unit_key(seen))
    return Step(head=new, reason=f"stage {wanted}")


def _switch(seen: Observed, version: str) -> Step:
    head, rollout = seen.head, seen.head.rollout
    actions: list[Action] = []
    through = rollout is not None and rollout.state.version == version
    if rollout is not None and through:
        if rollout.ending is not None and seen.promotion is not None:
            identity = promotion_id(rollout.ending.as_of_us, version)
            actions.append(SettleDecision(identity, "executed", f"@{CHAMPION} is {version}"))
        actions.append(DeleteAlias(CHALLENGER))
    previous = head.champion or head.previous
    new = replace(
        head,
        champion=version,
        previous=None if previous == version else previous,
        staged=None,
        rollout=None if through else rollout,
        weights={version: 1.0},
        shadow=(),
        unit_key=_unit_key(seen),
    )
    return Step(tuple(actions), new, f"serve {version}")


def _refuse(seen: Observed, version: str, finding: Finding) -> Step:
    as_of_us = seen.now_us or seen.wall_us
    head = replace(seen.head, staged=None, refused={**seen.head.refused, version: finding})
    actions = (
        RecordFindings("deploy", as_of_us, (finding,), version),
        RecordDecision(as_of_us, Decision("abort", (finding,)), "none", version, f"v{version}-refused"),
    )
    return Step(actions, head, f"refuse {version}: {finding.reason}")


def refusals_are_forgotten(seen: Observed) -> Step | None:
    """A version that no alias names any more may be tried again later; one that was signed meanwhile, at once."""
    if seen.aliases is None:
        return None
    named = set(seen.aliases.values())
    kept = {version: finding for version, finding in seen.head.refused.items() if version in named - seen.signed}
    if len(kept) == len(seen.head.refused):
        return None
    return Step(head=replace(seen.head, refused=kept), reason="a refused version is no longer asked for, or was signed")


def rollout_advances(seen: Observed) -> Step | None:
    """One turn of the rollout's state machine; a candidate that waits for a person stays under watch."""
    head, rollout = seen.head, seen.head.rollout
    if rollout is None or head.champion is None or (rollout.ending and rollout.ending.outcome == "aborted"):
        return None
    state, spec = rollout.state, seen.spec
    assert spec is not None
    if seen.aliases is not None and seen.aliases.get(CHALLENGER) != state.version:
        if seen.aliases.get(CHAMPION) == state.version:
            return None  # it is through; the champion's rule acts as soon as the servers can
        now = seen.aliases.get(CHALLENGER) or "gone"
        return _abort(seen, rollout, (_alias_moved(rollout, f"@challenger is {now}"),))
    loaded = seen.ready_everywhere(state.version)
    if state.step == LOADING and (failure := seen.load_failure(state.version)) is not None:
        return _abort(seen, rollout, (failure,))
    if spec.rollout is None:
        finding = Finding("RolloutDone", "the project declares no rollout steps", "info", state.version)
        decision = Decision("promote", (finding,)) if loaded else Decision("stay")
        moved = state
    else:
        # A spec that was shortened meanwhile: what lies behind its last step has been passed.
        state = replace(state, step=min(state.step, len(spec.rollout.steps) - 1))
        moved, decision = advance(state, spec.rollout, seen.seen, seen.now_us, loaded=loaded)
    if decision.action == "abort":
        return _abort(seen, rollout, decision.findings)
    if seen.paused:
        return None
    if rollout.ending is not None:
        return _promotion(seen, rollout, rollout.ending)
    if decision.action == "next":
        moved = replace(moved, since_generation=seen.generation + 1)
        new = replace(
            head,
            rollout=ActiveRollout(moved),
            weights=step_weights(moved, spec.rollout, head.champion),
            shadow=step_shadow(moved, spec.rollout),
            unit_key=_unit_key(seen),
        )
        return Step(head=new, reason=f"rollout of {moved.version}: step {moved.step + 1}")
    if decision.action == "promote":
        ending = Ending("passed", seen.now_us or seen.wall_us, decision.findings)
        return Step(
            head=replace(head, rollout=ActiveRollout(state, ending)), reason=f"{state.version} passed its rollout"
        )
    return None


def _promotion(seen: Observed, rollout: ActiveRollout, ending: Ending) -> Step | None:
    """All steps passed: record the promotion, wait for a person where the tier demands it, then move the alias."""
    version, spec = rollout.state.version, seen.spec
    assert spec is not None
    if seen.promotion is None:
        findings = ending.findings
        if spec.needs_approval:
            findings += (Finding("ApprovalNeeded", f"tier {spec.tier}: a person approves", "info", version),)
        state: Literal["pending", "approved"] = "pending" if spec.needs_approval else "approved"
        decision = Decision("promote", findings)
        return Step((RecordDecision(ending.as_of_us, decision, state, version, f"v{version}"),))
    if seen.promotion == "refused":
        finding = Finding("ApprovalRefused", f"the promotion of {version} was refused", "info", version)
        return _abort(seen, rollout, (finding,))
    if seen.promotion in ("approved", "executed") and seen.aliases is not None:
        return Step((SetAlias(CHAMPION, version, seen.aliases.get(CHAMPION)),))
    return None


def _abort(seen: Observed, rollout: ActiveRollout, findings: tuple[Finding, ...]) -> Step:
    """Take the traffic away first; what else follows is done from the ending."""
    assert seen.head.champion is not None
    as_of_us = rollout.ending.as_of_us if rollout.ending else (seen.now_us or seen.wall_us)
    head = replace(
        seen.head,
        rollout=ActiveRollout(rollout.state, Ending("aborted", as_of_us, findings)),
        weights={seen.head.champion: 1.0},
        shadow=(),
    )
    return Step(head=head, reason=f"rollout of {rollout.state.version}: {', '.join(f.reason for f in findings)}")


def challenger_starts_a_rollout(seen: Observed) -> Step | None:
    """@challenger names a version while a settled champion serves."""
    head, aliases = seen.head, seen.aliases
    if aliases is None or head.rollout is not None or (version := aliases.get(CHALLENGER)) is None:
        return None
    if version == aliases.get(CHAMPION):
        return Step((DeleteAlias(CHALLENGER),)) if version == head.champion else None
    if head.champion is None or aliases.get(CHAMPION) != head.champion:
        return None
    variant = seen.fetched.get(version)
    if variant is None:
        return None  # still to be fetched
    state = RolloutState(version, head.champion, LOADING, seen.generation + 1)
    if isinstance(variant, Finding):
        return _abort(seen, ActiveRollout(state), (variant,))
    new = replace(head.with_variant(variant), rollout=ActiveRollout(state))
    return Step(head=new, reason=f"rollout of {version}: load")


Rule = Callable[[Observed], Step | None]

RULES: Sequence[Rule] = (
    ended_rollout_is_closed,
    champion_follows_its_alias,
    rollout_advances,
    refusals_are_forgotten,
    challenger_starts_a_rollout,
)


def _versions_to_fetch(seen: Observed) -> list[str]:
    """Versions that an alias or the head names and whose bundle is not in the home, or no longer."""
    if seen.aliases is None:
        return []
    asked = [seen.aliases[alias] for alias in (CHAMPION, CHALLENGER) if alias in seen.aliases]
    named = dict.fromkeys([*asked, *seen.head.variants])
    return [version for version in named if version not in seen.fetched and version not in seen.head.refused]


def _alias_moved(rollout: ActiveRollout, message: str) -> Finding:
    return Finding("AliasMoved", message, "info", rollout.state.version)


def promotion_id(as_of_us: int, version: str) -> str:
    """The id under which the promotion of a version is recorded."""
    return decision_id("promote", as_of_us, f"v{version}")


def _unit_key(seen: Observed) -> str:
    """The entity that always meets the same variant; without a rollout the first entity stands in."""
    assert seen.spec is not None
    spec = seen.spec
    entity = spec.entities[spec.rollout.unit] if spec.rollout else next(iter(spec.entities.values()))
    return entity.key
