"""Features and training rows over files, by DuckDB: out of core, bounded memory.

It runs the text that ``features.sql`` makes and knows no aggregation. Raw files are normalised into a temporary
folder first; parts that the stream worker wrote are read as they are.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.errors import InputError, Unavailable
from tidewheel.features.events import OFFSET_COLUMN
from tidewheel.features.lake import pieces_of
from tidewheel.features.sql_dialects import DUCKDB, Dialect, quoted
from tidewheel.features.sql_engine import SqlEngine, SqlSources
from tidewheel.spec.project import ModelProject


class DuckDbFeatures(SqlEngine):
    """The engine for one machine."""

    name = "duckdb"

    def __init__(self, memory_limit: str = "2GB", threads: int | None = None) -> None:
        self._memory_limit = memory_limit
        self._threads = threads

    @contextmanager
    def opened(self, project: ModelProject, sources: Mapping[str, Path]) -> Iterator[SqlSources]:
        """A database in memory that spills into a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="tidewheel-features-") as folder:
            config: dict[str, Any] = {
                "memory_limit": self._memory_limit,
                "temp_directory": folder,
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                # The operating system keeps files in memory already; a second copy would only count as ours.
                "enable_external_file_cache": False,
                "TimeZone": "UTC",
                "enable_progress_bar": False,  # it would write to stdout
                # DuckDB guesses a small right side behind our filters and loops over it: 200 times slower.
                "asof_loop_join_threshold": 0,
            }
            if self._threads is not None:
                config["threads"] = self._threads
            connection = duckdb.connect(":memory:")
            try:
                for name, value in config.items():
                    connection.execute(f"SET {name} = {_setting(value)}")
                yield SqlSources(_DuckDbRunner(connection, Path(folder)), project, sources, Path(folder))
            finally:
                connection.close()


class _DuckDbRunner:
    dialect: Dialect = DUCKDB

    def __init__(self, connection: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        self._connection, self._scratch = connection, scratch
        self._numbers = itertools.count()

    def add_source(self, name: str, files: Sequence[Path], schema: pa.Schema) -> None:
        schema = schema.append(pa.field(OFFSET_COLUMN, pa.int64()))
        if not files:
            self._connection.register(name, schema.empty_table())
            return
        known = {column for file in files for column in pq.read_schema(file).names}
        empty = f"empty_{name}"
        self._connection.register(empty, schema.empty_table())
        query = f"SELECT * FROM read_parquet([{', '.join(_text(file) for file in files)}], union_by_name = true)"
        if not known.issuperset(schema.names):
            query = f"SELECT * FROM {quoted(empty)} UNION ALL BY NAME {query}"
        self._connection.execute(f"CREATE VIEW {quoted(name)} AS {query}")

    def add_table(self, name: str, table: pa.Table) -> None:
        self._connection.register(name, table)

    def keep(self, name: str, sql: str) -> None:
        self._run(f"CREATE OR REPLACE TEMP TABLE {quoted(name)} AS {sql}")

    def query(self, sql: str) -> pa.Table:
        return self._run(sql).to_arrow_table()

    def batches(self, sql: str, max_rows: int) -> tuple[int, Iterator[pa.Table]]:
        path = self._scratch / f"result-{next(self._numbers)}.parquet"
        self._run(f"COPY ({sql}) TO {_text(path)} (FORMAT parquet, COMPRESSION zstd, PRESERVE_ORDER true)")
        return pq.read_metadata(path).num_rows, pieces_of([path], max_rows)

    def _run(self, sql: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(sql)
        except duckdb.OutOfMemoryException as error:
            raise Unavailable(
                f"DuckDB: not enough memory ({str(error).splitlines()[0]}); give it more or fewer rows"
            ) from error
        except duckdb.IOException as error:
            raise InputError(f"DuckDB: {str(error).splitlines()[0]}") from error


def _setting(value: Any) -> str:
    return str(value) if isinstance(value, bool | int) else _text(value)


def _text(value: Any) -> str:
    return "'" + str(value).replace("'", "''") + "'"
