"""The retrain policy: pure checks over what the monitor found; the first that answers decides. It fails closed.

    retrain   train a version now (a tier 1 project: once a person approved)
    refuse    something asks for a retrain or must be known first, and a guard stops it
    none      nothing asks, or an earlier decision is still on its way

Called by ``retrain_gather``, which records every answer. The policy only asks for training: the gate promotes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidewheel.clock import DAY_US, utc_text
from tidewheel.findings import Decision, Finding
from tidewheel.spec.scalars import duration_text

# After a broken feed, windowed features recover as their windows move on; no drift is believed for this long,
# unless a run without any finding shows that they have.
RECOVERY_US = 7 * DAY_US


@dataclass(frozen=True)
class MonitorRun:
    """One finished monitor run: the reasons it found, and what was broken (``source`` or ``source.column``)."""

    as_of_us: int
    reasons: frozenset[str] = frozenset()
    broken: tuple[str, ...] = ()
    version: str | None = None  # the champion it looked at


@dataclass(frozen=True)
class RetrainInput:
    """Everything the policy looks at. ``runs`` are finished monitor runs up to as_of, oldest first."""

    as_of_us: int
    runs: tuple[MonitorRun, ...]
    when: tuple[str, ...]
    persists_runs: int
    persists_of: int
    every_us: int | None
    monitor_every_us: int
    cooldown_us: int
    max_per_30d: int
    min_mature_labels: int
    needs_approval: bool
    champion_trained_as_of_us: int | None
    n_labels_since_change: int
    n_labels_since_champion: int
    pending: str | None = None  # id of a decision that waits for a person or for its run
    last_retrain_us: int | None = None
    n_retrains_30d: int = 0


@dataclass(frozen=True)
class Episode:
    """A reason that asks: in how many of the last runs it held, and the as-of time of the run that first saw it."""

    reason: str
    n_held: int
    n_runs: int
    first_us: int
    holds_now: bool


Check = Callable[[RetrainInput], Decision | None]


def decide_retrain(given: RetrainInput) -> Decision:
    """The first check with an answer decides; where none has one, what asks for the retrain gets it."""
    for check in CHECKS:
        decision = check(given)
        if decision is not None:
            return decision
    asks = asking(given)
    approval = [Finding("ApprovalNeeded", "a tier 1 project: a person approves each retrain", "info")]
    return Decision("retrain", (*asks, *(approval if given.needs_approval else [])))


def monitor_is_missing(given: RetrainInput) -> Decision | None:
    if given.runs and given.runs[-1].as_of_us == given.as_of_us:
        return None
    last = f"the last one is of {utc_text(given.runs[-1].as_of_us)}" if given.runs else "there is none at all"
    message = f"no finished monitor run as of {utc_text(given.as_of_us)}, {last}; run 'tidewheel monitor' first"
    return Decision("refuse", (Finding("MonitorMissing", message),))


def data_is_unhealthy(given: RetrainInput) -> Decision | None:
    """A feed that is broken now, or was in the run before: its rows would be trained on."""
    recent = [run for run in given.runs[-2:] if run.broken]
    if not recent:
        return None
    run = recent[-1]
    names = ", ".join(dict.fromkeys(run.broken))
    message = f"{names}: broken as of {utc_text(run.as_of_us)}; training on it is refused"
    return Decision("refuse", (Finding("DataUnhealthy", message, "critical", run.broken[0]),))


def decision_is_pending(given: RetrainInput) -> Decision | None:
    if given.pending is None:
        return None
    return Decision("none", (Finding("DecisionPending", f"{given.pending} is not done yet", "info", given.pending),))


def nothing_asks(given: RetrainInput) -> Decision | None:
    """Neither the cadence nor a finding that persists."""
    if asking(given):
        return None
    seen = [one for reason in given.when if (one := episode(given, reason)) is not None]
    if seen:
        best = max(seen, key=lambda one: (one.holds_now, one.n_held))
        message = (
            f"{best.reason} held in {best.n_held} of the last {best.n_runs} runs"
            f"{'' if best.holds_now else ' and does not hold now'}, needed {given.persists_runs} of {given.persists_of}"
        )
        return Decision("none", (Finding("NotPersistent", message, "info", best.reason),))
    return Decision("none", (Finding("NothingAsks", "no finding asks for a retrain and no cadence is due", "info"),))


def labels_are_too_few(given: RetrainInput) -> Decision | None:
    """Where a finding asks, labels since the change, holdout and gap apart: only those can be learned from. Where the
    cadence asks, labels since the champion's data."""
    asks = {finding.reason for finding in asking(given)}
    counts = [
        (given.n_labels_since_change, "the change began (holdout and gap apart)", "DriftPersists"),
        (given.n_labels_since_champion, "the champion's training data", "CadenceDue"),
    ]
    known = [(n, since) for n, since, reason in counts if reason in asks]
    if any(n >= given.min_mature_labels for n, _ in known):
        return None
    n, since = known[0]
    message = f"{n} mature labels since {since}, needed {given.min_mature_labels}"
    return _refusal("NotEnoughLabels", message, n, given.min_mature_labels)


def cooldown_is_active(given: RetrainInput) -> Decision | None:
    times = [at for at in (given.last_retrain_us, given.champion_trained_as_of_us) if at is not None]
    if not times or given.as_of_us - max(times) >= given.cooldown_us:
        return None
    message = f"the last retrain was as of {utc_text(max(times))}, cooldown {duration_text(given.cooldown_us)}"
    return _refusal("CooldownActive", message)


def budget_is_spent(given: RetrainInput) -> Decision | None:
    if given.n_retrains_30d < given.max_per_30d:
        return None
    message = f"{given.n_retrains_30d} retrains in 30 days, allowed {given.max_per_30d}"
    return _refusal("BudgetSpent", message, given.n_retrains_30d, given.max_per_30d)


CHECKS: Sequence[Check] = (
    monitor_is_missing,  # without it nothing is known
    data_is_unhealthy,
    decision_is_pending,
    nothing_asks,
    labels_are_too_few,
    cooldown_is_active,
    budget_is_spent,
)


def asking(given: RetrainInput) -> tuple[Finding, ...]:
    """What asks for a retrain: the cadence, and each reason that held in N of the last M runs and holds now."""
    found: list[Finding] = []
    trained_us = given.champion_trained_as_of_us
    if given.every_us is not None and trained_us is not None and given.as_of_us - trained_us >= given.every_us:
        message = f"every {duration_text(given.every_us)}, the champion was trained as of {utc_text(trained_us)}"
        found.append(Finding("CadenceDue", message, "info"))
    for reason in given.when:
        seen = episode(given, reason)
        if seen is not None and seen.holds_now and seen.n_held >= given.persists_runs:
            message = (
                f"{reason} held in {seen.n_held} of the last {seen.n_runs} runs, first as of {utc_text(seen.first_us)}"
            )
            found.append(Finding("DriftPersists", message, "warning", reason, float(seen.n_held), given.persists_runs))
    return tuple(found)


def change_began_us(given: RetrainInput) -> int | None:
    """As-of time of the run that first saw the oldest finding that asks now; None where no finding does."""
    reasons = [finding.subject for finding in asking(given) if finding.reason == "DriftPersists"]
    firsts = [seen.first_us for reason in reasons if (seen := episode(given, reason)) is not None]
    return min(firsts, default=None)


def episode(given: RetrainInput, reason: str) -> Episode | None:
    """The episode of one reason that is under way; None where it was not believed in any of the last M runs.

    An episode goes back as long as no more than M runs in a row were without the finding. What was found about an
    earlier champion says nothing about this one.
    """
    version = given.runs[-1].version if given.runs else None
    held = [reason in run.reasons and not tainted and run.version == version for run, tainted in _with_taint(given)]
    recent = held[-given.persists_of :]
    if not any(recent):
        return None
    first, gap = len(held) - 1, 0
    for index in range(len(held) - 1, -1, -1):
        gap = 0 if held[index] else gap + 1
        if gap > given.persists_of:
            break
        if held[index]:
            first = index
    return Episode(reason, sum(recent), len(recent), given.runs[first].as_of_us, recent[-1])


def _with_taint(given: RetrainInput) -> list[tuple[MonitorRun, bool]]:
    """Each run and whether its drift may be an echo of a broken feed."""
    told: list[tuple[MonitorRun, bool]] = []
    broken_us: int | None = None
    recovery_us = max(RECOVERY_US, given.persists_of * given.monitor_every_us)
    for run in given.runs:
        if run.broken:
            broken_us = run.as_of_us
        elif broken_us is not None:
            clean = not run.reasons & set(given.when)
            if clean or run.as_of_us - broken_us > recovery_us:
                broken_us = None
        told.append((run, broken_us is not None))
    return told


def _refusal(reason: str, message: str, value: float | None = None, limit: float | None = None) -> Decision:
    return Decision("refuse", (Finding(reason, message, "info", "", value, limit),))
