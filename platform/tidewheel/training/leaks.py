"""Does a training set know the future? A check that plants it and looks whether any value moves.

Two ways lead there. A feature may read the label of an event that is not ``label.delay`` old: the declaration says so.
Or an engine or a source may let in what happened after a row's time: so events are planted right behind the rows, and
labels that are not mature yet, and no value may change.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidewheel.errors import ContractViolation
from tidewheel.features.declaration import FeatureSet, Filter, RequestView, WindowedView
from tidewheel.features.events import EVENT_TIME_TYPE, OFFSET_COLUMN, normal_schema
from tidewheel.features.lake import part_name, source_files, write_parquet
from tidewheel.spec.project import ModelProject
from tidewheel.training.dataset import FeatureEngine

_PLANTED_OFFSET = 2**60
_SAMPLE = 200


def refuse_leaks(
    engine: FeatureEngine, project: ModelProject, features: FeatureSet, sources: Mapping[str, Path], rows: pa.Table
) -> None:
    """Raises ContractViolation that names the features that know what they must not know yet."""
    young = reads_immature_labels(project, features)
    if young:
        raise ContractViolation(
            f"{', '.join(young)}: reads {project.label.column!r} before it is known; declare delay='label'"
        )
    with tempfile.TemporaryDirectory(prefix="tidewheel-leaks-") as folder:
        moved = features_that_see_the_future(engine, project, features, sources, sample_of(rows, project), Path(folder))
    if moved:
        raise ContractViolation(
            f"{', '.join(moved)}: moves when something happens after the row; no training set was written"
        )


def reads_immature_labels(project: ModelProject, features: FeatureSet) -> tuple[str, ...]:
    """Features that read the label column of events younger than the label's delay."""
    label = project.label
    found: list[str] = []
    for view in features.views:
        if isinstance(view, RequestView) or view.source != label.source:
            continue
        if not isinstance(view, WindowedView):
            found += [name for name in view.columns if name == label.column]
        elif view.delay_us < label.delay_us:
            for feature in view.features:
                filters = [
                    view.state.filters[i] for i in (feature.filter_index, feature.condition_index) if i is not None
                ]
                if label.column in (feature.column, *(column for one in filters for column, _ in one)):
                    found.append(feature.name)
    return tuple(found)


def sample_of(rows: pa.Table, project: ModelProject) -> pa.Table:
    """Up to 200 rows spread over time, no two about the same entity."""
    keys = [key for key in project.entity_keys() if key in rows.column_names]
    seen: dict[str, set[Any]] = {key: set() for key in keys}
    chosen: list[int] = []
    places = np.unique(np.linspace(0, rows.num_rows - 1, min(rows.num_rows, 20 * _SAMPLE)).astype(int))
    candidates = rows.select(keys).take(pa.array(places)).to_pylist()
    for place, row in sorted(
        zip(places.tolist(), candidates, strict=True), key=lambda pair: pair[0] * 2654435761 % 2**32
    ):
        if len(chosen) < _SAMPLE and all(row[key] not in seen[key] for key in keys):
            chosen.append(place)
            for key in keys:
                seen[key].add(row[key])
    return rows.take(pa.array(sorted(chosen)))


def features_that_see_the_future(
    engine: FeatureEngine,
    project: ModelProject,
    features: FeatureSet,
    sources: Mapping[str, Path],
    rows: pa.Table,
    scratch: Path,
) -> tuple[str, ...]:
    """Names of features whose value for a row moves when its future is planted. ``rows``: see ``sample_of``."""
    before = engine.compute(features, project, rows, sources)
    read = dict.fromkeys(view.source for view in features.views if not isinstance(view, RequestView))
    planted = {name: _with_future(name, sources[name], project, features, rows, scratch / name) for name in read}
    after = engine.compute(features, project, rows, {**sources, **planted})
    return tuple(name for name in features.names if not _same(before.column(name), after.column(name)))


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    left, right = (np.asarray(column.cast(pa.float64(), safe=False).to_numpy()) for column in (one, other))
    return bool(np.allclose(left, right, rtol=1e-9, atol=1e-12, equal_nan=True))


def _with_future(
    name: str, path: Path, project: ModelProject, features: FeatureSet, rows: pa.Table, folder: Path
) -> Path:
    """A folder with the source's files and, in one more, what happens after the rows."""
    folder.mkdir(parents=True)
    for file in source_files(path):
        (folder / file.name).symlink_to(file.resolve())
    filters = {one for state in features.states if state.source == name for one in state.filters}
    events = pa.concat_tables(list(_future(name, project, features, rows, sorted(filters, key=str))))
    offsets = _PLANTED_OFFSET + np.arange(events.num_rows)
    events = events.append_column(OFFSET_COLUMN, pa.array(offsets))
    write_parquet(folder / part_name(_PLANTED_OFFSET, _PLANTED_OFFSET + events.num_rows), events)
    return folder


def _future(
    name: str, project: ModelProject, features: FeatureSet, rows: pa.Table, filters: list[Filter]
) -> Iterator[pa.Table]:
    """Events about each row's entities, a microsecond after what the row may know: one that meets each filter, and
    two with other values."""
    source, label = project.sources[name], project.label
    keys = tuple(key for key in features.keys_of(name) if key in rows.column_names)
    schema = normal_schema(project, name, keys)
    asked_us = rows.column(project.request_source.event_time).cast(pa.int64())
    behind = [1]
    if name == label.source and name != project.request:
        behind.append(1 - label.delay_us)  # a label that is not mature yet
    variants: list[dict[str, Any]] = [{}, {label.column: 0}, *(dict(one) for one in filters)]
    for number, values in enumerate(variants):
        for shift_us in behind:
            columns: dict[str, pa.Array] = {key: rows.column(key).combine_chunks() for key in keys}
            times = pc.add(asked_us, shift_us).combine_chunks()
            columns[source.event_time] = times.cast(pa.timestamp("us")).cast(EVENT_TIME_TYPE)
            if source.event_id is not None:
                ids = [f"planted-{number}-{shift_us}-{row}" for row in range(rows.num_rows)]
                columns[source.event_id] = pa.array(ids, pa.string())
            for column in source.columns:
                kind = schema.field(column).type
                columns[column] = pa.array([values.get(column, _odd(kind))] * rows.num_rows).cast(kind)
            yield pa.table([columns[field.name] for field in schema], schema=schema)


def _odd(kind: pa.DataType) -> Any:
    """A value that no sum, mean, extreme or set would miss."""
    if pa.types.is_string(kind):
        return "planted"
    return True if pa.types.is_boolean(kind) else 8_388_608
