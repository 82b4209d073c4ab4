"""The deployment document: which versions a project's model servers load, and who answers whom.

The controller derives it from the journal and writes it; model servers read it. It may be deleted at any moment:
the controller writes it again. The codec is strict, so that a damaged file never changes what is served.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidewheel.errors import ContractViolation

_WEIGHT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Variant:
    """One version that servers load: its bundle and the lowest score of each decision, ascending."""

    version: str
    digest: str
    decision: Mapping[str, float]


@dataclass(frozen=True)
class DeploymentDocument:
    """What one project's servers do. ``weights`` are shares of units and sum to 1, or are empty before the first
    champion; ``shadow`` versions score copies of requests; ``warm`` versions are loaded and get no traffic."""

    project: str
    generation: int
    unit_key: str
    salt: str
    champion: str | None = None
    variants: tuple[Variant, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    shadow: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()

    def variant(self, version: str) -> Variant:
        """The variant of a version that the document names."""
        return next(variant for variant in self.variants if variant.version == version)

    def to_json(self) -> bytes:
        """The document as a file holds it."""
        body = {
            "project": self.project,
            "generation": self.generation,
            "unit_key": self.unit_key,
            "salt": self.salt,
            "champion": self.champion,
            "variants": [
                {"version": v.version, "digest": v.digest, "decision": dict(v.decision)} for v in self.variants
            ],
            "weights": dict(self.weights),
            "shadow": list(self.shadow),
            "warm": list(self.warm),
        }
        return (json.dumps(body, indent=1) + "\n").encode()


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "project": str,
    "generation": int,
    "unit_key": str,
    "salt": str,
    "champion": (str, type(None)),
    "variants": list,
    "weights": dict,
    "shadow": list,
    "warm": list,
}
_VARIANT_FIELDS: dict[str, type | tuple[type, ...]] = {"version": str, "digest": str, "decision": dict}


def document_from_json(data: bytes, where: str = "deployment document") -> DeploymentDocument:
    """Parse a document; raises ContractViolation with every fault, ``where`` names the file in it."""
    try:
        body = json.loads(data)
    except ValueError as error:
        raise ContractViolation(f"{where}: not valid JSON ({error}); the controller writes it again") from error
    faults = _shape_faults(body, _FIELDS, "")
    if not faults:
        for i, variant in enumerate(body["variants"]):
            faults += _shape_faults(variant, _VARIANT_FIELDS, f"variants.{i}.")
            if not faults:
                faults += _band_faults(variant["decision"], f"variants.{i}.decision")
    if not faults:
        faults = _meaning_faults(body)
    if faults:
        raise ContractViolation(f"{where}: {'; '.join(faults)}; the controller writes it again")
    return DeploymentDocument(
        project=body["project"],
        generation=body["generation"],
        unit_key=body["unit_key"],
        salt=body["salt"],
        champion=body["champion"],
        variants=tuple(
            Variant(v["version"], v["digest"], dict(sorted(v["decision"].items(), key=lambda band: band[1])))
            for v in body["variants"]
        ),
        weights={version: float(weight) for version, weight in body["weights"].items()},
        shadow=tuple(body["shadow"]),
        warm=tuple(body["warm"]),
    )


def _shape_faults(body: Any, fields: Mapping[str, type | tuple[type, ...]], prefix: str) -> list[str]:
    if not isinstance(body, dict):
        return [f"{prefix or 'document'}: must be an object (got {type(body).__name__})"]
    faults = [f"{prefix}{name}: required field is missing" for name in fields if name not in body]
    faults += [f"{prefix}{name}: unknown field" for name in body if name not in fields]
    for name, kind in fields.items():
        if name in body and (not isinstance(body[name], kind) or (kind is int and isinstance(body[name], bool))):
            faults.append(f"{prefix}{name}: wrong type (got {type(body[name]).__name__})")
    return faults


def _band_faults(bands: Mapping[str, Any], where: str) -> list[str]:
    if not all(_is_ratio(value) for value in bands.values()):
        return [f"{where}: every lowest score must be between 0 and 1"]
    return [] if 0.0 in bands.values() else [f"{where}: one decision must start at 0.0"]


def _meaning_faults(body: Mapping[str, Any]) -> list[str]:
    faults = []
    known = [variant["version"] for variant in body["variants"]]
    if len(set(known)) != len(known):
        faults.append("variants: a version appears twice")
    for name in ("weights", "shadow", "warm"):
        faults += [f"{name}: no such variant (got {version!r})" for version in body[name] if version not in known]
    weights = body["weights"]
    if not all(_is_ratio(weight) for weight in weights.values()):
        faults.append("weights: every weight must be between 0 and 1")
    elif weights and not math.isclose(sum(weights.values()), 1.0, abs_tol=_WEIGHT_TOLERANCE):
        faults.append(f"weights: must sum to 1 (got {sum(weights.values()):g})")
    champion = body["champion"]
    if champion is None and weights:
        faults.append("weights: must be empty without a champion")
    if champion is not None and champion not in weights:
        faults.append(f"champion: must have a weight (got {champion!r})")
    if body["generation"] < 0:
        faults.append(f"generation: must not be negative (got {body['generation']})")
    return faults


def _is_ratio(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0
