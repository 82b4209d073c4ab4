"""The controller's loop body: gather, plan, guard, apply; for each applied project, until nothing is left to do.

Adapters are passed in. Everything it remembers between rounds is a cache: killed anywhere and started again, it ends
in the same state. A registry that does not answer leaves what is served as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tidewheel.bundle.registry import CHALLENGER, CHAMPION, ModelRegistry, Version
from tidewheel.bundle.signature import Trust
from tidewheel.clock import Clock
from tidewheel.deployment.document import Variant
from tidewheel.deployment.rollout import Observations
from tidewheel.errors import Conflict, NotFound, TidewheelError, Unavailable
from tidewheel.findings import Finding
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.applied import read_applied
from tidewheel.reconcile.bundles import BundleStore
from tidewheel.reconcile.desired import plan_of, promotion_id
from tidewheel.reconcile.guards import not_too_many_removals, registry_is_not_empty
from tidewheel.reconcile.head import Head, head_from_body
from tidewheel.reconcile.observations import RolloutTally
from tidewheel.reconcile.observed import Observed
from tidewheel.reconcile.pauses import is_paused
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
from tidewheel.reconcile.ports import Cluster
from tidewheel.spec.load import load_project
from tidewheel.spec.project import ModelProject

LOG = logging.getLogger("tidewheel.controller")
ACTOR = "controller"
Tell = Callable[[str, Finding], object]  # project, what happened
MAX_TURNS = 12  # transitions of one project in one round; more would be a loop


class Controller:
    """Keeps what is served equal to what aliases ask for. ``home`` is the folder of bundles, projects and the lake.

    ``tell`` is called with what happens to a project, as it happens; ``predictions_arrive`` before a project's
    prediction log is read, where it comes from elsewhere.
    """

    def __init__(
        self,
        home: Path,
        journal: Journal,
        registry: ModelRegistry,
        cluster: Cluster,
        clock: Clock,
        trust: Trust,
        tell: Tell = lambda project, finding: None,
        predictions_arrive: Callable[[str], object] = lambda project: None,
    ) -> None:
        self._tell, self._predictions_arrive = tell, predictions_arrive
        self._home, self._journal, self._registry, self._cluster = home, journal, registry, cluster
        self._clock = clock
        self._bundles = BundleStore(home / "bundles", trust, clock)
        self._tallies: dict[str, RolloutTally] = {}
        self._specs: dict[str, ModelProject] = {}
        self._versions: dict[tuple[str, str], Version] = {}
        self._said: dict[str, str] = {}

    def round(self) -> None:
        """One round over all projects; faults of one do not stop the others."""
        servers = self._cluster.servers()
        names = self._applied_names()
        orphans = [server.project for server in servers if server.project not in names]
        removals = [Plan(name, (DeleteServer(name),)) for name in orphans]
        refusal = not_too_many_removals(removals, len(servers))
        if refusal is not None:
            self._say("removals", f"event=plan_refused reason={refusal.reason} message={refusal.message}")
        for plan in removals if refusal is None else ():
            self._cluster.delete_server(plan.project)
        for name in names:
            try:
                self._settle(name)
                self._say(f"fault {name}", "")
            except Conflict as error:  # somebody else moved the head: read it again next round
                self._say(f"fault {name}", f"event=conflict project={name} message={error}")
            except (TidewheelError, OSError) as error:
                self._say(f"fault {name}", f"event=not_now project={name} message={error}")

    def _settle(self, name: str) -> None:
        for _ in range(MAX_TURNS):
            seen = self._gather(name)
            refusal = registry_is_not_empty(seen)
            if refusal is not None:
                self._say(f"guard {name}", f"event=plan_refused reason={refusal.reason} message={refusal.message}")
                seen = replace(seen, aliases=None)
            else:
                self._say(f"guard {name}", "")
            plan = plan_of(seen)
            for action in plan.actions:
                self._apply(name, action)
            if not any(isinstance(action, Swap) for action in plan.actions):
                return
        LOG.warning("event=many_turns project=%s", name)

    # -- gather ---------------------------------------------------------------------------------------------------

    def _applied_names(self) -> list[str]:
        names = []
        for path in sorted((self._home / "applied").glob("*.json")):
            try:
                names.append(str(json.loads(path.read_bytes())["name"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # being replaced; the ledger has the fact
        return names

    def _gather(self, name: str) -> Observed:
        newest = self._journal.head(name)
        head = head_from_body(newest.body) if newest else Head()
        aliases, n_versions = self._read_registry(name, head)
        asked = [aliases[alias] for alias in (CHAMPION, CHALLENGER) if alias in aliases] if aliases else []
        fetched = self._fetched(name, head, asked)
        observations, now_us = self._observe(name, head)
        server = next((server for server in self._cluster.servers() if server.project == name), None)
        return Observed(
            project=name,
            spec=self._spec(name),
            generation=newest.generation if newest else 0,
            head=head,
            aliases=aliases,
            n_versions=n_versions,
            fetched=fetched,
            signed=self._signed(head, fetched),
            document=self._cluster.read_document(name),
            server=server,
            statuses=self._cluster.server_status(name),
            seen=observations,
            now_us=now_us,
            wall_us=self._clock.now_us(),
            promotion=self._promotion(name, head),
            paused=head.rollout is not None and is_paused(self._journal, name),
        )

    def _read_registry(self, name: str, head: Head) -> tuple[dict[str, str] | None, int]:
        try:
            aliases = self._registry.aliases(name)
            # Without an alias it matters whether versions are there at all; with one they are.
            n_versions = len(aliases) or (len(self._registry.versions(name)) if head.champion else 0)
        except Unavailable as error:
            self._say("registry", f"event=registry_down message={error}")
            return None, 0
        self._say("registry", "")
        return aliases, n_versions

    def _fetched(self, name: str, head: Head, asked: Sequence[str]) -> dict[str, Variant | Finding]:
        found: dict[str, Variant | Finding] = {}
        self._bundles.keep_refusals(asked)
        for number in dict.fromkeys([*asked, *head.variants]):
            known = head.variants.get(number)
            version = self._version(name, number, known)
            have = self._bundles.have(version) if version is not None else None
            if version is not None and self._bundles.signature_is_due(version):
                try:
                    have = self._bundles.fetch(self._registry, self._registry.version(name, number))
                except (Unavailable, NotFound) as error:
                    self._say("registry", f"event=registry_down message={error}")
            if have is not None:
                found[number] = have
        return found

    def _signed(self, head: Head, fetched: Mapping[str, Variant | Finding]) -> frozenset[str]:
        return frozenset(
            version
            for version, finding in head.refused.items()
            if finding.reason in ("SignatureMissing", "SignatureInvalid")
            and isinstance(have := fetched.get(version), Variant)
            and self._bundles.is_signed_anew(have.digest)
        )

    def _version(self, name: str, number: str, known: Variant | None) -> Version | None:
        if (name, number) in self._versions:
            return self._versions[(name, number)]
        if known is not None:  # a registry that is down must not hide what is here
            return Version(name, number, known.digest, "")
        return None

    def _observe(self, name: str, head: Head) -> tuple[Observations, int | None]:
        rollout = head.rollout
        if rollout is None or head.champion is None or rollout.state.step < 0:
            return Observations(), None
        tally = self._tallies.setdefault(name, RolloutTally(self._home / "lake" / "predictions" / name))
        self._predictions_arrive(name)
        state = rollout.state
        champion = head.variants[head.champion]
        return tally.look(head.variants[state.version].digest, champion.digest, state.since_generation)

    def _promotion(self, name: str, head: Head) -> str | None:
        if head.rollout is None or head.rollout.ending is None:
            return None
        identity = promotion_id(head.rollout.ending.as_of_us, head.rollout.state.version)
        try:
            return self._journal.decision(identity, name).state
        except NotFound:
            return None

    def _spec(self, name: str) -> ModelProject | None:
        applied = read_applied(self._journal, name)
        if applied is None:
            return None
        if applied.digest not in self._specs:
            self._specs[applied.digest] = load_project(self._home / "projects" / applied.digest)
        return self._specs[applied.digest]

    # -- apply ----------------------------------------------------------------------------------------------------

    def _apply(self, name: str, action: Action) -> None:
        match action:
            case FetchBundle():
                self._fetch(name, action)
            case Swap():
                self._swap(name, action)
            case WriteDocument():
                self._cluster.write_document(action.document)
            case EnsureServer():
                self._cluster.apply_server(action.server)
                LOG.info("event=server_wanted project=%s replicas=%d", name, action.server.replicas)
            case DeleteServer():
                self._cluster.delete_server(action.project)
                LOG.info("event=server_removed project=%s", name)
            case SetAlias():
                now = self._registry.aliases(name, fresh=True).get(action.alias)
                if now != action.before:
                    raise Conflict(f"@{action.alias} was moved to {now or 'nothing'} meanwhile; that counts")
                self._registry.set_alias(name, action.alias, action.version)
                LOG.info("event=alias_set project=%s alias=%s version=%s", name, action.alias, action.version)
            case DeleteAlias():
                self._registry.delete_alias(name, action.alias)
                LOG.info("event=alias_deleted project=%s alias=%s", name, action.alias)
            case RecordFindings():
                context = {"version": action.version}
                self._journal.record_findings(name, action.as_of_us, action.findings, context, stage=action.stage)
                for finding in action.findings:
                    self._tell(name, finding)
            case RecordDecision():
                self._record_decision(name, action)
            case SettleDecision():
                self._settle_decision(name, action)

    def _fetch(self, name: str, action: FetchBundle) -> None:
        try:
            version = self._registry.version(name, action.version)
        except NotFound as error:
            self._say(f"fetch {name}", f"event=version_unknown project={name} message={error}")
            return
        self._versions[(name, action.version)] = version
        got = self._bundles.fetch(self._registry, version)
        LOG.info("event=fetched project=%s version=%s ok=%s", name, action.version, isinstance(got, Variant))

    def _swap(self, name: str, action: Swap) -> None:
        made = self._journal.swap(name, action.expected, action.head.to_body(), actor=ACTOR, reason=action.reason)
        reason = json.dumps(action.reason)
        LOG.info("event=generation project=%s generation=%d reason=%s", name, made.generation, reason)
        self._tell(name, Finding("GenerationMade", f"generation {made.generation}: {action.reason}", "info", name))

    def _record_decision(self, name: str, action: RecordDecision) -> None:
        made = self._journal.record_decision(
            name,
            "promote",
            action.as_of_us,
            action.decision,
            action.state,
            {"version": action.version},
            actor=ACTOR,
            suffix=action.suffix,
        )
        LOG.info("event=decision project=%s id=%s state=%s %s", name, made.id, made.state, action.decision.summary())
        for finding in action.decision.findings:
            self._tell(name, finding)

    def _settle_decision(self, name: str, action: SettleDecision) -> None:
        record = self._journal.decision(action.id, name)
        if action.outcome == "refused":
            if record.state in ("pending", "approved"):
                self._journal.refuse(action.id, ACTOR, action.reason, name)
            return
        if record.state == "pending":  # a person moved the alias instead of approving
            self._journal.approve(action.id, "alias", action.reason, name)
        if record.state in ("pending", "approved"):
            self._journal.mark_executed(action.id, {"served": action.reason}, ACTOR, action.reason, name)

    def _say(self, about: str, message: str) -> None:
        """A line where something began or changed, not in every round; an empty message says that it is over."""
        before = self._said.get(about, "")
        if message == before:
            return
        self._said[about] = message
        LOG.warning("%s", message or f"event=over about={json.dumps(about)}")
