"""A training set as a file: labelled rows with their features as of each row's time, out of core.

Rows go through in pieces by time, so that memory is bounded by a piece and by the engine's own limit, and each piece
reads only the part of history that its windows reach.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidewheel.clock import utc_text
from tidewheel.errors import InputError, naming
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.sql_engine import (
    LabelledRows,
    SqlFeatures,
    SqlSources,
    labelled_rows,
    labelled_schema,
    newest_us,
)
from tidewheel.spec.project import ModelProject
from tidewheel.training.content_digest import ContentDigest

PIECE_VALUES = 16_000_000  # rows times features of one piece
LEAST_ROWS, MOST_ROWS = 10_000, 1_000_000  # of one piece
METADATA_KEY = b"tidewheel"


@dataclass(frozen=True)
class Span:
    """Event time in [start, end), with what was known as of a time; all in us. None: from the first to the newest
    event, as of the newest request."""

    start_us: int | None = None
    end_us: int | None = None
    as_of_us: int | None = None


@dataclass(frozen=True)
class TrainingSetFacts:
    """What the file's metadata says under ``tidewheel``, as JSON. ``digest`` is of the content alone."""

    project: str
    feature_digest: str
    features: tuple[str, ...]
    start: str
    end: str
    as_of: str
    rows: int
    positives: int
    unmatched: int
    digest: str


class TrainingSet:
    """Found, not yet written: ``labelled.n_rows`` rows."""

    def __init__(self, sources: SqlSources, features: FeatureSet, project: ModelProject, span: Span) -> None:
        """Raises InputError where a source cannot be used or no label is mature."""
        if "label" in features.names:
            raise InputError(f"{project.name}: a feature is called 'label', as the column of labels is; rename it")
        self._engine = SqlFeatures(sources, features, project, labelled=True)
        self._features, self._project = features, project
        as_of_us = newest_us(sources, project) if span.as_of_us is None else span.as_of_us
        self._as_of_us, self._start_us = as_of_us, span.start_us or 0
        self._end_us = as_of_us + 1 if span.end_us is None else span.end_us
        rows = max(PIECE_VALUES // max(len(features.names), 1), LEAST_ROWS)
        self.labelled: LabelledRows = labelled_rows(
            sources, project, self._start_us, self._end_us, as_of_us, min(rows, MOST_ROWS)
        )
        self._pieces = self.labelled.pieces
        if not self.labelled.n_rows:
            raise InputError(
                f"{project.name}: no labelled row between {utc_text(self._start_us)} and {utc_text(self._end_us)}, "
                f"labels mature as of {utc_text(as_of_us)}; send events and labels with 'tidewheel ingest', "
                f"or name other times with --start, --end and --as-of"
            )

    def sample(self) -> pa.Table:
        """The first piece of rows, which ``write`` still writes."""
        first = next(self._pieces)
        self._pieces = itertools.chain([first], self._pieces)
        return first.drop_columns(["label"])

    def write(self, target: Path, report: Callable[[int], None] = lambda rows: None) -> TrainingSetFacts:
        """Whole or not at all. ``report`` is told how many more rows are done."""
        schema = self._schema()
        digest = ContentDigest(schema)
        n_rows = n_positive = 0
        with _whole_parquet(target, schema) as file:
            for piece in self._pieces:
                label = piece.column("label")
                made = self._engine.compute(piece)
                file.write_table(made)
                digest.update(made)
                n_rows += made.num_rows
                n_positive += int(pc.sum(label).as_py() or 0)
                report(made.num_rows)
            facts = TrainingSetFacts(
                self._project.name, self._features.digest, self._features.names, utc_text(self._start_us),
                utc_text(self._end_us), utc_text(self._as_of_us), n_rows, n_positive, self.labelled.n_unmatched,
                digest.hexdigest(),
            )  # fmt: skip
            file.add_key_value_metadata({METADATA_KEY: json.dumps(asdict(facts)).encode()})
        return facts

    def _schema(self) -> pa.Schema:
        """Labelled rows, then features; a request column that has a feature's name is the feature."""
        kinds = {"int64": pa.int64(), "bool": pa.bool_()}
        schema = labelled_schema(self._project)
        for name, dtype in zip(self._features.names, self._features.dtypes, strict=True):
            field = pa.field(name, kinds.get(dtype, pa.float64()))
            index = schema.get_field_index(name)
            schema = schema.append(field) if index < 0 else schema.set(index, field)
        return schema


def training_set_facts(path: Path) -> dict[str, Any]:
    """What a training set's file says of itself. Raises InputError where it is none."""
    try:
        return dict(json.loads(pq.read_metadata(path).metadata[METADATA_KEY]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a training set; make one with 'tidewheel features compute'") from error


@contextmanager
def _whole_parquet(target: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with naming(target), temporary.open("wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
