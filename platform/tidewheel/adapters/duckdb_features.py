"""Features and training rows over files, by DuckDB: out of core, bounded memory.

It runs the text that ``features.sql`` makes and knows no aggregation. Raw files are normalised into a temporary
folder first; parts that the stream worker wrote are read as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from tidewheel.errors import InputError, Unavailable
from tidewheel.features.declaration import FeatureSet, RequestView
from tidewheel.features.events import OFFSET_COLUMN, normal_schema
from tidewheel.features.lake import is_normalised
from tidewheel.features.rows import (
    TrainingRows,
    apply_defaults,
    normalised_rows,
    request_arrays,
    run_request_views,
    with_features,
)
from tidewheel.features.sources import normalised_batches, source_files, write_normalised
from tidewheel.features.sql import quoted, source_relation, training_sql, unmatched_sql, view_sql
from tidewheel.spec.project import ModelProject

Report = Callable[[int, int], None]


class DuckDbFeatures:
    """The engine for one machine."""

    def __init__(self, memory_limit: str = "2GB", threads: int | None = None) -> None:
        self._memory_limit = memory_limit
        self._threads = threads

    def compute(
        self,
        features: FeatureSet,
        project: ModelProject,
        rows: pa.Table,
        sources: Mapping[str, Path],
        progress: Report | None = None,
    ) -> pa.Table:
        """``rows``, their order and columns, and one column per feature as of each row's event time.

        ``progress(done, total)`` counts views. Raises InputError where a row or a file cannot be used.
        """
        normal = normalised_rows(rows, project, features)
        views = [view for view in features.views if not isinstance(view, RequestView)]
        found: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        with self._connection() as (connection, scratch):
            connection.register("rows", _rows_relation(normal, project))
            for name in dict.fromkeys(view.source for view in views):
                self._relation(connection, scratch, name, project, features.keys_of(name), sources)
            for done, view in enumerate(views):
                if progress:
                    progress(done, len(views))
                table = _run(connection, view_sql(view), {})
                order = table.column("row_no").to_numpy()
                for feature in view.feature_names:
                    values = np.full(rows.num_rows, np.nan)
                    column = table.column(feature).cast(pa.float64())
                    values[order] = column.to_numpy(zero_copy_only=False)
                    default = features.defaults[features.names.index(feature)]
                    found[feature] = apply_defaults(values, default)
            if progress:
                progress(len(views), len(views))
        run_request_views(features, found, request_arrays(normal, features))
        return with_features(rows, features, found)

    def training_rows(
        self, project: ModelProject, sources: Mapping[str, Path], start_us: int, end_us: int, as_of_us: int
    ) -> TrainingRows:
        """Requests with event time in [start, end) whose label is mature: at or before as_of - label delay."""
        request, label = project.request_source, project.label_source
        stop_us = min(end_us, as_of_us - project.label.delay_us + 1)
        keys = tuple(project.entity_keys())
        hidden = project.label.column if project.label.source == project.request else None
        names = [*keys, request.event_time, request.event_id or "", *(c for c in request.columns if c != hidden)]
        facts = {
            "time": request.event_time,
            "id": request.event_id or "",
            "label_id": label.event_id or "",
            "label_time": label.event_time,
            "label_column": project.label.column,
            "columns": ", ".join(quoted(name) for name in names),
        }
        window = {"start": start_us, "end": stop_us}
        with self._connection() as (connection, scratch):
            for name in dict.fromkeys((project.request, project.label.source)):
                self._relation(connection, scratch, name, project, keys, sources)
            # _offset is read by the query's dedupe, so the relation keeps it.
            table = _run(connection, training_sql(project.request, project.label.source, facts), window)
            count = _run(connection, unmatched_sql(project.request, project.label.source, facts), window)
        return TrainingRows(_with_label(table, project, keys), int(count.column(0)[0].as_py()))

    @contextmanager
    def _connection(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
        with tempfile.TemporaryDirectory(prefix="tidewheel-features-") as folder:
            config: dict[str, Any] = {
                "memory_limit": self._memory_limit,
                "temp_directory": folder,
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "TimeZone": "UTC",
                # DuckDB guesses a small right side behind our filters and loops over it: 200 times slower.
                "asof_loop_join_threshold": 0,
            }
            if self._threads is not None:
                config["threads"] = self._threads
            connection = duckdb.connect(":memory:")
            try:
                for name, value in config.items():
                    connection.execute(f"SET {name} = {_setting(value)}")
                yield connection, Path(folder)
            finally:
                connection.close()

    def _relation(
        self,
        connection: duckdb.DuckDBPyConnection,
        scratch: Path,
        name: str,
        project: ModelProject,
        keys: Sequence[str],
        sources: Mapping[str, Path],
    ) -> None:
        """Make the view of one source: normalised columns and the order of arrival."""
        if name not in sources:
            raise InputError(f"source {name!r} has no data; give it with --source {name}=PATH")
        files = source_files(sources[name])
        if files and not all(is_normalised(file) for file in files):
            files = write_normalised(normalised_batches(files, name, project, keys), scratch / name)
        schema = normal_schema(project, name, keys).append(pa.field(OFFSET_COLUMN, pa.int64()))
        empty = f"empty_{name}"
        connection.register(empty, schema.empty_table())
        parts = [f"SELECT * FROM {quoted(empty)}"]
        if files:
            listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
            parts.append(f"SELECT * FROM read_parquet([{listed}], union_by_name = true)")
        union = " UNION ALL BY NAME ".join(parts)
        connection.execute(f"CREATE VIEW {source_relation(name)} AS {union}")


def _setting(value: Any) -> str:
    return str(value) if isinstance(value, bool | int) else "'" + str(value).replace("'", "''") + "'"


def _run(connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any]) -> pa.Table:
    try:
        return connection.execute(query, dict(parameters)).to_arrow_table()
    except duckdb.OutOfMemoryException as error:
        raise Unavailable(
            f"DuckDB: not enough memory ({str(error).splitlines()[0]}); give it more or fewer rows"
        ) from error
    except duckdb.IOException as error:
        raise InputError(f"DuckDB: {str(error).splitlines()[0]}") from error


def _rows_relation(normal: pa.Table, project: ModelProject) -> pa.Table:
    request = project.request_source
    ids = request.event_id or ""
    drop = [name for name in (request.event_time, ids) if name in normal.column_names]
    relation = normal.drop_columns(drop)
    relation = relation.append_column("row_no", pa.array(np.arange(normal.num_rows)))
    relation = relation.append_column("t", normal.column(request.event_time).cast(pa.int64()))
    known = normal.column(ids) if ids in normal.column_names else pa.nulls(normal.num_rows, pa.string())
    return relation.append_column("event_id", known)


def _with_label(table: pa.Table, project: ModelProject, keys: Sequence[str]) -> pa.Table:
    label = table.column("label")
    values = label.to_numpy()
    if len(values) and (values.min() < 0 or values.max() > 1):
        raise InputError(
            f"label {project.label.column!r} must be 0 or 1 (got {int(values.min())} to {int(values.max())})"
        )
    table = table.set_column(table.column_names.index("label"), "label", label.cast(pa.int8()))
    schema = normal_schema(project, project.request, keys)
    fields = [schema.field(name) if name in schema.names else pa.field(name, pa.int8()) for name in table.column_names]
    return table.cast(pa.schema(fields))
