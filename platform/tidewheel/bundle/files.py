"""Names of the files in a bundle, and JSON as bundles write it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tidewheel.errors import ContractViolation

MODEL_UBJ = "model.ubj"  # the truth: XGBoost's own format
MODEL_ONNX = "model.onnx"  # its twin, which serves
SERVING_PLAN = "serving_plan.json"
FEATURES = "features.py"  # as it was at training
PROJECT = "project.yaml"
GOLDEN = "golden.json"
REFERENCE = "reference.json"

REQUIRED = (MODEL_UBJ, MODEL_ONNX, SERVING_PLAN, FEATURES, PROJECT, GOLDEN, REFERENCE)


def require_files(names: Iterable[str], where: Path) -> None:
    """Raises ContractViolation where a file of a model bundle is not among ``names``."""
    present = set(names)
    if missing := [name for name in REQUIRED if name not in present]:
        raise ContractViolation(f"{where}: not a model bundle: {', '.join(missing)} missing")


def write_json(path: Path, body: Any) -> None:
    """Sorted and indented, so that two bundles can be compared by eye; NaN is written as null."""
    path.write_text(json.dumps(_plain(body), indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object. Raises ContractViolation."""
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ContractViolation(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(body, dict):
        raise ContractViolation(f"{path}: must be a JSON object (got {type(body).__name__})")
    return body


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
