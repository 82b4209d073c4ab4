"""Features and training rows by SQL, for whichever engine runs the text: DuckDB and Spark differ in an adapter's few
methods and in their dialect.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidewheel.errors import InputError
from tidewheel.features.batches import text_array
from tidewheel.features.declaration import BatchView, FeatureSet, RequestView, WindowedView
from tidewheel.features.events import normal_schema
from tidewheel.features.keys import hashed_ids
from tidewheel.features.rows import (
    TrainingRows,
    apply_defaults,
    normalised_rows,
    request_arrays,
    run_request_views,
    with_features,
)
from tidewheel.features.sources import ID_HASH_COLUMN, normal_files, source_files
from tidewheel.features.sql import (
    ASKED,
    FOUND,
    Once,
    RowFacts,
    batch_sql,
    crowded_sql,
    found_sql,
    once,
    source_relation,
)
from tidewheel.features.sql_dialects import Dialect, quoted
from tidewheel.features.sql_training import TrainingQuery
from tidewheel.features.sql_windows import apart_sql, asked_sql, framed_sql
from tidewheel.spec.project import ModelProject

Report = Callable[[int, int], None]
Floats = NDArray[np.float64]


class SqlRunner(Protocol):
    """An open engine. Relations are named without quotes and replace what had the name."""

    @property
    def dialect(self) -> Dialect: ...

    def add_source(self, name: str, files: Sequence[Path], schema: pa.Schema) -> None:
        """Relation of Parquet files; columns of ``schema`` that no file has are null, further ones stay."""
        ...

    def add_table(self, name: str, table: pa.Table) -> None: ...

    def keep(self, name: str, sql: str) -> None:
        """Run a query once and keep its result as a relation."""
        ...

    def query(self, sql: str) -> pa.Table: ...

    def batches(self, sql: str, max_rows: int) -> tuple[int, Iterator[pa.Table]]:
        """How many rows the result has, and they in order, in pieces of up to ``max_rows``, which bound the memory."""
        ...


class SqlSources:
    """Sources of one project as an engine's relations, and what is known of them."""

    def __init__(self, runner: SqlRunner, project: ModelProject, paths: Mapping[str, Path], scratch: Path) -> None:
        self.runner = runner
        self._project, self._paths, self._scratch = project, paths, scratch
        self._keys: dict[str, tuple[str, ...]] = {}
        self._repeated: dict[str, bool] = {}

    def add(self, name: str, keys: Sequence[str], *, hashed: bool = False) -> None:
        """Make the relation of one source, with the keys that it is read by and, where asked for, its ids' hash.

        Raises InputError where it has no data or a row cannot be used.
        """
        if name in self._keys:
            raise ValueError(f"source {name!r} is a relation already")
        if name not in self._paths:
            raise InputError(f"source {name!r} has no data; give it with --source {name}=PATH")
        files = normal_files(
            source_files(self._paths[name]), name, self._project, keys, self._scratch / name, hashed=hashed
        )
        schema = normal_schema(self._project, name, keys)
        if hashed:
            schema = schema.append(pa.field(ID_HASH_COLUMN, pa.int64()))
        self.runner.add_source(f"source_{name}", files, schema)
        self._keys[name] = tuple(keys)

    def repeated(self, one: Once) -> bool:
        """Whether anything comes more than once; asked of the engine once."""
        name = one.relation.strip('"')
        if name not in self._repeated:
            self.runner.keep(name, one.repeated_sql(self.runner.dialect))
            self._repeated[name] = _number(self.runner.query(f"SELECT count(*) AS n FROM {one.relation}")) > 0
        return self._repeated[name]


class SqlFeatures:
    """One feature set over one project's sources, for any number of tables of rows."""

    def __init__(
        self, sources: SqlSources, features: FeatureSet, project: ModelProject, *, labelled: bool = False
    ) -> None:
        """``labelled``: relations for training rows are needed, too."""
        self._runner, self._sources = sources.runner, sources
        self._features, self._project = features, project
        self._views = [view for view in features.views if not isinstance(view, RequestView)]
        training = (project.request, project.label.source) if labelled else ()
        for name in dict.fromkeys((*training, *(view.source for view in self._views))):
            ordered = any(_ordered(view) for view in self._views if view.source == name)
            keys = tuple(project.entity_keys()) if name in training else features.keys_of(name)
            sources.add(name, keys, hashed=ordered)

    def compute(self, rows: pa.Table, progress: Report | None = None) -> pa.Table:
        """``rows``, their order and columns, and one column per feature as of each row's event time."""
        normal = normalised_rows(rows, self._project, self._features)
        found: dict[str, Floats] = {}
        if normal.num_rows and self._views:
            self._runner.add_table("rows", self._rows_relation(normal))
        times = normal.column(self._project.request_source.event_time).cast(pa.int64()).to_numpy()
        for done, view in enumerate(self._views):
            if progress:
                progress(done, len(self._views))
            values = {name: np.full(rows.num_rows, np.nan) for name in view.feature_names}
            for text in self._texts(view, times) if len(times) else ():
                table = self._runner.query(text)
                order = table.column("row_no").to_numpy()
                for name, mine in values.items():
                    mine[order] = table.column(name).to_numpy()
                del table
            for name, mine in values.items():
                found[name] = apply_defaults(mine, self._features.defaults[self._features.names.index(name)])
        if progress:
            progress(len(self._views), len(self._views))
        run_request_views(self._features, found, request_arrays(normal, self._features))
        return with_features(rows, self._features, found)

    def _texts(self, view: WindowedView | BatchView, times_us: NDArray[np.int64]) -> Iterator[str]:
        """Queries whose results together are the view's."""
        dialect, repeated = self._runner.dialect, self._sources.repeated(once(view))
        first_us, last_us = int(times_us.min()), int(times_us.max())
        if isinstance(view, BatchView):
            facts = RowFacts(first_us, last_us, repeated)
            if dialect.asof:
                self._runner.keep(FOUND, found_sql(view, dialect, facts))
            yield batch_sql(view, dialect, facts)
            return
        most = 0 if view.max_events is None else _number(self._runner.query(crowded_sql(view)))
        facts = RowFacts(first_us, last_us, repeated, view.max_events is not None and most >= view.max_events)
        self._runner.keep(ASKED, asked_sql(view, dialect, facts))
        apart = _number(self._runner.query(f"SELECT count(*) AS n FROM {ASKED} WHERE apart"))
        if apart < len(times_us):
            yield framed_sql(view, dialect, facts)
        if apart:
            yield apart_sql(view, dialect, facts)

    def _rows_relation(self, normal: pa.Table) -> pa.Table:
        """``rows`` as the text reads them; columns that no view reads stay out."""
        request = self._project.request_source
        wanted = set(self._features.key_columns)
        for view in self._views:
            if isinstance(view, WindowedView) and view.own_event == "counts":
                wanted |= {column for column, _ in view.state.columns}
                wanted |= {column for one in view.state.filters for column, _ in one}
        relation = normal.select([name for name in normal.column_names if name in wanted])
        relation = relation.append_column("row_no", pa.array(np.arange(normal.num_rows)))
        relation = relation.append_column("t", normal.column(request.event_time).cast(pa.int64()))
        ids = request.event_id or ""
        known = normal.column(ids) if ids in normal.column_names else pa.nulls(normal.num_rows, pa.string())
        relation = relation.append_column("event_id", known)
        if any(_ordered(view) for view in self._views):
            hashes = hashed_ids(text_array(known.fill_null(""))).view(np.int64)
            relation = relation.append_column(ID_HASH_COLUMN, pa.array(hashes))
        return relation


@dataclass(frozen=True)
class LabelledRows:
    """Requests with mature labels by time and id: ``n_rows`` of them, in ``pieces`` that are read once.

    Columns: entity keys, event time, event id, request columns, ``label`` (int8). ``n_unmatched`` labels of that time
    have no request.
    """

    n_rows: int
    n_unmatched: int
    pieces: Iterator[pa.Table]


class SqlEngine(ABC):
    """What every engine does with its opened sources."""

    @abstractmethod
    def opened(self, project: ModelProject, sources: Mapping[str, Path]) -> AbstractContextManager[SqlSources]:
        """The sources as relations of an engine that lives as long as the block."""
        ...

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
        with self.opened(project, sources) as found:
            return SqlFeatures(found, features, project).compute(rows, progress)

    def training_rows(
        self, project: ModelProject, sources: Mapping[str, Path], start_us: int, end_us: int, as_of_us: int
    ) -> TrainingRows:
        """Requests with event time in [start, end) whose label is mature: at or before as_of - label delay."""
        with self.opened(project, sources) as found:
            return training_table(found, project, start_us, end_us, as_of_us)


def labelled_rows(
    sources: SqlSources, project: ModelProject, start_us: int, end_us: int, as_of_us: int, max_rows: int
) -> LabelledRows:
    """Event time in [start, end), label known as of ``as_of_us``: its event is the label's delay older."""
    query = TrainingQuery(project, start_us, min(end_us, as_of_us - project.label.delay_us + 1))
    runner = sources.runner
    every = {project.request: query.requests, project.label.source: query.labels}
    repeated = frozenset(name for name, one in every.items() if sources.repeated(one))
    n_unmatched = 0
    if len(every) > 1:
        n_unmatched = _number(runner.query(query.unmatched_sql(runner.dialect)))
    n_rows, pieces = runner.batches(query.rows_sql(runner.dialect, repeated), max_rows)
    return LabelledRows(n_rows, n_unmatched, (_with_label(piece, project) for piece in pieces))


def newest_us(sources: SqlSources, project: ModelProject) -> int:
    """Event time of the newest request, 0 where there is none."""
    dialect, time = sources.runner.dialect, quoted(project.request_source.event_time)
    found = sources.runner.query(f"SELECT max({dialect.micros(time)}) AS n FROM {source_relation(project.request)}")
    return _number(found)


def training_table(
    sources: SqlSources, project: ModelProject, start_us: int, end_us: int, as_of_us: int
) -> TrainingRows:
    """The same in one table. The relations of requests and labels are added here."""
    for name in dict.fromkeys((project.request, project.label.source)):
        sources.add(name, tuple(project.entity_keys()))
    found = labelled_rows(sources, project, start_us, end_us, as_of_us, max_rows=2**20)
    empty = labelled_schema(project).empty_table()
    return TrainingRows(pa.concat_tables([empty, *found.pieces]), found.n_unmatched)


def labelled_schema(project: ModelProject) -> pa.Schema:
    """Columns of labelled rows."""
    query = TrainingQuery(project, 0, 0)
    schema = normal_schema(project, project.request, tuple(project.entity_keys()))
    return pa.schema([*(schema.field(name) for name in query.columns), pa.field("label", pa.int8())])


def _with_label(table: pa.Table, project: ModelProject) -> pa.Table:
    values = table.column("label").to_numpy()
    if len(values) and (values.min() < 0 or values.max() > 1):
        raise InputError(
            f"label {project.label.column!r} must be 0 or 1 (got {int(values.min())} to {int(values.max())})"
        )
    return table.cast(labelled_schema(project))


def _ordered(view: Any) -> bool:
    return isinstance(view, WindowedView) and any(feature.aggregation.ordered for feature in view.features)


def _number(table: pa.Table) -> int:
    return int(table.column("n")[0].as_py() or 0)
