"""What callers were served in a window, from the prediction log, as counts: bounded memory whatever the traffic.

Each run keeps its counts as ``profile.json``; the first clean days of a version are what later runs compare with
besides training, since counts over equal edges add up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewheel.bundle.reference import Reference
from tidewheel.evaluation.profiles import Profile, merged, profile_of
from tidewheel.monitoring.parquet_window import ParquetFolder

VISIBLE_ROLES = ("champion", "canary", "fallback")  # rows that a caller saw
_COLUMNS = ("role", "digest", "degraded", "features", "score")


@dataclass(frozen=True)
class ServedProfile:
    """Counts over the window (start, end]. Features and score are of the champion's rows that were not degraded."""

    start_us: int
    end_us: int
    digest: str
    n_predictions: int
    n_degraded: int
    features: dict[str, Profile] = field(default_factory=dict)
    score: Profile | None = None
    clean: bool = True  # False behind a broken feed: never a reference
    drifted: bool = False  # a feature or the score had left its reference


def read_served(
    log: ParquetFolder, digest: str, names: Sequence[str], reference: Reference | None, start_us: int, end_us: int
) -> ServedProfile:
    """``names`` are the champion's features in order; without a reference only rows are counted."""
    n_predictions = n_degraded = 0
    profiles: dict[str, list[Profile]] = {name: [] for name in names}
    scores: list[Profile] = []
    for table in log.tables(_COLUMNS, start_us, end_us):
        rows = table.filter(pc.is_in(table["role"], value_set=pa.array(VISIBLE_ROLES)))
        n_predictions += rows.num_rows
        n_degraded += int(pc.sum(rows["degraded"]).as_py() or 0)
        own = champion_rows(rows, digest)
        if reference is None or not own.num_rows:
            continue
        matrix = vectors(own, len(names))
        for index, name in enumerate(names):
            known = reference.feature(name)
            if known is not None:
                profiles[name].append(profile_of(known.edges, matrix[:, index]))
        scores.append(profile_of(reference.score_edges, own["score"].to_numpy().astype(np.float64)))
    features = {name: total for name in names if (total := merged(profiles[name])) is not None}
    return ServedProfile(start_us, end_us, digest, n_predictions, n_degraded, features, merged(scores))


def champion_rows(table: pa.Table, digest: str) -> pa.Table:
    """Rows that this version answered a caller with, not degraded."""
    own = pc.and_(pc.equal(table["digest"], digest), pc.invert(table["degraded"]))
    return table.filter(pc.and_(own, pc.is_in(table["role"], value_set=pa.array(VISIBLE_ROLES))))


def vectors(table: pa.Table, n_features: int) -> NDArray[np.float64]:
    """Logged vectors as float64 [n, n_features]; a vector of another length becomes NaN."""
    lists = table["features"].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    matrix = np.full((len(lists), n_features), np.nan)
    good = lengths == n_features
    flat = pc.list_flatten(lists.filter(pa.array(good))).fill_null(float("nan")).to_numpy(zero_copy_only=False)
    matrix[good] = flat.reshape(-1, n_features) if n_features else matrix[good]
    return matrix


def write_profile(folder: Path, profile: ServedProfile) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".profile.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(asdict(profile)))
    temporary.replace(folder / "profile.json")


def past_profiles(reports: Path, digest: str, before_us: int) -> Iterator[ServedProfile]:
    """Clean profiles of this version whose window ended at or before a time, oldest first."""
    found = []
    for path in reports.glob("*/profile.json"):
        profile = _read_profile(path)
        if profile and profile.digest == digest and profile.clean and profile.end_us <= before_us:
            found.append(profile)
    yield from sorted(found, key=lambda profile: (profile.end_us, profile.start_us))


def _read_profile(path: Path) -> ServedProfile | None:
    try:
        body = json.loads(path.read_bytes())
        features = {name: _profile(one) for name, one in body.pop("features").items()}
        score = body.pop("score")
        return ServedProfile(**body, features=features, score=_profile(score) if score else None)
    except (OSError, ValueError, KeyError, TypeError):  # damaged: as if that run had not been
        return None


def _profile(body: dict[str, object]) -> Profile:
    made = Profile(**body)  # type: ignore[arg-type]
    return Profile(tuple(made.edges), tuple(made.counts), made.n_missing, made.low, made.high)
