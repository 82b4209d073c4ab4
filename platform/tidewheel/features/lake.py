"""The lake: one folder of Parquet files per source, in the order events arrived.

A part is named by the partition of the log and the offsets it holds (``part-<partition>-<first>-<next>.parquet``,
the next one excluded), so that writing it again replaces it and the newest name says how far the lake has come. Older
parts have no partition in their name: it is 0. Reads drop duplicates by event id.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.errors import InputError, naming
from tidewheel.features.events import OFFSET_COLUMN
from tidewheel.spec.project import ModelProject

_PART = re.compile(r"part-(?:(\d{5})-)?(\d{20})-(\d{20})\.parquet")


@dataclass(frozen=True, order=True)
class Part:
    """Events of ``partition`` with offsets ``first`` up to ``following``."""

    partition: int
    first: int
    following: int
    path: Path


def source_paths(lake: Path, project: ModelProject) -> dict[str, Path]:
    """Folder of every source. ``path: lake/x`` and ``path: x`` both name the folder x in the lake."""
    return {name: lake / source.path.removeprefix("lake/") for name, source in project.sources.items()}


def part_name(first: int, following: int, partition: int = 0) -> str:
    return f"part-{partition:05d}-{first:020d}-{following:020d}.parquet"


def parts(folder: Path) -> list[Part]:
    """The worker's parts, in order."""
    entries = os.scandir(folder) if folder.is_dir() else ()
    found = (_part(Path(entry.path)) for entry in entries)
    return sorted(part for part in found if part is not None)


def _part(path: Path) -> Part | None:
    match = _PART.fullmatch(path.name)
    return Part(int(match[1] or 0), int(match[2]), int(match[3]), path) if match else None


def lake_end(folder: Path, partition: int = 0) -> int:
    """The offset up to which events of the log's partition are in the lake."""
    return max((part.following for part in parts(folder) if part.partition == partition), default=0)


def end_of(names: Iterable[str], partition: int) -> int:
    """The same by the names of a folder's files."""
    found = (_part(Path(name)) for name in names)
    return max((part.following for part in found if part is not None and part.partition == partition), default=0)


def write_part(folder: Path, first: int, events: pa.Table, n_taken: int, partition: int = 0) -> Path:
    """Write events ``first`` .. ``first + n_taken``; ``n_taken`` may exceed the rows where some were rejected."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / part_name(first, first + n_taken, partition)
    write_parquet(path, events)
    return path


def write_parquet(path: Path, table: pa.Table) -> None:
    """Whole or not at all, and durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def live_parts(folder: Path) -> tuple[list[Part], list[Part]]:
    """Parts to read, in order, and parts that a wider one replaces (a compaction leaves them for a while)."""
    return _divided(parts(folder))


def replaced_names(names: Iterable[str]) -> set[str]:
    """Of a folder's file names, those of parts that a wider one replaces."""
    found = (_part(Path(name)) for name in names)
    return {part.path.name for part in _divided(part for part in found if part is not None)[1]}


def _divided(found: Iterable[Part]) -> tuple[list[Part], list[Part]]:
    live: list[Part] = []
    replaced: list[Part] = []
    ends: dict[int, int] = {}
    for part in sorted(found, key=lambda part: (part.partition, part.first, -part.following)):
        (live if part.following > ends.get(part.partition, 0) else replaced).append(part)
        ends[part.partition] = max(ends.get(part.partition, 0), part.following)
    return live, replaced


def compact(folder: Path, max_rows: int, min_files: int, partition: int = 0) -> None:
    """Join runs of small adjacent parts into parts of up to ``max_rows`` rows; safe to kill at any point.

    The replaced parts stay until ``drop_replaced``, because a reader may have listed them already.
    """
    run: list[Part] = []
    for part in [*(part for part in live_parts(folder)[0] if part.partition == partition), None]:
        if part is not None and (
            not run or (part.first == run[-1].following and part.following - run[0].first <= max_rows)
        ):
            run.append(part)
            continue
        if len(run) >= min_files:
            joined = pa.concat_tables([read_parquet(one.path) for one in run], promote_options="default")
            write_part(folder, run[0].first, joined, run[-1].following - run[0].first, partition)
        run = [part] if part is not None else []


def drop_replaced(folder: Path, before_s: float, partition: int = 0) -> None:
    """Remove replaced parts whose replacement was written before ``before_s`` (Unix seconds)."""
    live, replaced = ([part.path for part in one if part.partition == partition] for one in live_parts(folder))
    if replaced and max(path.stat().st_mtime for path in live) < before_s:
        for path in replaced:
            path.unlink(missing_ok=True)


def read_parquet(path: Path) -> pa.Table:
    """One whole file. Not ``pyarrow.parquet.read_table``: that imports pandas, which costs a second."""
    with pq.ParquetFile(path) as file:
        return file.read()


def source_files(path: Path) -> list[Path]:
    """Data files behind a path (a file or a folder), in order of arrival. Raises InputError for a missing file."""
    if path.is_dir():
        replaced = {part.path for part in live_parts(path)[1]}
        files = (file for file in path.iterdir() if file.suffix in (".parquet", ".csv") and file.name[0] != ".")
        return sorted((file for file in files if file not in replaced), key=_arrival)
    if path.is_file():
        return [path]
    if path.suffix:
        raise InputError(f"{path}: no such file or folder")
    return []  # a folder of the lake that no event has reached yet


def _arrival(path: Path) -> tuple[str, int, int, str]:
    part = _part(path)
    return (path.name, 0, 0, "") if part is None else ("part-", part.partition, part.first, path.name)


def read_batches(path: Path, max_rows: int = 500_000) -> Iterator[pa.Table]:
    """Rows of one Parquet or CSV file, in bounded pieces. Raises InputError where it cannot be read."""
    try:
        if path.suffix == ".csv":
            yield from _csv_batches(path, max_rows)
            return
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=max_rows):
                yield pa.Table.from_batches([batch])
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError) as error:  # damaged pages are an OSError without a file
        what = "is empty" if path.stat().st_size == 0 else f"cannot be read ({str(error).splitlines()[0]})"
        raise InputError(f"{path}: {what}; a Parquet or CSV file is needed") from error


def _csv_batches(path: Path, max_rows: int) -> Iterator[pa.Table]:
    import pyarrow.csv as pc

    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; a Parquet or CSV file is needed")
    table = pc.read_csv(path)
    for start in range(0, table.num_rows, max_rows):
        yield table.slice(start, max_rows)


def pieces_of(files: Iterable[Path], max_rows: int) -> Iterator[pa.Table]:
    """Rows of our own Parquet files, one after the other, in pieces of exactly ``max_rows``; the last has the rest."""
    held: list[pa.Table] = []
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=max_rows):
                held.append(pa.Table.from_batches([batch]))
                while sum(map(len, held)) >= max_rows:
                    table = pa.concat_tables(held)
                    yield table.slice(0, max_rows)
                    held = [table.slice(max_rows)]
    if sum(map(len, held)):
        yield pa.concat_tables(held)


def is_normalised(path: Path) -> bool:
    """Whether a file was written by the worker: it then has the column of offsets."""
    if path.suffix != ".parquet" or not _PART.fullmatch(path.name):
        return False
    try:
        return OFFSET_COLUMN in pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
