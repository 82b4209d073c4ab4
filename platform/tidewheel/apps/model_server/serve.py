"""Wires one model server process together and runs it: listener, event loop, threads, status file, shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from tidewheel import __version__
from tidewheel.adapters.connections import open_fetching_store, open_online_store
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.object_store import below, object_store_url
from tidewheel.apps.log_lines import LogFormat, set_up_log
from tidewheel.apps.model_server.endpoint import ApiKeys, Endpoint, MeshClients
from tidewheel.apps.model_server.explainer import Explainer
from tidewheel.apps.model_server.http_app import HttpApp
from tidewheel.apps.model_server.http_connection import Limits
from tidewheel.apps.model_server.http_server import HttpServer
from tidewheel.apps.model_server.spool import Spool
from tidewheel.apps.model_server.versions import Versions
from tidewheel.clock import SECOND_US, Clock, SystemClock, process_age_us
from tidewheel.deployment.status import ServerStatus
from tidewheel.serving.breaker import STATES
from tidewheel.serving.coalescer import Coalescer
from tidewheel.serving.last_good import LastGood
from tidewheel.serving.load import Stores
from tidewheel.serving.metrics import ServingMetrics
from tidewheel.serving.prediction_log import PredictionLog
from tidewheel.serving.shadow import ShadowScorer
from tidewheel.serving.shipper_files import LoggedColumns

if TYPE_CHECKING:
    from tidewheel.apps.model_server.grpc_server import GrpcServer
    from tidewheel.serving.tracing import Tracer

LOG = logging.getLogger("tidewheel.model_server")
DRAIN_S = 0.3  # callers learn by "connection: close" that they should go elsewhere
GRACE_S = 10
STATUS_EVERY_US = SECOND_US // 2
SPOOL_WAIT_S = 15.0
SHIP_GRACE_S = 20.0  # at the end; what is not shipped by then stays in the spool


@dataclass(frozen=True)
class Settings:
    """How a server meets its callers. Without ``keys`` and ``clients`` everybody is let in; ``grpc_port`` None leaves
    gRPC out."""

    limits: Limits = field(default_factory=Limits)
    keys: ApiKeys | None = None
    clients: MeshClients | None = None
    grpc_port: int | None = None
    host: str = "127.0.0.1"
    log_format: LogFormat = "text"
    otlp_endpoint: str | None = None
    trace_ratio: float = 0.01


def run(home_root: Path, project: str, replica: int, port: int, settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    set_up_log(settings.log_format)
    try:
        listener = listen(settings.host, port)
    except OSError as error:
        LOG.error("event=port_unusable port=%d error=%s", port, error)
        return 1
    # Latency over throughput: threads hand the interpreter over sooner, and collections are rare and small.
    sys.setswitchinterval(0.0002)
    gc.set_threshold(50_000, 20, 100)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is a file
    server = ModelServer(LocalHome(home_root.resolve()), project, replica, listener, SystemClock(), settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(server.serve())


def listen(host: str, port: int) -> socket.socket:
    """A listener that other replicas on this machine may share."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def _replace(path: Path, data: bytes) -> None:
    """Readers see the old bytes or the new ones. Not flushed to the disk: a status is worth nothing after a power cut,
    and a flush would hold up the event loop."""
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(data)
    temporary.replace(path)


def resident_bytes() -> int:
    """Memory of this process, 0 where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


class ModelServer:
    """One replica of one project."""

    def __init__(
        self,
        home: LocalHome,
        project: str,
        replica: int,
        listener: socket.socket,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._settings = settings
        self._home, self._project, self._replica, self._clock = home, project, replica, clock
        self._listener = listener
        self._port = int(listener.getsockname()[1])
        self._status_path = home.server_status / f"{project}-{replica}.json"
        self._status: ServerStatus | None = None
        self._cold_start_us = 0
        self._metrics = ServingMetrics(project, replica)

    async def serve(self) -> int:
        home, project = self._home, self._project
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        log = await self._open_log()
        if log is None:
            LOG.error("event=spool_taken folder=%s", home.spool / f"{project}-{self._replica}")
            return 1
        self._log = log
        lake = os.environ.get("TIDEWHEEL_LAKE_URL") or below(object_store_url(), "lake") or str(home.lake)
        self._spool = Spool(log, lake, project, self._settings.log_format, self._clock)
        self._shadow = ShadowScorer(log, self._clock)
        fetcher = open_fetching_store(home, loop)
        tracer = self._tracer()
        self._coalescer = Coalescer(fetcher, log, self._shadow, self._metrics, self._clock, tracer)
        stores = Stores(open_online_store(home), open_online_store(home), LastGood())
        self._explainer = Explainer(home.bundles, os.environ)
        self._versions = Versions(home, project, stores, self._clock, self._changed)
        endpoint = Endpoint(
            project,
            self._versions,
            self._coalescer,
            self._explainer,
            self._metrics,
            self._clock,
            self._settings.keys,
            self._settings.clients,
        )
        try:
            grpc_server = self._grpc_server(endpoint)
        except RuntimeError as error:
            LOG.error("event=port_unusable port=%s error=%s", self._settings.grpc_port, error)
            return 1
        self._coalescer.start(loop)
        self._shadow.start()
        server = self._http = HttpServer(
            HttpApp(endpoint, self._figures, self._told_status), self._listener, self._settings.limits, self._clock
        )
        following = asyncio.create_task(self._versions.run())
        telling = asyncio.create_task(self._tell())
        self._spool.start()
        await server.start()
        if grpc_server is not None:
            await grpc_server.start()
        LOG.info("event=started project=%s replica=%d port=%d", project, self._replica, self._port)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, following}, return_when=asyncio.FIRST_COMPLETED)
        failed = not stopped.done()
        endpoint.draining = True
        await asyncio.sleep(0 if failed else DRAIN_S)
        ends = [server.stop(GRACE_S), *([] if grpc_server is None else [grpc_server.stop(GRACE_S)])]
        await asyncio.gather(*ends)
        background = (following, telling, stopped)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await asyncio.to_thread(self._finish)
        LOG.info("event=stopped project=%s replica=%d", project, self._replica)
        return 1 if failed else 0

    def _grpc_server(self, endpoint: Endpoint) -> GrpcServer | None:
        if self._settings.grpc_port is None:
            return None
        from tidewheel.apps.model_server.grpc_server import GrpcServer  # an extra, and not for nothing

        return GrpcServer(endpoint, self._settings.host, self._settings.grpc_port, self._settings.limits)

    def _tracer(self) -> Tracer | None:
        if self._settings.otlp_endpoint is None:
            return None
        from tidewheel.adapters.otel_tracing import OtelTracer  # an extra, and not for nothing

        return OtelTracer(
            self._settings.otlp_endpoint, self._project, __version__, self._settings.trace_ratio, self._clock
        )

    def _finish(self) -> None:
        self._explainer.stop()
        self._coalescer.stop()
        self._shadow.stop()
        self._spool.stop(SHIP_GRACE_S)
        self._status_path.unlink(missing_ok=True)

    async def _open_log(self) -> PredictionLog | None:
        """The spool; a predecessor that still drains gets time to end."""
        pod_uid = os.environ.get("TIDEWHEEL_POD_UID", "")
        # Parts of the lake are named after it, so that those of two pods never meet.
        folder = self._home.spool / f"{self._project}-{pod_uid.replace('-', '') or self._replica}"
        deadline_us = self._clock.monotonic_us() + int(SPOOL_WAIT_S * SECOND_US)
        while True:
            try:
                return PredictionLog(folder, self._clock, pod_uid=pod_uid)
            except BlockingIOError:
                if self._clock.monotonic_us() > deadline_us:
                    return None
                await asyncio.sleep(0.2)

    def _changed(self) -> None:
        snapshot = self._versions.snapshot
        if snapshot is not None:
            self._cold_start_us = self._cold_start_us or process_age_us()
            columns = snapshot.columns
            self._spool.tell_columns(LoggedColumns(columns.logged, columns.event_time, columns.event_id))
            gc.freeze()  # versions live long; collections need not walk them
        self._write_status()

    def _status_now(self) -> ServerStatus:
        snapshot = self._versions.snapshot
        counters = self._metrics.counters() | {
            "log_written": self._log.counters.written,
            "log_lost": self._log.counters.lost,
            "log_shipped": self._spool.status().shipped,
            "shadow_dropped": self._shadow.counters.dropped,
        }
        return ServerStatus(
            self._project,
            os.getpid(),
            self._replica,
            self._port,
            snapshot.document.generation if snapshot else -1,
            self._clock.now_us(),
            self._versions.statuses(),
            counters,
        )

    def _write_status(self) -> None:
        self._status = self._status_now()
        try:
            _replace(self._status_path, self._status.to_json())
        except OSError as error:  # a full disk must not end a server that can answer
            LOG.warning("event=status_unwritten error=%s", error)

    def _told_status(self) -> bytes:
        """What the status file says, for a controller that is elsewhere."""
        return self._status_now().to_json()

    async def _tell(self) -> None:
        while True:
            if self._status is None or self._clock.now_us() - self._status.written_at_us >= STATUS_EVERY_US:
                self._write_status()
            await asyncio.sleep(0.25)

    def _figures(self) -> dict[str, dict[tuple[str, ...], float] | float]:
        """What the metrics do not keep themselves."""
        log, snapshot, shipper = self._log.counters, self._versions.snapshot, self._spool.status()
        return {
            "prediction_log_written_total": log.written,
            "prediction_log_lost_total": log.lost,
            "prediction_log_shipped_total": shipper.shipped,
            "prediction_log_torn_bytes_total": shipper.torn_bytes,
            "prediction_log_ship_failures_total": shipper.failures,
            "prediction_log_backlog_bytes": self._log.waiting_bytes,
            "prediction_log_syncs_total": log.syncs,
            "prediction_log_sync_seconds_total": log.sync_us / 1e6,
            "prediction_log_failing": float(log.failing),
            "shadow_scored_total": self._shadow.counters.scored,
            "shadow_dropped_total": self._shadow.counters.dropped,
            "waiting_rows": self._coalescer.waiting_rows,
            "open_connections": len(self._http.connections),
            "breaker_state": {(state,): float(state == self._coalescer.breaker_state) for state in STATES},
            "feature_age_seconds": {
                (name, view): age_us / 1e6
                for name, version in (snapshot.versions.items() if snapshot else ())
                for view, age_us in version.freshness.ages_us.items()
            },
            "cold_start_seconds": self._cold_start_us / 1e6,
            "process_cpu_seconds_total": sum(os.times()[:2]),
            "process_resident_memory_bytes": resident_bytes(),
            "generation": snapshot.document.generation if snapshot else -1,
            "ready": float(snapshot is not None),
        }
