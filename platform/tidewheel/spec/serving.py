"""Spec sections about serving: deadline, decisions, fallback and the rollout of a new version."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from tidewheel.spec.scalars import CpuQuantity, DurationUs, Identifier, MemoryQuantity, Ratio, Section


class Replicas(Section):
    """How many model servers: ``min`` run on a laptop, the cluster scales up to ``max``."""

    min: int = Field(default=1, ge=1, le=64)
    max: int = Field(default=1, ge=1, le=1024)
    target_cpu_ratio: float = Field(
        default=0.7, ge=0.1, le=1.0, description="Share of the requested CPU at which the cluster adds a replica."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.max < self.min:
            raise ValueError(f"max must be at least min (got min {self.min}, max {self.max})")
        return self


class Resources(Section):
    """What one replica gets in a cluster, as Kubernetes writes it; a laptop does not look at it."""

    cpu: CpuQuantity = Field(default="250m", description="CPU that is reserved, such as 250m or 1.")
    cpu_limit: CpuQuantity = Field(default="2", description="The most CPU it may use.")
    memory: MemoryQuantity = Field(default="768Mi", description="Memory that is reserved and the most it may use.")


class Fallback(Section):
    """What answers when features cannot be read in time, tried in this order under the same deadline."""

    last_good_us: DurationUs | None = Field(
        default=None, alias="last_good", description="Use the entity's last vector if no older than this."
    )
    heuristic: Identifier | None = Field(default=None, description="Request feature read as the score.")
    decision: str = Field(description="The decision when nothing above can answer.")


class Serving(Section):
    """How a request is answered."""

    mode: Literal["online"] = "online"
    deadline_us: DurationUs = Field(default=100_000, alias="deadline", description="Time from request to reply.")
    replicas: Replicas = Replicas()
    resources: Resources = Resources()
    decision: dict[str, Ratio] = Field(min_length=1, description="Decision to the lowest score that gets it.")
    fallback: Fallback | None = None

    @field_validator("decision")
    @classmethod
    def _bands_cover_every_score(cls, value: dict[str, float]) -> dict[str, float]:
        if 0.0 not in value.values():
            raise ValueError("one decision must start at 0.0, else low scores have none")
        if len(set(value.values())) != len(value):
            raise ValueError("two decisions start at the same score")
        return dict(sorted(value.items(), key=lambda band: band[1]))

    @model_validator(mode="after")
    def _fallback_decision_is_declared(self) -> Serving:
        if self.fallback and self.fallback.decision not in self.decision:
            raise ValueError(
                f"fallback.decision must be one of {', '.join(self.decision)} (got {self.fallback.decision!r})"
            )
        return self


class Shadow(Section):
    """The candidate scores a copy of the traffic; callers see the champion only."""

    for_us: DurationUs = Field(alias="for")
    min_requests: int = Field(default=100, ge=1)


class Canary(Section):
    """The candidate answers this share of the units."""

    traffic: float = Field(gt=0.0, lt=1.0)
    for_us: DurationUs = Field(alias="for")
    min_requests: int = Field(default=100, ge=1, description="Requests that the candidate must have answered.")


class RolloutStep(Section):
    """One step of a rollout: exactly one kind."""

    shadow: Shadow | None = None
    canary: Canary | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> RolloutStep:
        if (self.shadow is None) == (self.canary is None):
            raise ValueError("must be exactly one of shadow or canary")
        return self


class AbortIf(Section):
    """Limits that end a rollout; each is compared with the candidate's own requests in the step."""

    error_ratio: Ratio = 0.001
    degraded_ratio: Ratio = 0.01
    decision_flip_ratio: Ratio = 0.05
    p99_latency_us: DurationUs = Field(default=100_000, alias="p99_latency")


class Rollout(Section):
    """What a version under @challenger passes before it becomes @champion."""

    unit: Identifier = Field(description="Entity that always meets the same variant.")
    steps: tuple[RolloutStep, ...] = Field(
        default=(RolloutStep(shadow=Shadow.model_validate({"for": "1h"})),), min_length=1
    )
    abort_if: AbortIf = AbortIf()
