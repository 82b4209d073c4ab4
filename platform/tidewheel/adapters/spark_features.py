"""Features and training rows over files, by Spark: the same text as DuckDB's, on as many machines as Spark has.

Started without a cluster it runs in this process (``local[*]``) on the loopback interface. It needs Java 17 or 21.
Intermediate results are Parquet files in a temporary folder, so that no query is computed twice.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from tidewheel.errors import Unavailable
from tidewheel.features.events import OFFSET_COLUMN
from tidewheel.features.lake import pieces_of
from tidewheel.features.sql_dialects import SPARK, Dialect
from tidewheel.features.sql_engine import SqlEngine, SqlSources
from tidewheel.spec.project import ModelProject

_SESSION = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.maxResultSize": "2g",
    "spark.log.level": "ERROR",
    "spark.sql.catalogImplementation": "in-memory",
}
_TEXT = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.ansi.doubleQuotedIdentifiers": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.caseSensitive": "true",
}


class SparkFeatures(SqlEngine):
    """The engine for many machines; the interface of ``DuckDbFeatures``."""

    name = "spark"

    def __init__(self, memory_limit: str = "2GB", threads: int | None = None) -> None:
        self._memory_limit = memory_limit
        self._threads = threads

    @contextmanager
    def opened(self, project: ModelProject, sources: Mapping[str, Path]) -> Iterator[SqlSources]:
        """A session of its own in this process' Spark, which starts with the first one."""
        session = self._started().newSession()
        for name, value in _TEXT.items():
            session.conf.set(name, value)
        session.conf.set("spark.sql.shuffle.partitions", str(2 * (self._threads or os.cpu_count() or 1)))
        with tempfile.TemporaryDirectory(prefix="tidewheel-spark-") as folder:
            yield SqlSources(_SparkRunner(session, Path(folder)), project, sources, Path(folder))
            for table in session.catalog.listTables():
                session.catalog.dropTempView(table.name)

    def _started(self) -> SparkSession:
        running = SparkSession.getActiveSession()
        if running is not None:
            return running
        if "JAVA_HOME" not in os.environ and shutil.which("java") is None:
            raise Unavailable("Spark: needs Java 17 or 21; install it, or use --engine duckdb")
        builder = SparkSession.builder.appName("tidewheel").config(
            "spark.driver.memory", _megabytes(self._memory_limit)
        )
        if "SPARK_REMOTE" not in os.environ and "MASTER" not in os.environ:
            builder = builder.master(f"local[{self._threads or '*'}]")
        for name, value in {**_SESSION, **_TEXT}.items():
            builder = builder.config(name, value)
        return builder.getOrCreate()


class _SparkRunner:
    dialect: Dialect = SPARK

    def __init__(self, session: SparkSession, scratch: Path) -> None:
        self._session, self._scratch = session, scratch
        self._numbers = itertools.count()

    def add_source(self, name: str, files: Sequence[Path], schema: pa.Schema) -> None:
        # A file without rows brings the columns that the others may lack.
        empty = self._scratch / f"empty-{name}.parquet"
        pq.write_table(schema.append(pa.field(OFFSET_COLUMN, pa.int64())).empty_table(), empty)
        self._view(name, [*files, empty])

    def add_table(self, name: str, table: pa.Table) -> None:
        path = self._scratch / f"table-{next(self._numbers)}.parquet"
        pq.write_table(table, path, row_group_size=100_000)
        self._view(name, [path])

    def keep(self, name: str, sql: str) -> None:
        self._view(name, [self._written(sql)])

    def query(self, sql: str) -> pa.Table:
        return self._session.sql(sql).toArrow()

    def batches(self, sql: str, max_rows: int) -> tuple[int, Iterator[pa.Table]]:
        parts = sorted(self._written(sql).glob("part-*.parquet"))  # a sorted result is in parts in its order
        return sum(pq.read_metadata(part).num_rows for part in parts), pieces_of(parts, max_rows)

    def _written(self, sql: str) -> Path:
        path = self._scratch / f"result-{next(self._numbers)}"
        self._session.sql(sql).write.parquet(str(path))
        return path

    def _view(self, name: str, files: Sequence[Path]) -> None:
        reader = self._session.read.option("mergeSchema", "true")
        reader.parquet(*(str(file) for file in files)).createOrReplaceTempView(name)


def _megabytes(limit: str) -> str:
    """``2GB`` and ``512MB`` as Java writes them."""
    text = limit.strip().upper().removesuffix("B").removesuffix("I")
    return text.lower() if text[-1:] in ("G", "M", "K") else limit
