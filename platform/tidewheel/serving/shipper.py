"""Ships closed spool segments into the lake as Parquet, exactly once each, and takes over spools of dead servers.

A part is named after its segment: a crash between the part's rename and the segment's removal writes the same part
again. A sink that fails delays shipping and nothing else.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.serving.prediction_log import PredictionLog, lock_folder, segments
from tidewheel.serving.prediction_record import decode_frames, to_table

LOG = logging.getLogger("tidewheel.serving")
SHIP_EVERY_S = 0.5


class Shipper:
    """A thread that moves records from the spool to ``lake`` (the folder of one project's predictions)."""

    def __init__(self, log: PredictionLog, lake: Path, schema: pa.Schema, every_s: float = SHIP_EVERY_S) -> None:
        self._log, self._lake, self._every_s = log, lake, every_s
        self.schema = schema  # replaced when a version brings new request columns
        self._said = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ship what is there and end; called once at shutdown."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30.0)
        self.ship()
        self._log.close()

    def ship(self) -> int:
        """Ship every closed segment; the number of rows shipped."""
        shipped = 0
        try:
            for path in self._log.rotate():
                size = path.stat().st_size
                shipped += self._ship_one(path)
                self._log.release(size)
        except Exception as error:  # whatever it is, the segment stays and is tried again; the thread must live
            self._failed(error)
        self._log.counters.shipped += shipped
        return shipped

    def adopt_orphans(self) -> None:
        """Ship what servers that no longer run left in spools beside this one."""
        project = _project_of(self._log.folder)
        for folder in sorted(self._log.folder.parent.glob(f"{project}-*")):
            if folder == self._log.folder or _project_of(folder) != project or not segments(folder):
                continue
            if (owner := lock_folder(folder)) is None:
                continue
            try:
                for path in segments(folder):
                    self._log.counters.shipped += self._ship_one(path)
            except Exception as error:
                self._failed(error)
            finally:
                os.close(owner)

    def _failed(self, error: Exception) -> None:
        """Counted always, said once per kind of failure in a row."""
        self._log.counters.ship_failures += 1
        if self._said != (said := f"{type(error).__name__}: {error}"):
            LOG.warning("event=ship_failed error=%s", said)
        self._said = said

    def _ship_one(self, path: Path) -> int:
        data = path.read_bytes()
        records, good = decode_frames(data)
        self._log.counters.torn_bytes += len(data) - good
        if records:
            part = self._lake / f"part-{path.parent.name.rsplit('-', 1)[-1]}-{path.stem}.parquet"
            write_part(to_table(records, self.schema), part)
        path.unlink()
        self._said = ""
        return len(records)

    def _run(self) -> None:
        self.adopt_orphans()
        while not self._stop.wait(self._every_s):
            self.ship()


def write_part(table: pa.Table, part: Path) -> None:
    """One Parquet file that appears whole, or not at all."""
    part.parent.mkdir(parents=True, exist_ok=True)
    temporary = part.with_name(f".{part.name}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(part)
    finally:
        temporary.unlink(missing_ok=True)


def _project_of(folder: Path) -> str:
    return folder.name.rsplit("-", 1)[0]
