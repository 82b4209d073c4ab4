"""The serving plan: what a server must know about a version besides its trees.

Written at training into ``serving_plan.json``; read by the model server, the controller and the monitor.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tidewheel.bundle.files import SERVING_PLAN, read_json, write_json
from tidewheel.errors import ContractViolation
from tidewheel.spec.project import ModelProject

DTYPES = ("int64", "float64", "bool")


@dataclass(frozen=True)
class PlannedFeature:
    """One model input. ``default`` None leaves a missing value missing; ``freshness_us`` None sets no budget."""

    name: str
    dtype: str
    source: str
    default: float | None = None
    freshness_us: int | None = None


@dataclass(frozen=True)
class ServingPlan:
    """``features`` are in the model's order; ``decision`` maps a decision to the lowest score that gets it.

    ``trained`` holds what the version was made of, for people and for the retrain policy: ``window`` (start_us,
    end_us), ``holdout`` (start_us, end_us), ``as_of_us``, ``n_rows``, ``metrics``.
    """

    project: str
    features: tuple[PlannedFeature, ...]
    decision: Mapping[str, float]
    feature_digest: str
    spec_digest: str
    trained: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    def decide(self, score: float) -> str:
        """The decision whose band holds ``score``."""
        bands = sorted(self.decision.items(), key=lambda band: band[1])
        return [name for name, lowest in bands if score >= lowest][-1]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "features": [asdict(feature) for feature in self.features]}


def spec_digest(project: ModelProject) -> str:
    """SHA-256 (hex) of what ``project.yaml`` says: comments, layout and key order are not part of it."""
    body = project.model_dump(mode="json", by_alias=True)
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_plan(folder: Path, plan: ServingPlan) -> None:
    write_json(folder / SERVING_PLAN, plan.to_json())


def read_plan(folder: Path) -> ServingPlan:
    """Raises ContractViolation with every fault of the file."""
    return plan_from_json(read_json(folder / SERVING_PLAN), str(folder / SERVING_PLAN))


def plan_from_json(body: Mapping[str, Any], where: str = SERVING_PLAN) -> ServingPlan:
    """Raises ContractViolation with every fault at once."""
    problems = [
        f"{name} must be text (got {body.get(name)!r})"
        for name in ("project", "feature_digest", "spec_digest")
        if not isinstance(body.get(name), str) or not body.get(name)
    ]
    features: list[PlannedFeature] = []
    listed = body.get("features")
    if not isinstance(listed, list) or not listed:
        problems.append("features must be a list that is not empty")
        listed = []
    for index, item in enumerate(listed):
        faults = _feature_faults(item)
        problems += [f"features.{index}.{fault}" for fault in faults]
        if not faults:
            features.append(PlannedFeature(**item))
    names = [feature.name for feature in features]
    problems += [f"two features are named {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    decision = body.get("decision")
    if not isinstance(decision, Mapping) or not decision or not all(_is_number(low) for low in decision.values()):
        problems.append("decision must map each decision to its lowest score")
        decision = {}
    elif min(decision.values()) > 0.0:
        problems.append("decision must have a band that starts at 0.0")
    trained = body.get("trained", {})
    if not isinstance(trained, Mapping):
        problems.append("trained must be an object")
        trained = {}
    if problems:
        raise ContractViolation(f"{where}: {len(problems)} problem(s): {'; '.join(problems)}")
    return ServingPlan(
        project=body["project"],
        features=tuple(features),
        decision={name: float(low) for name, low in sorted(decision.items(), key=lambda band: band[1])},
        feature_digest=body["feature_digest"],
        spec_digest=body["spec_digest"],
        trained=dict(trained),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _feature_faults(item: Any) -> list[str]:
    if not isinstance(item, dict):
        return [f"must be an object (got {item!r})"]
    fields = PlannedFeature.__dataclass_fields__
    faults = [f"{name}: unknown field" for name in sorted(item.keys() - fields.keys())]
    if not isinstance(item.get("name"), str) or not item["name"]:
        faults.append(f"name must be text (got {item.get('name')!r})")
    if item.get("dtype") not in DTYPES:
        faults.append(f"dtype must be one of {', '.join(DTYPES)} (got {item.get('dtype')!r})")
    if not isinstance(item.get("source"), str):
        faults.append(f"source must be text (got {item.get('source')!r})")
    if item.get("default") is not None and not _is_number(item["default"]):
        faults.append(f"default must be a number or null (got {item['default']!r})")
    freshness_us = item.get("freshness_us")
    if freshness_us is not None and (not isinstance(freshness_us, int) or isinstance(freshness_us, bool)):
        faults.append(f"freshness_us must be whole microseconds or null (got {freshness_us!r})")
    return faults
