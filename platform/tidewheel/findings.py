"""One vocabulary for everything a check can say: gates, guards, monitors and policies.

A check is a pure function that returns findings; a list of checks adds up to a Decision. ``reason`` is a
fixed CamelCase word, safe as a metric label; each has a page in docs/runbooks/. ``message`` is for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Severity = Literal["info", "warning", "critical"]

REASONS: dict[str, str] = {
    # what the monitor sees
    "FeedBroken": "A source sends values that cannot be right: missing, constant or far fewer events than usual",
    "FeatureDrift": "A feature's distribution left its reference",
    "ScoreDrift": "The distribution of scores left its reference",
    "PerformanceDrop": "The metric on mature labels fell below its limit, the whole interval included",
    "TrainServeSkew": "A served feature value differs from its offline recomputation",
    "FeaturesLag": "Too many feature values were served before events that had happened reached the store",
    "DegradedServing": "Too many replies came from the fallback ladder",
    "LabelsMissing": "Labels that should be mature did not arrive",
    # what the retrain policy says
    "CadenceDue": "The declared cadence asks for a retrain",
    "DriftPersists": "A finding that asks for a retrain held in N of the last M runs and holds now",
    "DataUnhealthy": "The data is broken, so training on it is refused",
    "MonitorMissing": "The monitor did not finish for this time, so nobody knows whether the data is healthy",
    "NotPersistent": "A finding that asks for a retrain has not held long enough",
    "NotEnoughLabels": "Too few mature labels since the change",
    "CooldownActive": "The last retrain is too recent",
    "BudgetSpent": "The retrains allowed per 30 days are used up",
    "DecisionPending": "An earlier decision still waits for a person or for its run",
    "NothingAsks": "No cadence is due and no finding asks for a retrain",
    "ApprovalNeeded": "The tier of the project demands a person's approval",
    # what the gate says
    "BelowMinimum": "The candidate misses the gate's minimum",
    "BelowBaseline": "The candidate does not beat the baseline",
    "WorseThanChampion": "The candidate loses more than allowed against the champion on the same holdout",
    "SliceWorse": "The candidate loses more than allowed on a declared slice",
    "SkewUnchecked": "The gate requires served values to equal their recomputation, and no recent check says so",
    "TransformUnstable": "A request function gives a row another value alone, among others or in another order",
    "GatePassed": "The candidate passed every check of the gate",
    # what a rollout or a load says
    "DigestMismatch": "The bytes of a bundle are not those that were registered",
    "SignatureMissing": "A bundle carries no signature, so nobody vouches for it",
    "SignatureInvalid": "A bundle's signature is not by a trusted key over exactly these files",
    "GoldenMismatch": "A golden request did not give its recorded score",
    "ParityMismatch": "The ONNX twin and the original model disagree",
    "BundleMissing": "A bundle or a project's code is not in the object store yet, or the store does not answer",
    "BundleInvalid": "A bundle lacks a file or cannot be read",
    "LoadFailed": "A server could not load the version",
    "ErrorsOverLimit": "The share of failed requests is over the rollout's limit",
    "DegradedOverLimit": "The share of degraded replies is over the rollout's limit",
    "FlipsOverLimit": "Too many decisions differ from the champion's",
    "LatencyOverLimit": "The p99 latency is over the rollout's limit",
    "GenerationMade": "The journal has a new generation: what is served changes, and why",
    "RolloutDone": "All steps of the rollout passed",
    "AliasMoved": "A person moved an alias that a rollout is about",
    "ApprovalRefused": "A person refused the promotion",
    # what a plan guard says
    "EmptyRegistry": "The registry read came back empty although versions are served",
    "TooManyRemovals": "The plan would remove more than 30% of the services",
}


@dataclass(frozen=True)
class Finding:
    """What one check saw. ``value`` and ``limit`` share a unit named in the message; None where there is none."""

    reason: str
    message: str
    severity: Severity = "warning"
    subject: str = ""  # the feature, source, slice or version it is about
    value: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"unknown reason {self.reason!r}; add it to findings.REASONS with a runbook page")


@dataclass(frozen=True)
class Decision:
    """What follows from findings. ``action`` is one of the words its maker documents."""

    action: str
    findings: tuple[Finding, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(finding.reason for finding in self.findings))

    def summary(self) -> str:
        """One line for a log or a table: the action and the messages behind it."""
        return f"{self.action}: " + "; ".join(f"{f.reason}: {f.message}" for f in self.findings)


def decision_id(kind: str, as_of_us: int, suffix: str = "") -> str:
    """The one id of a decision of ``kind`` as of a time, so that a storm of triggers decides once.

    >>> decision_id("retrain", 1_522_540_800_000_000)
    'retrain-20180401T000000Z'
    """
    at = datetime.fromtimestamp(as_of_us // 1_000_000, tz=UTC)
    return f"{kind}-{at:%Y%m%dT%H%M%SZ}" + (f"-{suffix}" if suffix else "")
