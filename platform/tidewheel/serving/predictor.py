"""Requests to answers: assign, read features, score, decide; the ladder where one of them fails.

A batch is begun (who answers which row, and what must be read), the store is read by whoever has the batch, and the
batch is finished with what was found. Neither half waits, or knows of HTTP or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.deployment.assignment import assign_all
from tidewheel.errors import TidewheelError, Unavailable
from tidewheel.features.ports import Fetched
from tidewheel.features.reader import FeatureRows, Prepared
from tidewheel.features.vector import model_input
from tidewheel.serving.answered import VECTOR_ROLE, Answered, Group, failed_requests
from tidewheel.serving.batch import Batch, Columns
from tidewheel.serving.degraded import FEATURES_FAILED, FEATURES_UNAVAILABLE, MODEL_FAILED
from tidewheel.serving.snapshot import LoadedVersion

NO_FALLBACK = "the project declares no serving.fallback"


@dataclass(slots=True, eq=False)
class Asked:
    """The rows of a batch that one version answers. ``prepared`` is the error where they could not be taken in."""

    version: LoadedVersion
    rows: Sequence[int]
    columns: Columns
    t_us: NDArray[np.int64]
    prepared: Prepared | Exception


def begin(batch: Batch) -> list[Asked]:
    """Who answers which rows; nothing where callers sent vectors."""
    if batch.vectors is not None:
        return []
    asked = []
    for version, rows in _assigned(batch):
        every = len(rows) == batch.n_rows
        columns = batch.columns if every else {name: values[rows] for name, values in batch.columns.items()}
        t_us = batch.t_us if every else batch.t_us[rows]
        asked.append(Asked(version, rows, columns, t_us, _prepared(version, columns, t_us)))
    return asked


def wanted_of(asked: Sequence[Asked]) -> list[Any]:
    """What must be read for all of them, in one round trip (``Wanted``)."""
    if len(asked) == 1:
        return list(asked[0].prepared.wanted) if isinstance(asked[0].prepared, Prepared) else []
    return list(chain.from_iterable(one.prepared.wanted for one in asked if isinstance(one.prepared, Prepared)))


def finish(batch: Batch, asked: Sequence[Asked], found: Fetched | Unavailable, late: str | None = None) -> Answered:
    """Score every row. ``found`` is what the store had of ``wanted_of(asked)``; ``late`` a reason to do without it."""
    if batch.vectors is not None:
        return _finish_vectors(batch, batch.vectors)
    answered = _Answers()
    start = 0
    for one in asked:
        mine: Fetched | Unavailable = found
        if isinstance(found, Fetched) and len(asked) > 1 and isinstance(one.prepared, Prepared):
            following = start + len(one.prepared.wanted)
            refused = {(s - start, k): why for (s, k), why in found.refused.items() if start <= s < following}
            mine, start = Fetched(found.blobs[start:following], refused), following
        _answer_by(answered, batch, one, mine, late)
    return answered.of(batch)


@dataclass(slots=True, eq=False)
class _Answers:
    """Groups and failed rows, as they come."""

    groups: list[Group] = field(default_factory=list)
    failed_rows: dict[int, TidewheelError] = field(default_factory=dict)

    def add(self, asked: Asked, places: Sequence[int], make: Callable[[], list[Group]]) -> None:
        """What ``make`` gives for these rows; where it cannot, they alone fail."""
        try:
            self.groups += make()
        except TidewheelError as error:
            self.failed_rows |= {asked.rows[place]: error for place in places}

    def of(self, batch: Batch) -> Answered:
        return Answered(batch, self.groups, failed_requests(batch, self.failed_rows))


def _assigned(batch: Batch) -> list[tuple[LoadedVersion, Sequence[int]]]:
    """Versions and the rows that each answers."""
    snapshot = batch.snapshot
    weights = snapshot.document.weights
    pinned = any(request.pinned for request in batch.requests)
    if len(weights) == 1 and not pinned:
        return [(snapshot.champion, range(batch.n_rows))]
    assigned = assign_all(batch.units, snapshot.document.salt, weights)
    if pinned:
        row = 0
        for request in batch.requests:
            if request.pinned:
                assigned[row : row + request.n_rows] = [request.pinned] * request.n_rows
            row += request.n_rows
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(assigned):
        groups.setdefault(name, []).append(row)
    return [(snapshot.versions[name], rows) for name, rows in groups.items()]


def _prepared(version: LoadedVersion, columns: Columns, t_us: NDArray[np.int64]) -> Prepared | Exception:
    try:
        return version.reader.prepare(columns, t_us)
    except Exception as error:  # a request has a ladder whatever its columns do to us
        return error


def _answer_by(answers: _Answers, batch: Batch, asked: Asked, found: Fetched | Unavailable, late: str | None) -> None:
    """Answer one version's rows: those that were read, and those that were not."""
    version, every = asked.version, range(len(asked.rows))
    if late is not None or isinstance(found, Unavailable) or not isinstance(asked.prepared, Prepared):
        cause = late or (FEATURES_UNAVAILABLE if isinstance(found, Unavailable) else FEATURES_FAILED)
        answers.add(asked, every, lambda: [_by_ladder(asked, every, cause)])
        return
    lost = sorted(_refused_rows(asked.prepared, found)) if found.refused else []
    if not lost:
        try:
            read = version.reader.finish(asked.prepared, found.blobs)
        except Exception:  # one row's state or value may be to blame, and takes no other with it
            pass
        else:
            answers.add(asked, every, lambda: _scored(batch, asked, every, read))
            return
    blobs = _by_key(asked.prepared, found)
    if lost:
        answers.add(asked, lost, lambda: [_by_ladder(asked, lost, FEATURES_UNAVAILABLE)])
    for place in every:
        if place not in lost:
            answers.add(asked, [place], lambda place=place: _alone(batch, asked, place, blobs))  # type: ignore[misc]


def _refused_rows(prepared: Prepared, found: Fetched) -> set[int]:
    lost: set[int] = set()
    for state_index, key_index in found.refused:
        state, _ = prepared.wanted[state_index]
        lost.update(np.flatnonzero(prepared.entity_of[state.keys] == key_index).tolist())
    return lost


def _by_key(prepared: Prepared, found: Fetched) -> dict[tuple[str, bytes], bytes | None]:
    return {
        (state.state_id, key): blob
        for (state, keys), mine in zip(prepared.wanted, found.blobs, strict=True)
        for key, blob in zip(keys, mine, strict=True)
    }


def _alone(batch: Batch, asked: Asked, row: int, blobs: Mapping[tuple[str, bytes], bytes | None]) -> list[Group]:
    columns = {name: values[row : row + 1] for name, values in asked.columns.items()}
    try:
        prepared = asked.version.reader.prepare(columns, asked.t_us[row : row + 1])
        mine = [[blobs[state.state_id, key] for key in keys] for state, keys in prepared.wanted]
        read = asked.version.reader.finish(prepared, mine)
    except Exception:  # this is the row
        return [_by_ladder(asked, [row], FEATURES_FAILED)]
    return _scored(batch, asked, [row], read)


def _scored(batch: Batch, asked: Asked, places: Sequence[int], read: FeatureRows) -> list[Group]:
    version = asked.version
    role, stale = batch.snapshot.role(version.version), version.freshness.stale
    rows = asked.rows if len(places) == len(asked.rows) else [asked.rows[place] for place in places]
    return _decided(version, rows, read.values, [stale] * len(rows), role, read.positions, read.missing)


def _decided(
    version: LoadedVersion,
    rows: Sequence[int],
    values: NDArray[np.float64],
    reasons: Sequence[tuple[str, ...]],
    role: str,
    positions: NDArray[np.int64] | None = None,
    missing: NDArray[np.bool_] | None = None,
) -> list[Group]:
    """Scores and decisions of vectors; rows that the model fails on go to the rungs without one."""
    scores = safe_scores(version, values)
    listed: list[float | None] = scores.tolist()
    if all(map(isfinite, listed)):  # type: ignore[arg-type]  # nothing is None here
        decisions = version.bands.decide(scores)
        return [Group(version, rows, version.version, role, listed, decisions, reasons, values, positions, missing)]
    finite = np.isfinite(scores)
    if version.ladder.fallback is None:
        raise Unavailable(f"the model cannot score and {NO_FALLBACK}")
    groups = []
    good, bad = np.flatnonzero(finite).tolist(), np.flatnonzero(~finite).tolist()
    if good:
        decisions = version.bands.decide(scores[good])
        groups.append(
            Group(
                version, [rows[at] for at in good], version.version, role, scores[good].tolist(), decisions,
                [reasons[at] for at in good], values[good], None if positions is None else positions[good],
                None if missing is None else missing[good],
            )
        )  # fmt: skip
    without = role if role == VECTOR_ROLE else "fallback"
    causes = [(*reasons[at], MODEL_FAILED) for at in bad]
    groups.append(_without_model(version, [rows[at] for at in bad], values[bad], causes, without))
    return groups


def _by_ladder(asked: Asked, places: Sequence[int], cause: str) -> Group:
    """The rungs, for rows without fresh features."""
    version = asked.version
    if version.ladder.fallback is None:
        raise Unavailable(f"features cannot be read in time and {NO_FALLBACK}")
    every = len(places) == len(asked.rows)
    rows = asked.rows if every else [asked.rows[place] for place in places]
    columns = asked.columns if every else {name: values[list(places)] for name, values in asked.columns.items()}
    t_us = asked.t_us if every else asked.t_us[list(places)]
    try:
        rung = version.ladder.vectors(columns, t_us)
    except Exception:  # the project's own function may be what fails
        return _without_model(version, rows, None, [(cause,)] * len(rows), "fallback")
    scores = safe_scores(version, rung.values)
    if not np.isfinite(scores).all():
        causes = [(cause, reason, MODEL_FAILED) for reason in rung.reasons]
        return _without_model(version, rows, rung.values, causes, "fallback")
    reasons = [(cause, reason) for reason in rung.reasons]
    decisions = version.bands.decide(scores)
    return Group(version, rows, version.version, "fallback", scores.tolist(), decisions, reasons, rung.values)


def without_model(batch: Batch, asked: Sequence[Asked], cause: str) -> Answered:
    """Answers that cost next to nothing, for when there is no time left for a model. Raises nothing: rows of versions
    without a fallback fail."""
    answers = _Answers()
    for one in asked:
        answers.add(one, range(len(one.rows)), lambda one=one: [_unscored(one, cause)])  # type: ignore[misc]
    return answers.of(batch)


def _unscored(asked: Asked, cause: str) -> Group:
    if asked.version.ladder.fallback is None:
        raise Unavailable(f"there was no time to score and {NO_FALLBACK}")
    try:
        values = asked.version.ladder.vectors(asked.columns, asked.t_us).values
    except Exception:  # the static decision needs no values
        values = None
    return _without_model(asked.version, asked.rows, values, [(cause,)] * len(asked.rows), "fallback")


def _without_model(
    version: LoadedVersion,
    rows: Sequence[int],
    values: NDArray[np.float64] | None,
    causes: Sequence[tuple[str, ...]],
    role: str,
) -> Group:
    scores: list[float | None] = []
    decisions, reasons = [], []
    for at in range(len(rows)):
        score, decision, reason = version.ladder.without_model(values, at)
        if decision is None:
            decision = version.bands.decide(np.array([score]))[0]
        scores.append(score)
        decisions.append(decision)
        reasons.append((*causes[at], reason))
    return Group(version, rows, "", role, scores, decisions, reasons, values)


def _finish_vectors(batch: Batch, sent: NDArray[np.float64]) -> Answered:
    """Score the vectors that callers sent; what they left out is the feature's default, as if it had been read."""
    version = batch.snapshot.versions[batch.requests[0].pinned or ""]
    defaults = np.array([np.nan if default is None else default for default in version.features.defaults])
    values = np.where(np.isnan(sent), defaults, sent)
    rows = range(len(values))
    try:
        return Answered(batch, _decided(version, rows, values, [()] * len(values), VECTOR_ROLE))
    except TidewheelError as error:
        return Answered(batch, [], failed_requests(batch, dict.fromkeys(rows, error)))


def safe_scores(version: LoadedVersion, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of all rows, NaN where the model fails."""
    try:
        return np.asarray(version.scorer.score(model_input(values)), dtype=np.float64)
    except Exception:  # the runtime raises classes of its own; the ladder goes on
        return np.full(len(values), np.nan)
