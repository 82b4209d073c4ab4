"""The hot path from a request to the model's inputs: one round trip to the store, then NumPy.

Used by the model server. Values are the same whether requests are read singly or together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.clock import SECOND_US
from tidewheel.errors import InputError
from tidewheel.features.declaration import BatchView, FeatureSet, RequestView, StateView, WindowedView
from tidewheel.features.functions import run_function
from tidewheel.features.kernel import make_records, positions
from tidewheel.features.keys import UInt64, entity_keys, hashed_ids
from tidewheel.features.merge import OwnEvents, batch_values, windowed_values
from tidewheel.features.newest_rows import NewestRows
from tidewheel.features.ports import OnlineStore, Wanted
from tidewheel.features.record_events import exact_names

# Up to here Python numbers are cheaper than arrays.
FEW = 128
_ONE = np.zeros(1, dtype=np.int64)
CAUGHT_UP_WITHIN_US = 10 * SECOND_US

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """n requests taken in: ``wanted`` is what must be read for them from the online store."""

    columns: Arrays
    t_us: NDArray[np.int64]
    wanted: Wanted
    # By key set: which of the set's different entities each request has.
    entity_of: Mapping[tuple[tuple[str, str], ...], NDArray[np.int64]]


@dataclass(frozen=True)
class FeatureRows:
    """``values`` [n, k] in the feature set's order, defaults applied, NaN is missing; ``missing`` before defaults.

    ``positions`` [n, states]: how far in its source's log the state was that each row was read from, 0 without one.
    """

    values: NDArray[np.float64]
    missing: NDArray[np.bool_]
    positions: NDArray[np.int64]


class FeatureReader:
    """Reads one feature set from an online store."""

    def __init__(self, features: FeatureSet, store: OnlineStore) -> None:
        self._features = features
        self._store = store
        self._views = [view for view in features.views if not isinstance(view, RequestView)]
        self._functions = [view for view in features.views if isinstance(view, RequestView)]
        places = {name: index for index, name in enumerate(features.names)}
        # A view's features stand side by side in the vector.
        self._places = {
            view.name: slice(places[view.feature_names[0]], places[view.feature_names[-1]] + 1) for view in self._views
        }
        self._place_of = places
        self._defaults = np.array([np.nan if default is None else default for default in features.defaults])
        self._has_defaults = not np.isnan(self._defaults).all()
        self._newest = [NewestRows(view) if isinstance(view, BatchView) else None for view in self._views]
        self._states: dict[str, StateView] = {state.state_id: state for state in features.states}
        self._key_sets = tuple(dict.fromkeys(state.keys for state in features.states))

    def read(self, columns: Arrays, t_us: NDArray[np.int64]) -> FeatureRows:
        """Features of n requests at their times.

        ``columns`` holds entity keys (int64 or text), the event id (text or integers, may be left out) and the
        request's columns (float64, NaN for null; int64; bool; objects for text), each [n]. Raises Unavailable
        where the store fails, InputError where a column is missing, ContractViolation where a request function
        fails.
        """
        prepared = self.prepare(columns, t_us)
        return self.finish(prepared, self._store.read(prepared.wanted) if prepared.wanted else [])

    def prepare(self, columns: Arrays, t_us: NDArray[np.int64]) -> Prepared:
        """The half of ``read`` before the store: which entities' states are wanted. Raises InputError."""
        n = len(t_us)
        entities = {keys: _entities(columns, keys, n) for keys in self._key_sets}
        wanted = [(state, entities[state.keys][0]) for state in self._states.values()]
        return Prepared(columns, t_us, wanted, {keys: codes for keys, (_, codes) in entities.items()})

    def finish(self, prepared: Prepared, found: Sequence[Sequence[bytes | None]]) -> FeatureRows:
        """The half of ``read`` behind the store: ``found`` is what it had, parallel to ``prepared.wanted``."""
        columns, t_us = prepared.columns, prepared.t_us
        n = len(t_us)
        request = self._features.request
        blobs = dict(zip(self._states, found, strict=True))
        values = np.full((n, len(self._features.names)), np.nan)
        included = np.zeros((n, len(self._views)), dtype=np.int64)
        times = t_us.tolist() if n <= FEW else []
        hashed: UInt64 | None = None
        for number, view in enumerate(self._views):
            entity_of = prepared.entity_of[view.state.keys]
            mine = blobs[view.state.state_id]
            newest = self._newest[number]
            if n <= FEW:
                codes = entity_of.tolist()
                included[:, number] = [_position(mine[code]) for code in codes]
                if newest is not None:
                    values[:, self._places[view.name]] = newest.rows(mine, codes, times)
                    continue
            else:
                included[:, number] = positions(mine)[entity_of]
            if isinstance(view, BatchView):
                got = batch_values(view, mine, entity_of, t_us)
            else:
                if hashed is None and request.event_id in columns:
                    hashed = hashed_ids(columns[request.event_id])
                got = windowed_values(view, mine, entity_of, t_us, self._own(view, columns, t_us, hashed))
            values[:, self._places[view.name]] = got
        missing = np.isnan(values)
        if self._has_defaults:
            np.copyto(values, self._defaults, where=missing)
        for function in self._functions:
            arguments = {name: self._argument(name, prepared, values) for name in function.arguments}
            place = self._place_of[function.name]
            values[:, place] = run_function(function.name, function.function, arguments, n)
            missing[:, place] = np.isnan(values[:, place])
        return FeatureRows(values, missing, included)

    def stale_views(self, now_us: int) -> tuple[str, ...]:
        """Views whose source lags by more than their freshness; a caught-up source is fresh however quiet it is."""
        ages_us = self.view_ages_us(now_us)
        return tuple(
            view.name
            for view in self._views
            if view.freshness_us is not None and ages_us.get(view.name, view.freshness_us + 1) > view.freshness_us
        )

    def view_ages_us(self, now_us: int) -> dict[str, int]:
        """How long ago each view's slowest partition was at its log's end; without a view whose state is not there."""
        told = self._store.progress(list(self._states.values()))
        partitions = {view.name: told.get(view.state.state_id, {}).values() for view in self._views}
        return {
            name: max(0, now_us - min(one.caught_up_at_us for one in those))
            for name, those in partitions.items()
            if those
        }

    def caught_up(self) -> bool:
        """Whether every state exists and has taken in its source's history, as of the worker's last word."""
        told = self._store.progress(list(self._states.values()))
        return all(
            (partitions := told.get(state_id)) is not None
            and all(
                one.position >= one.end or one.caught_up_at_us >= one.heartbeat_us - CAUGHT_UP_WITHIN_US
                for one in partitions.values()
            )
            for state_id in self._states
        )

    def _own(
        self, view: WindowedView, columns: Arrays, t_us: NDArray[np.int64], hashed: UInt64 | None
    ) -> OwnEvents | None:
        if view.own_event == "as any":
            return None
        return own_events(view, self._features, columns, t_us, hashed)

    def _argument(self, name: str, prepared: Prepared, values: NDArray[np.float64]) -> NDArray[Any]:
        if name in prepared.columns:
            return prepared.columns[name]
        if name == self._features.request.event_time:
            return prepared.t_us.view("M8[us]")
        if name in self._place_of:
            return values[:, self._place_of[name]]
        raise InputError(f"request: {name!r} is missing")


def _position(blob: bytes | None) -> int:
    return int.from_bytes(blob[:8], "little") if blob else 0


def _entities(columns: Arrays, keys: tuple[tuple[str, str], ...], n: int) -> tuple[list[bytes], NDArray[np.int64]]:
    """Different entity keys, and which of them each request has."""
    for column, _ in keys:
        if column not in columns:
            raise InputError(f"request: {column!r} is missing")
    given = [columns[column] for column, _ in keys]
    if n == 1:
        return entity_keys(keys, given), _ONE
    if len(keys) == 1 and keys[0][1] == "int64":
        if n <= FEW and given[0].dtype.kind == "i":
            seen: dict[int, int] = {}
            codes_of = [seen.setdefault(value, len(seen)) for value in given[0].tolist()]
            return entity_keys(keys, [np.array(list(seen), dtype=np.int64)]), np.array(codes_of, dtype=np.int64)
        unique, codes = np.unique(given[0], return_inverse=True)
        return entity_keys(keys, [unique]), codes.astype(np.int64)
    index: dict[bytes, int] = {}
    codes = np.array([index.setdefault(key, len(index)) for key in entity_keys(keys, given)], dtype=np.int64)
    return list(index), codes


def own_events(
    view: WindowedView,
    features: FeatureSet,
    columns: Arrays,
    t_us: NDArray[np.int64],
    hashed: UInt64 | None = None,
) -> OwnEvents:
    """The events being asked about; ``hashed`` are their ids' hashes where those are known. A label kept in the
    request source is not known yet: null."""
    n = len(t_us)
    ids = columns.get(features.request.event_id)
    wanted = [column for column, _ in view.state.columns]
    wanted += [column for one in view.state.filters for column, _ in one]
    absent = [name for name in wanted if name not in columns and name in features.request.columns]
    if absent:
        raise InputError(f"request: {', '.join(repr(name) for name in absent)} missing")
    known = np.zeros(n, dtype=bool) if ids is None else _has_id(ids)
    given: dict[str, NDArray[Any]] = {}
    nulls: dict[str, NDArray[Any]] = {}
    for name in wanted:
        given[name] = columns[name] if name in features.request.columns else np.full(n, np.nan)
        exact, null = exact_names(name)
        if exact in columns:
            given[name], nulls[name] = columns[exact], columns[null]
    records = make_records(view.state, t_us, np.zeros(n, dtype="S1") if ids is None else ids, given, nulls, hashed)
    return OwnEvents(records, known)


def _has_id(ids: NDArray[Any]) -> NDArray[np.bool_]:
    if ids.dtype.kind == "O":
        return np.array([one is not None and one != "" for one in ids], dtype=bool)
    return np.ones(len(ids), dtype=bool) if ids.dtype.kind in "iu" else np.asarray(ids != ids.dtype.type(""))
