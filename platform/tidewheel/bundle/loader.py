"""Loads a bundle: digest and signature first, then the plan, the model and its golden requests.

Called by the model server and the controller. It runs no code of the project; the caller loads features.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidewheel.bundle.files import MODEL_ONNX, require_files
from tidewheel.bundle.golden import GoldenRequests, check_golden, read_golden
from tidewheel.bundle.plan import ServingPlan, read_plan
from tidewheel.bundle.scorer import OnnxScorer
from tidewheel.bundle.signature import TrustedKeys, verify_trusted
from tidewheel.errors import ContractViolation


@dataclass(frozen=True, eq=False)
class Bundle:
    """A version that was verified and gave its golden scores. project.yaml and features.py are in ``folder``."""

    folder: Path
    digest: str
    plan: ServingPlan
    golden: GoldenRequests
    scorer: OnnxScorer


def load_bundle(folder: Path, digest: str, trusted: TrustedKeys) -> Bundle:
    """Raises ContractViolation, naming what is wrong, before anything of an unverified file was parsed."""
    entries = verify_trusted(folder, digest, trusted)
    require_files(entries, folder)
    plan = read_plan(folder)
    golden = read_golden(folder, len(plan.features))
    scorer = OnnxScorer(folder / MODEL_ONNX, len(plan.features))

    def score(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        return scorer.score(vectors.astype(np.float32))

    if (finding := check_golden(golden, score)) is not None:
        raise ContractViolation(f"{folder}: {finding.reason}: {finding.message}")
    return Bundle(folder, digest, plan, golden, scorer)
