"""Asks the retrain policy about a project as of a time and records its answer, whatever it is.

Called by `tidewheel train --if-needed` after the monitor ran for the same time.
"""

from __future__ import annotations

from dataclasses import replace

from tidewheel.clock import DAY_US
from tidewheel.findings import decision_id
from tidewheel.journal.decisions import DecisionRecord, DecisionState
from tidewheel.journal.ledger import Journal
from tidewheel.monitoring.gather import label_lake
from tidewheel.monitoring.outcomes import count_mature_labels
from tidewheel.monitoring.paths import MonitorPaths
from tidewheel.monitoring.retrain import MonitorRun, RetrainInput, asking, change_began_us, decide_retrain
from tidewheel.monitoring.run import STAGE
from tidewheel.spec.project import ModelProject

KIND = "retrain"
LOOK_BACK_US = 60 * DAY_US


def decide_and_record(
    project: ModelProject,
    paths: MonitorPaths,
    journal: Journal,
    *,
    champion_trained_as_of_us: int | None,
    champion_data_end_us: int | None,
    as_of_us: int,
    actor: str = "policy",
) -> DecisionRecord:
    """The one decision of kind "retrain" for this as-of time; asked again it returns the first answer.

    ``paths`` is ``MonitorPaths(home.lake, home.reports, home.bundles)``. ``champion_trained_as_of_us`` and
    ``champion_data_end_us`` are the as-of time of the champion's training and the end of its newest data (training
    and holdout), from its plan; None where no version serves: then no cadence is due.

    The record's ``decision.action`` is "retrain", "refuse" or "none". Its ``state`` says what to do now: "approved"
    train at once, then ``journal.mark_executed(id, {...})``; "pending" print the id and `tidewheel approve`;
    "refused" or "none" print the summary.
    """
    known = journal.decisions(project.name, kind=KIND, since_us=as_of_us, until_us=as_of_us)
    if known:
        return known[0]
    given = gather_retrain(
        project,
        paths,
        journal,
        champion_trained_as_of_us=champion_trained_as_of_us,
        champion_data_end_us=champion_data_end_us,
        as_of_us=as_of_us,
    )
    decision = decide_retrain(given)
    states: dict[str, DecisionState] = {
        "retrain": "pending" if project.needs_approval else "approved",
        "refuse": "refused",
        "none": "none",
    }
    details = {
        "n_labels_since_change": given.n_labels_since_change,
        "n_labels_since_champion": given.n_labels_since_champion,
        "change_began_us": change_began_us(given),
        "champion_trained_as_of_us": champion_trained_as_of_us,
        "n_retrains_30d": given.n_retrains_30d,
    }
    return journal.record_decision(
        project.name, KIND, as_of_us, decision, states[decision.action], details, actor=actor
    )


def gather_retrain(
    project: ModelProject,
    paths: MonitorPaths,
    journal: Journal,
    *,
    champion_trained_as_of_us: int | None,
    champion_data_end_us: int | None,
    as_of_us: int,
) -> RetrainInput:
    """What the policy looks at. Labels are counted in the lake, and only where something asks for a retrain."""
    name, spec = project.name, project.retrain
    past = journal.decisions(name, kind=KIND, since_us=as_of_us - 30 * DAY_US, until_us=as_of_us)
    retrains = [one for one in past if one.decision.action == "retrain" and one.state in ("approved", "executed")]
    newest = journal.decisions(name, kind=KIND, limit=200, newest_first=True)
    times = [one.as_of_us for one in newest if one.decision.action == "retrain" and one.state != "refused"]
    given = RetrainInput(
        as_of_us=as_of_us,
        runs=_monitor_runs(journal, name, as_of_us),
        when=spec.when,
        persists_runs=spec.persists.runs,
        persists_of=spec.persists.of,
        every_us=spec.every_us,
        monitor_every_us=project.monitoring.every_us,
        cooldown_us=spec.guards.cooldown_us,
        max_per_30d=spec.guards.max_per_30d,
        min_mature_labels=spec.guards.min_mature_labels,
        needs_approval=project.needs_approval,
        champion_trained_as_of_us=champion_trained_as_of_us,
        n_labels_since_change=0,
        n_labels_since_champion=0,
        pending=_pending(journal, name, decision_id(KIND, as_of_us)),
        last_retrain_us=max(times, default=None),
        n_retrains_30d=len(retrains),
    )
    if not asking(given):
        return given
    labels = label_lake(project, paths)
    since_champion_us = champion_data_end_us if champion_data_end_us is not None else 0
    n_champion = count_mature_labels(project, labels, since_champion_us, as_of_us)
    began_us = change_began_us(given)
    n_change = 0
    if began_us is not None:
        # The newest mature labels are the holdout's, and the fit ends a label gap before it: a change that only the
        # holdout sees cannot be learned.
        fit_as_of_us = as_of_us - project.training.holdout_us - project.label.delay_us
        n_change = count_mature_labels(project, labels, began_us - _seen_late_us(project, given), fit_as_of_us)
    return replace(given, n_labels_since_change=n_change, n_labels_since_champion=n_champion)


def _seen_late_us(project: ModelProject, given: RetrainInput) -> int:
    """How long before its first finding a change may have begun: the window looked at, and for a drop of the
    metric also the time until its labels were mature."""
    late_us = project.monitoring.every_us
    reasons = {finding.subject for finding in asking(given) if finding.reason == "DriftPersists"}
    return late_us + project.label.delay_us if reasons == {"PerformanceDrop"} else late_us


def _monitor_runs(journal: Journal, project: str, as_of_us: int) -> tuple[MonitorRun, ...]:
    since_us = as_of_us - LOOK_BACK_US
    found = journal.findings(project, since_us, as_of_us, stage=STAGE)
    runs = []
    for run in journal.runs(project, stage=STAGE, since_us=since_us, until_us=as_of_us):
        outcome = run.outcome or {}
        if run.finished_at_us is None or outcome.get("exit_code", 0) != 0:
            continue
        own = [one.finding for one in found if one.as_of_us == run.as_of_us]
        broken = tuple(finding.subject for finding in own if finding.reason == "FeedBroken")
        runs.append(
            MonitorRun(run.as_of_us, frozenset(finding.reason for finding in own), broken, outcome.get("champion"))
        )
    return tuple(runs)


def _pending(journal: Journal, project: str, own: str) -> str | None:
    """A retrain that waits for a person or its run, or a promotion that waits for a person."""
    waiting = [
        *journal.decisions(project, kind=KIND, state="pending"),
        *journal.decisions(project, kind=KIND, state="approved"),
        *journal.decisions(project, kind="promote", state="pending"),
    ]
    return next((one.id for one in waiting if one.id != own), None)
