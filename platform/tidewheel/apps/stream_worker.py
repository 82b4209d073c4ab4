"""The stream worker: events from the log into online state and into the lake.

Run as ``python -m tidewheel.apps.stream_worker --home DIR``. It keeps the states of the applied project and of
every bundle that a deployment document names; a state nobody wrote yet is filled from the start of the log. It may
be killed at any time. One worker per home: a second one waits until the first is gone.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewheel.adapters.connections import open_online_store
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.signing_keys import trusted_keys
from tidewheel.adapters.sqlite_file import DamagedStore, set_aside
from tidewheel.apps.unused_states import UnusedStates
from tidewheel.bundle.manifest import verify
from tidewheel.bundle.signature import SignatureRefused, verify_trusted
from tidewheel.clock import SECOND_US, Clock, SystemClock, utc_text
from tidewheel.errors import TidewheelError, Unavailable
from tidewheel.features.declaration import BatchView, RequestView, WindowedView
from tidewheel.features.lake import source_paths
from tidewheel.features.lake_keeper import LakeKeeper, LakePlace
from tidewheel.features.load import load_features
from tidewheel.features.ports import EventLog, LostWrites, OnlineStore
from tidewheel.features.schema import topic_of
from tidewheel.features.stream import StateKeeper
from tidewheel.spec.load import load_project
from tidewheel.spec.project import ModelProject

POLL_S = 0.02
RETRY_S = 0.5
REFRESH_US = SECOND_US // 2
REPORT_US = 10 * SECOND_US

StatefulView = WindowedView | BatchView


@dataclass(frozen=True)
class Wanted:
    """A folder of verified code and whether it is the applied project, which owns the lake."""

    folder: Path
    digest: str
    applied: bool


def wanted_code(home: LocalHome) -> list[Wanted]:
    """Applied projects and deployed bundles, by what their pointers say now; a pointer that cannot be read is the
    trouble of whoever writes it, not a reason to stop."""
    found: dict[Path, Wanted] = {}
    for pointer in sorted((home.root / "applied").glob("*.json")):
        for digest in _digests(pointer):
            found.setdefault(home.projects / digest, Wanted(home.projects / digest, digest, True))
    for document in sorted(home.deployments.glob("*.json")):
        for digest in _digests(document):
            folder = home.bundles / digest
            if folder.is_dir():
                found.setdefault(folder, Wanted(folder, digest, False))
    return list(found.values())


def _digests(pointer: Path) -> list[str]:
    """Digests that an applied pointer or a deployment document names."""
    try:
        body = json.loads(pointer.read_bytes())
        return [str(one["digest"]) for one in body.get("variants", [body])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


class StreamWorker:
    """All keepers of one home; ``step`` gives each its turn."""

    def __init__(self, home: LocalHome, log: EventLog, store: OnlineStore, clock: Clock) -> None:
        self._home, self._log, self._store, self._clock = home, log, store, clock
        self._states: dict[str, StateKeeper] = {}
        self._lakes: dict[str, LakeKeeper] = {}
        self._loaded: dict[Path, tuple[ModelProject, tuple[StatefulView, ...]]] = {}
        self._lakes_of: list[Path] = []
        self._refused: set[Path] = set()
        self._unsigned: set[Path] = set()
        self._unused = UnusedStates(store, clock, self._tell)
        self._refreshed_at_us: int | None = None
        self._reported_at_us, self._n_events = clock.monotonic_us(), 0

    def step(self) -> int:
        """One round over all keepers; how many events were taken. Raises Unavailable."""
        now_us = self._clock.monotonic_us()
        if self._refreshed_at_us is None or now_us - self._refreshed_at_us >= REFRESH_US:
            self._refresh()
            self._refreshed_at_us = now_us
        n = 0
        for keeper in self._states.values():
            n += keeper.step()
            keeper.heartbeat()
        self._n_events += n
        for lake in self._lakes.values():
            n += lake.step()
        if self._n_events and now_us - self._reported_at_us >= REPORT_US:
            newest_us = max((keeper.progress.watermark_us for keeper in self._states.values()), default=0)
            log_line(self._clock, "progress", n_updates=self._n_events, watermark=utc_text(newest_us))
            self._reported_at_us, self._n_events = now_us, 0
        return n

    def _refresh(self) -> None:
        """Keepers for the code that is wanted now; a folder that cannot be loaded is told once and left out."""
        views: dict[str, StatefulView] = {}
        applied: list[Path] = []
        code = wanted_code(self._home)
        for wanted in code:
            if wanted.folder not in self._loaded and wanted.folder not in self._refused:
                self._load(wanted)
            if wanted.folder in self._loaded:
                views.update({view.state.state_id: view for view in self._loaded[wanted.folder][1]})
                if wanted.applied:
                    applied.append(wanted.folder)
        if applied != self._lakes_of:
            self._lakes = {name: keeper for folder in applied for name, keeper in self._lake_keepers(folder).items()}
            self._lakes_of = applied
        for state_id in [state_id for state_id in self._states if state_id not in views]:
            log_line(self._clock, "state_left", state=state_id)
            del self._states[state_id]
        for state_id, view in views.items():
            if state_id not in self._states:
                keeper = StateKeeper(view, 0, self._log, self._store, self._clock, self._tell)
                self._states[state_id] = keeper
                log_line(self._clock, "state_kept", state=state_id, view=view.name, source=view.source,
                         by=",".join(view.keys), position=keeper.progress.position,
                         end=self._log.end(view.state.topic, 0))  # fmt: skip
        known = all(wanted.folder in self._loaded for wanted in code)
        self._unused.look([view.state for view in views.values()], known)

    def _load(self, wanted: Wanted) -> None:
        try:
            if wanted.applied:
                verify(wanted.folder, wanted.digest)
            else:
                verify_trusted(wanted.folder, wanted.digest, trusted_keys(self._home))
            project = load_project(wanted.folder)
            views = load_features(wanted.folder, project).views
            self._loaded[wanted.folder] = (project, tuple(v for v in views if not isinstance(v, RequestView)))
        except SignatureRefused as error:  # somebody may sign it, so it is looked at again
            if wanted.folder not in self._unsigned:
                log_line(self._clock, "code_refused", folder=str(wanted.folder), reason=str(error))
            self._unsigned.add(wanted.folder)
        except TidewheelError as error:
            self._refused.add(wanted.folder)
            log_line(self._clock, "code_refused", folder=str(wanted.folder), reason=str(error))

    def _lake_keepers(self, folder: Path) -> dict[str, LakeKeeper]:
        project, _ = self._loaded[folder]
        keepers = {}
        for source, path in source_paths(self._home.lake, project).items():
            place = LakePlace(source, topic_of(project, source), path, self._home.lake / "_rejected" / source)
            keepers[f"{project.name}.{source}"] = LakeKeeper(place, project, self._log, self._clock, self._tell)
        return keepers

    def _tell(self, event: str, **fields: Any) -> None:
        log_line(self._clock, event, **fields)


def log_line(clock: Clock, event: str, **fields: Any) -> None:
    """One event as key=value on stdout, which the supervisor keeps as the log."""
    sys.stdout.write(f"{utc_text(clock.now_us())} {event} {_fields(fields)}\n")
    sys.stdout.flush()


def _fields(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())


def run(home: LocalHome, clock: Clock, stopped: threading.Event) -> None:
    """Work until ``stopped``; a store or a disk that fails is tried again."""
    with _only_worker(home, stopped) as mine:
        if not mine:
            return
        log_line(clock, "started", home=str(home.root))
        while not stopped.is_set():
            try:
                _work(home, clock, stopped)
            except DamagedStore as error:
                log_line(clock, "store_set_aside", reason=str(error), kept=str(set_aside(error.path)))
            except LostWrites as error:
                log_line(clock, "begins_again", reason=str(error))
        log_line(clock, "stopped")


def _work(home: LocalHome, clock: Clock, stopped: threading.Event) -> None:
    """Until ``stopped``. Raises DamagedStore and LostWrites: what is lost is filled again from the log."""
    store = open_online_store(home)
    try:
        worker = StreamWorker(home, FileEventLog(home.event_log), store, clock)
        while not stopped.is_set():
            wait_s = _turn(worker.step, clock)
            if wait_s:
                stopped.wait(wait_s)
    finally:
        store.close()


def _turn(step: Callable[[], int], clock: Clock) -> float:
    """One step; how long to wait before the next."""
    try:
        return 0.0 if step() else POLL_S
    except (DamagedStore, LostWrites):
        raise
    except (Unavailable, OSError) as error:
        log_line(clock, "retrying", reason=str(error))
        return RETRY_S


@contextmanager
def _only_worker(home: LocalHome, stopped: threading.Event) -> Iterator[bool]:
    home.root.mkdir(parents=True, exist_ok=True)
    with (home.root / "stream-worker.lock").open("ab") as file:
        while not stopped.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stopped.wait(0.1)
                continue
            yield True
            return
        yield False


def main() -> None:
    parser = argparse.ArgumentParser(prog="tidewheel.apps.stream_worker", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="state folder, such as card-fraud/.tidewheel")
    arguments = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    run(LocalHome(arguments.home.resolve()), SystemClock(), stopped)


if __name__ == "__main__":
    main()
