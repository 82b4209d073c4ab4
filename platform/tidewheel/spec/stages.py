"""Which stages of a project are due: one pure function that `tidewheel up` asks and DAGs render.

A stage is due at the boundaries of its cadence, counted in event time from the Unix epoch, so that every
caller sees the same boundaries. A stage that was never run starts at the newest boundary: history before the
platform watched is not replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidewheel.clock import HOUR_US
from tidewheel.spec.project import ModelProject

# A day's monitor waits until the day's last events are allowed to have arrived; without a declaration, an hour.
DEFAULT_LATENESS_US = HOUR_US


@dataclass(frozen=True, order=True)
class DueStage:
    """Run ``stage`` for the data up to ``as_of_us``."""

    as_of_us: int
    stage: str


def cadences_us(project: ModelProject) -> dict[str, int]:
    """Stage to the length of its cadence. ``retrain`` follows each monitor run: the policy decides what happens."""
    return {"monitor": project.monitoring.every_us, "retrain": project.monitoring.every_us}


def lateness_us(project: ModelProject) -> int:
    """How long after a boundary the last events before it may still arrive."""
    return project.request_source.allowed_lateness_us or DEFAULT_LATENESS_US


def newest_boundary_us(project: ModelProject, every_us: int, now_us: int) -> int:
    """The newest boundary of a cadence before which no more events are allowed to arrive."""
    return (now_us - lateness_us(project)) // every_us * every_us


def stages_due(project: ModelProject, last_runs: Mapping[str, int], as_of_us: int) -> tuple[DueStage, ...]:
    """Every run that is due and was not done, oldest first; within one time, monitor before retrain.

    ``last_runs`` maps a stage to the as-of time of its last finished run, ``as_of_us`` is the watermark of the
    request source: how far event time has come.
    """
    due: list[DueStage] = []
    for stage, every_us in cadences_us(project).items():
        newest = newest_boundary_us(project, every_us, as_of_us)
        first = last_runs[stage] // every_us * every_us + every_us if stage in last_runs else newest
        due.extend(DueStage(at, stage) for at in range(first, newest + 1, every_us))
    return tuple(sorted(due))
