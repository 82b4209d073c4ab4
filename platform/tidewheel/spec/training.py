"""Spec sections about training: how a model is fitted and what a candidate must pass."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tidewheel.clock import DAY_US
from tidewheel.spec.scalars import DurationUs, Identifier, Section

Metric = Literal["average_precision", "auc_roc", "card_precision_at_100"]


class Gate(Section):
    """What a candidate must pass on the holdout before it may serve."""

    metric: Metric = "average_precision"
    min: float = Field(default=0.0, ge=0.0, le=1.0, description="The metric's lowest acceptable value.")
    max_loss: float = Field(
        default=0.01, ge=0.0, le=1.0, description="How much worse than the champion on the same holdout is accepted."
    )
    slices: tuple[Identifier, ...] = Field(default=(), description="Request columns whose every value is checked too.")
    skew_checked_within_us: DurationUs | None = Field(
        default=None,
        alias="skew_checked_within",
        description="While a version serves: its served values must have been compared with their recomputation at "
        "most this long before, and have agreed. Leave out to not ask.",
    )


class Training(Section):
    """How a version is made; the newest mature ``holdout`` is kept for the gate."""

    trainer: Literal["xgboost"] = "xgboost"
    mode: Literal["stateless", "stateful"] = Field(
        default="stateless", description="stateful continues from the champion's trees."
    )
    params: dict[str, float | int | str | bool] = Field(
        default_factory=dict, description="XGBoost parameters over the platform's defaults for rare positives."
    )
    window_us: DurationUs = Field(alias="window", description="Length of the training data.")
    holdout_us: DurationUs = Field(default=7 * DAY_US, alias="holdout", description="Length of the holdout.")
    exclude_known_positives: Identifier | None = Field(
        default=None,
        description="Entity whose keys with a positive label before the test leave the test (known stolen cards).",
    )
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _params_are_not_ours(self) -> Training:
        if self.params.get("booster") == "dart":
            raise ValueError("params.booster: dart cannot be served: ONNX has no weights of trees; leave booster out")
        if "missing" in self.params:
            raise ValueError("params.missing: a missing value is NaN in training and serving alike; leave missing out")
        ours = sorted({"objective", "num_class", "booster", "nthread", "verbosity"} & self.params.keys())
        if ours:
            raise ValueError(f"params must not set {', '.join(ours)}: the platform does")
        return self
