"""The reference of a version: how its inputs and scores looked at training, as counts.

Written at training, read by the monitor. Only counts and edges, so it is small and holds no row of anybody's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidewheel.bundle.files import REFERENCE, read_json, write_json
from tidewheel.errors import ContractViolation


@dataclass(frozen=True)
class FeatureReference:
    """``counts`` has one more entry than ``edges`` (inner decile edges, distinct); missing values are counted apart."""

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    n_missing: int

    @property
    def n_rows(self) -> int:
        return sum(self.counts) + self.n_missing

    @property
    def missing_ratio(self) -> float:
        return self.n_missing / self.n_rows if self.n_rows else 0.0


@dataclass(frozen=True)
class Reference:
    """Features over the training window; scores and labels over the holdout, which the model has not seen.

    ``per_day`` is the mean number of training rows a day. Times are event time, microseconds UTC.
    """

    start_us: int
    end_us: int
    n_rows: int
    per_day: float
    label_ratio: float
    features: tuple[FeatureReference, ...]
    score_edges: tuple[float, ...]
    score_counts: tuple[int, ...]

    def feature(self, name: str) -> FeatureReference | None:
        return next((feature for feature in self.features if feature.name == name), None)


def write_reference(folder: Path, reference: Reference) -> None:
    write_json(folder / REFERENCE, asdict(reference))


def read_reference(folder: Path) -> Reference:
    """Raises ContractViolation."""
    return reference_from_json(read_json(folder / REFERENCE), str(folder / REFERENCE))


def reference_from_json(body: Mapping[str, Any], where: str = REFERENCE) -> Reference:
    """Raises ContractViolation where a field is missing or counts and edges do not fit."""
    try:
        features = tuple(
            FeatureReference(
                str(item["name"]), tuple(item["edges"]), tuple(int(n) for n in item["counts"]), int(item["n_missing"])
            )
            for item in body["features"]
        )
        made = Reference(
            start_us=int(body["start_us"]),
            end_us=int(body["end_us"]),
            n_rows=int(body["n_rows"]),
            per_day=float(body["per_day"]),
            label_ratio=float(body["label_ratio"]),
            features=features,
            score_edges=tuple(body["score_edges"]),
            score_counts=tuple(int(n) for n in body["score_counts"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ContractViolation(f"{where}: cannot be read: {error!r}") from error
    pairs = [(f.name, f.edges, f.counts) for f in made.features] + [("scores", made.score_edges, made.score_counts)]
    bad = [name for name, edges, counts in pairs if len(counts) != len(edges) + 1]
    if bad:
        raise ContractViolation(f"{where}: counts and edges do not fit for {', '.join(bad)}")
    return made
