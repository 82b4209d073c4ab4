"""What a server serves at one moment: a document and the loaded versions it names. Replaced whole, never changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidewheel.deployment.document import DeploymentDocument
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.reader import FeatureReader
from tidewheel.serving.columns import Accepted, RequestColumns
from tidewheel.serving.decide import DecisionBands
from tidewheel.serving.ladder import Ladder
from tidewheel.serving.last_good import LastGood
from tidewheel.spec.project import ModelProject


class Scorer(Protocol):
    """The model: float32 [n, k] to float64 [n]."""

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]: ...


@dataclass
class Freshness:
    """What the background watch last saw of a version's features; the one part of a version that changes."""

    ready: bool = False
    stale: tuple[str, ...] = ()  # reasons, as replies carry them
    ages_us: Mapping[str, int] = field(default_factory=dict)  # how far the source of each view lagged
    age_us: int = 0  # of the view that lagged most


@dataclass(frozen=True)
class Cost:
    """What a model costs, measured when it was loaded: microseconds of a call, and of each further row."""

    call_us: float = 0.0
    row_us: float = 0.0

    def of(self, n_rows: int) -> float:
        return self.call_us + n_rows * self.row_us


@dataclass(frozen=True, eq=False)
class LoadedVersion:
    """One verified, golden-checked version. ``reader`` makes vectors of what a fetching store found; the other two read
    by themselves, each for a thread of its own: ``shadow_reader`` scores copies, ``watch_reader`` looks at freshness.
    ``memory`` is there where the last good values are to be remembered."""

    version: str
    digest: str
    project: ModelProject
    features: FeatureSet
    columns: RequestColumns
    scorer: Scorer
    bands: DecisionBands
    reader: FeatureReader
    shadow_reader: FeatureReader
    watch_reader: FeatureReader
    memory: LastGood | None
    ladder: Ladder
    cost: Cost = Cost()
    freshness: Freshness = field(default_factory=Freshness)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A document with every version that it routes to loaded. ``columns`` are those of all loaded versions."""

    document: DeploymentDocument
    versions: Mapping[str, LoadedVersion]
    columns: RequestColumns

    @property
    def champion(self) -> LoadedVersion:
        assert self.document.champion is not None
        return self.versions[self.document.champion]

    @cached_property
    def accepted(self) -> Mapping[str, Accepted]:
        """What a caller may send, by the version that is asked."""
        return {name: Accepted(self.columns, name, version.features.names) for name, version in self.versions.items()}

    def role(self, version: str) -> str:
        """Role of a row that a caller saw."""
        return "champion" if version == self.document.champion else "canary"


def take_snapshot(document: DeploymentDocument, loaded: Iterable[LoadedVersion]) -> Snapshot:
    """Needs every version with a weight among ``loaded``; others may come later, in the next snapshot."""
    versions = {version.version: version for version in loaded}
    champion = versions[document.champion or ""]
    others = [versions[name] for name in (*document.weights, *document.shadow) if name in versions]
    return Snapshot(document, versions, merged_columns(champion.columns, [other.columns for other in others], document))


def request_columns(project: ModelProject, features: FeatureSet) -> RequestColumns:
    """What a caller of one version may send and must send."""
    schema = features.request
    return RequestColumns(
        dict(schema.keys), schema.event_time, schema.event_id, dict(schema.columns), features.key_columns
    )


def merged_columns(
    first: RequestColumns, others: Iterable[RequestColumns], document: DeploymentDocument
) -> RequestColumns:
    """Columns of all versions that may answer; where two declare one column differently the champion's type holds."""
    keys, columns = dict(first.keys), dict(first.columns)
    required = dict.fromkeys(first.required)
    for other in others:
        keys = {**other.keys, **keys}
        columns = {**other.columns, **columns}
        required |= dict.fromkeys(key for key in other.required if key not in columns)
    if document.unit_key in keys:
        required[document.unit_key] = None
    return RequestColumns(keys, first.event_time, first.event_id, columns, tuple(required))
