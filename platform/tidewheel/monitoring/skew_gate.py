"""Whether served values are known to equal what training computes: what a gate may ask before a new version."""

from __future__ import annotations

from tidewheel.clock import utc_text
from tidewheel.findings import Finding
from tidewheel.journal.ledger import Journal
from tidewheel.monitoring.run import SKEW_STAGE, STAGE
from tidewheel.spec.project import ModelProject
from tidewheel.spec.scalars import duration_text


def skew_finding(project: ModelProject, journal: Journal, as_of_us: int) -> Finding | None:
    """None where the gate does not ask, or where the newest comparison within its time found no skew."""
    within_us = project.training.gate.skew_checked_within_us
    if within_us is None:
        return None
    told = [
        run
        for stage in (STAGE, SKEW_STAGE)
        for run in journal.runs(project.name, stage=stage, since_us=as_of_us - within_us, until_us=as_of_us)
        if run.outcome and run.outcome.get("n_compared", 0)
    ]
    if not told:
        message = (
            f"no served value was compared with its recomputation in the {duration_text(within_us)} before; "
            "run 'tidewheel monitor PROJECT --only skew'"
        )
        return Finding("SkewUnchecked", message, "critical")
    newest = max(told, key=lambda run: run.as_of_us)
    if "TrainServeSkew" in (newest.outcome or {}).get("reasons", ()):
        message = f"served values differed from their recomputation as of {utc_text(newest.as_of_us)}"
        return Finding("TrainServeSkew", message, "critical")
    return None
