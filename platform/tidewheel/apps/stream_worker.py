"""The stream worker: events from the log into online state and into the lake.

Run as ``python -m tidewheel.apps.stream_worker --home DIR``. It keeps the states of the applied project and of
every bundle that a deployment document names; a state nobody wrote yet is filled from the start of the log. It may
be killed at any time. With a log in files a second worker of a home waits until the first is gone; with Kafka they
share out the partitions.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tidewheel.adapters.connections import event_log_kind, open_online_store, read_connections
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.sqlite_file import DamagedStore, set_aside
from tidewheel.adapters.worker_log import WorkerLog, open_worker_log
from tidewheel.apps.lake_copies import LakeCopies, open_lake_copies
from tidewheel.apps.stream_keepers import StreamCounts, StreamKeepers
from tidewheel.apps.stream_metrics import StreamMetrics, serve_metrics
from tidewheel.clock import Clock, SystemClock, utc_text
from tidewheel.errors import Unavailable
from tidewheel.features.ports import EventLog, LostWrites, OnlineStore

POLL_S = 0.02
RETRY_S = 0.5


class StreamWorker(StreamKeepers):
    """Keepers that tell what they do on stdout."""

    def __init__(
        self, home: LocalHome, link: WorkerLog | EventLog, store: OnlineStore, clock: Clock,
        counts: StreamCounts | None = None, copies: LakeCopies | None = None,
    ) -> None:  # fmt: skip
        super().__init__(home, link, store, clock, _teller(clock), counts, copies)


def _teller(clock: Clock) -> Callable[..., None]:
    return lambda event, **fields: log_line(clock, event, **fields)


def log_line(clock: Clock, event: str, **fields: Any) -> None:
    """One event as key=value on stdout, which the supervisor keeps as the log."""
    sys.stdout.write(f"{utc_text(clock.now_us())} {event} {_fields(fields)}\n")
    sys.stdout.flush()


def _fields(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())


def run(home: LocalHome, clock: Clock, stopped: threading.Event, metrics: StreamMetrics | None = None) -> None:
    """Work until ``stopped``; a store or a disk that fails is tried again."""
    metrics = metrics or StreamMetrics(clock)
    with _only_worker(home, stopped) as mine:
        if not mine:
            return
        log_line(clock, "started", home=str(home.root))
        while not stopped.is_set():
            try:
                _work(home, clock, stopped, metrics)
            except DamagedStore as error:
                log_line(clock, "store_set_aside", reason=str(error), kept=str(set_aside(error.path)))
            except LostWrites as error:
                log_line(clock, "begins_again", reason=str(error))
            except Unavailable as error:
                metrics.counts.store_errors += 1
                log_line(clock, "retrying", reason=str(error))
                stopped.wait(RETRY_S)
        log_line(clock, "stopped")


def _work(home: LocalHome, clock: Clock, stopped: threading.Event, metrics: StreamMetrics) -> None:
    """Until ``stopped``. Raises DamagedStore and LostWrites: what is lost is filled again from the log."""
    with ExitStack() as stack:
        store = open_online_store(home)
        stack.callback(store.close)
        link = open_worker_log(home, _teller(clock))
        stack.callback(link.close)
        copies = open_lake_copies(home, clock, _teller(clock))
        if copies is not None:
            copies.start()
            stack.callback(copies.close)
        worker = StreamWorker(home, link, store, clock, metrics.counts, copies)
        stack.callback(worker.close)
        metrics.keepers = worker
        while not stopped.is_set():
            wait_s = _turn(worker.step, clock, metrics)
            if wait_s:
                stopped.wait(wait_s)


def _turn(step: Callable[[], int], clock: Clock, metrics: StreamMetrics) -> float:
    """One step; how long to wait before the next."""
    try:
        return 0.0 if step() else POLL_S
    except (DamagedStore, LostWrites):
        raise
    except (Unavailable, OSError) as error:
        metrics.counts.store_errors += 1
        log_line(clock, "retrying", reason=str(error))
        return RETRY_S


@contextmanager
def _only_worker(home: LocalHome, stopped: threading.Event) -> Iterator[bool]:
    """Nothing to wait for where the log shares out the work."""
    home.root.mkdir(parents=True, exist_ok=True)
    if event_log_kind(read_connections(home).event_log) != "file":
        yield True
        return
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
    parser.add_argument("--metrics-port", type=int, default=0, help="Prometheus metrics; 0: none")
    parser.add_argument("--metrics-host", default="127.0.0.1", help="address of the metrics (default: %(default)s)")
    arguments = parser.parse_args()
    clock, stopped = SystemClock(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    metrics = StreamMetrics(clock)
    if arguments.metrics_port:
        try:
            serve_metrics(metrics, arguments.metrics_port, arguments.metrics_host)
        except OSError as error:  # events matter more than who counts them
            log_line(clock, "metrics_off", port=arguments.metrics_port, reason=str(error))
    run(LocalHome(arguments.home.resolve()), clock, stopped, metrics)


if __name__ == "__main__":
    main()
