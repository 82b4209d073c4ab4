"""Golden requests: vectors with the scores they must give, replayed before a version may serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidewheel.bundle.files import GOLDEN, read_json, write_json
from tidewheel.errors import ContractViolation
from tidewheel.findings import Finding

TOLERANCE = 1e-5
Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class GoldenRequests:
    """``vectors`` float64 [m, k] in the model's order, NaN is missing; ``scores`` float64 [m] by model.ubj."""

    vectors: NDArray[np.float64]
    scores: NDArray[np.float64]
    tolerance: float = TOLERANCE


def write_golden(folder: Path, golden: GoldenRequests) -> None:
    write_json(folder / GOLDEN, {"vectors": golden.vectors, "scores": golden.scores, "tolerance": golden.tolerance})


def read_golden(folder: Path, n_features: int) -> GoldenRequests:
    """Raises ContractViolation where shapes, sizes or numbers are wrong."""
    path = folder / GOLDEN
    body = read_json(path)
    try:
        vectors = np.array(body["vectors"], dtype=np.float64)  # null becomes NaN
        scores = np.array(body["scores"], dtype=np.float64)
        tolerance = float(body["tolerance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ContractViolation(f"{path}: cannot be read: {error!r}") from error
    if vectors.ndim != 2 or vectors.shape[1] != n_features or scores.shape != (len(vectors),) or not len(scores):
        raise ContractViolation(
            f"{path}: must hold m vectors of {n_features} and m scores (got {vectors.shape} and {scores.shape})"
        )
    if not np.isfinite(scores).all() or not 0.0 < tolerance <= 0.01:
        raise ContractViolation(f"{path}: scores must be finite and the tolerance in (0, 0.01] (got {tolerance})")
    return GoldenRequests(vectors, scores, tolerance)


def check_golden(golden: GoldenRequests, score: Score) -> Finding | None:
    """Replay the vectors; a GoldenMismatch where any score is off by more than the tolerance or is not a number."""
    got = score(golden.vectors)
    off = np.abs(got - golden.scores)
    wrong = ~(off <= golden.tolerance)  # a NaN score is wrong too
    if not wrong.any():
        return None
    first = int(np.flatnonzero(wrong)[0])
    return Finding(
        "GoldenMismatch",
        f"{int(wrong.sum())} of {len(off)} golden requests differ by more than {golden.tolerance:g}; "
        f"request {first} gave {got[first]:.6f}, recorded is {golden.scores[first]:.6f}",
        "critical",
        value=float(off[first]),
        limit=golden.tolerance,
    )
