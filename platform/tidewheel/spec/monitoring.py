"""Spec sections about monitoring and retraining: what is watched, how often, and what follows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tidewheel.clock import DAY_US
from tidewheel.spec.scalars import DurationUs, Identifier, Ratio, Section
from tidewheel.spec.training import Metric

RetrainReason = Literal["FeatureDrift", "ScoreDrift", "PerformanceDrop"]


class Drift(Section):
    """Population stability index over the reference's deciles; a column drifts over ``limit``."""

    test: Literal["psi"] = "psi"
    limit: float = Field(default=0.2, gt=0.0, le=10.0)


class Performance(Section):
    """The metric on mature labels; a drop is reported when the whole interval is below ``min``."""

    metric: Metric = "average_precision"
    min: float = Field(ge=0.0, le=1.0)
    slices: tuple[Identifier, ...] = Field(default=(), description="Request columns reported value by value.")


class Skew(Section):
    """Served values are recomputed offline; the share that differs must stay at or below the limit."""

    max_mismatch_ratio: Ratio = Field(default=0.001, description="Of values that no lag explains, per feature.")
    max_lagged_ratio: Ratio = Field(
        default=0.05, description="Of values served before events that had happened were in the store, per feature."
    )


class Monitoring(Section):
    """What the monitor watches, every ``every`` of event time."""

    every_us: DurationUs = Field(default=DAY_US, alias="every")
    reference: Literal["training", "previous_week"] = Field(
        default="training", description="What current data is compared with."
    )
    drift: Drift = Drift()
    performance: Performance | None = None
    skew: Skew | None = None


class Persists(Section):
    """A finding asks for a retrain when it held in ``runs`` of the last ``of`` monitor runs, the newest included."""

    runs: int = Field(default=3, ge=1, le=30)
    of: int = Field(default=5, ge=1, le=30)

    @model_validator(mode="after")
    def _ordered(self) -> Persists:
        if self.of < self.runs:
            raise ValueError(f"of must be at least runs (got runs {self.runs}, of {self.of})")
        return self


class RetrainGuards(Section):
    """What stops a retrain that would otherwise be due."""

    min_mature_labels: int = Field(
        default=1000, ge=0, description="Mature labels needed since the change began, or since the champion's data."
    )
    cooldown_us: DurationUs = Field(default=DAY_US, alias="cooldown", description="Least time between retrains.")
    max_per_30d: int = Field(default=10, ge=1)


class Retrain(Section):
    """When a new version is trained; broken data always refuses."""

    every_us: DurationUs | None = Field(default=None, alias="every", description="Cadence; leave out for on demand.")
    when: tuple[RetrainReason, ...] = Field(default=("FeatureDrift", "PerformanceDrop"))
    persists: Persists = Persists()
    guards: RetrainGuards = RetrainGuards()
