"""One monitor run: gather, check, record. Running it again for the same time gives the same end state.

Called by `tidewheel monitor`. The findings are recorded before any report is drawn, so a report cannot lose them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tidewheel.findings import Finding
from tidewheel.journal.ledger import Journal
from tidewheel.monitoring.checks import findings_of
from tidewheel.monitoring.gather import Champion, gather, gather_skew
from tidewheel.monitoring.given import MonitorInput
from tidewheel.monitoring.paths import MonitorPaths
from tidewheel.monitoring.served import write_profile
from tidewheel.monitoring.skew import Recompute
from tidewheel.spec.project import ModelProject

STAGE = "monitor"
SKEW_STAGE = "skew"


@dataclass(frozen=True)
class MonitorResult:
    """What a run saw and found."""

    given: MonitorInput
    findings: tuple[Finding, ...]
    n_labels_mature: int

    @property
    def outcome(self) -> dict[str, Any]:
        """What the journal keeps of the run."""
        return {
            "exit_code": 0,
            "champion": self.given.champion,
            "n_predictions": self.given.n_predictions,
            "n_labels_mature": self.n_labels_mature,
            "n_compared": max((one.n_rows for one in self.given.skew), default=0),
            "n_findings": len(self.findings),
            "reasons": sorted({finding.reason for finding in self.findings}),
        }

    @property
    def drift(self) -> dict[str, float]:
        """Per feature the index that counts: against the nearest reference."""
        features = [*self.given.features, *([self.given.score] if self.given.score else [])]
        return {one.name: min(c.psi for c in one.comparisons) for one in features if one.comparisons}

    @property
    def metrics(self) -> dict[str, dict[str, float | int]]:
        """The metric with its interval, and its value per slice."""
        measured = self.given.performance
        if measured is None:
            return {}
        told: dict[str, dict[str, float | int]] = {
            measured.metric: {
                "value": measured.value,
                "low": measured.low,
                "high": measured.high,
                "n": measured.n,
                "min": measured.minimum,
            }
        }
        for name, value, n in measured.slices:
            told[f"{measured.metric}[{name}]"] = {"value": value, "n": n}
        return told


def run_monitor(
    project: ModelProject,
    paths: MonitorPaths,
    journal: Journal,
    champion: Champion | None,
    as_of_us: int,
    recompute: Recompute | None = None,
) -> MonitorResult:
    """Look at (as_of - every, as_of] and record what was found. Raises InputError where a lake file is unreadable."""
    journal.start_run(project.name, STAGE, as_of_us)
    gathered = gather(project, paths, champion, as_of_us, recompute)
    found = findings_of(gathered.given)
    clean = not any(finding.reason in ("FeedBroken", "DegradedServing") for finding in found)
    drifted = any(finding.reason in ("FeatureDrift", "ScoreDrift") for finding in found)
    write_profile(paths.run(project.name, as_of_us), replace(gathered.served, clean=clean, drifted=drifted))
    context = {"version": gathered.given.champion, "digest": champion.digest if champion else None}
    journal.record_findings(project.name, as_of_us, found, context, stage=STAGE)
    result = MonitorResult(gathered.given, found, gathered.n_labels_mature)
    journal.finish_run(project.name, STAGE, as_of_us, result.outcome)
    return result


def run_skew(
    project: ModelProject,
    paths: MonitorPaths,
    journal: Journal,
    champion: Champion | None,
    as_of_us: int,
    recompute: Recompute,
) -> MonitorResult:
    """Compare what was served in (as_of - every, as_of] with its recomputation, nothing else, and record it."""
    journal.start_run(project.name, SKEW_STAGE, as_of_us)
    given = gather_skew(project, paths, champion, as_of_us, recompute)
    found = findings_of(given)
    context = {"version": given.champion, "digest": champion.digest if champion else None}
    journal.record_findings(project.name, as_of_us, found, context, stage=SKEW_STAGE)
    result = MonitorResult(given, found, 0)
    journal.finish_run(project.name, SKEW_STAGE, as_of_us, result.outcome)
    return result


def is_news(project: ModelProject, journal: Journal, result: MonitorResult) -> bool:
    """True where a reason was found that the run before did not find: worth a page for people to look at."""
    before = journal.runs(project.name, stage=STAGE, until_us=result.given.end_us - 1, limit=1, newest_first=True)
    known = set((before[0].outcome or {}).get("reasons", ())) if before else set()
    return bool(set(result.outcome["reasons"]) - known)
