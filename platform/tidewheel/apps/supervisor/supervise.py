"""The supervisor's loop: start what should run, restart what crashed, write down how everything is.

It plays the kubelet's part on a laptop: the controller writes desired model servers as files, this process runs
them. It holds no other logic and no data.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import urllib.request
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tidewheel.adapters.child_processes import belonging_to, free_port, port_is_free, start, stop
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.platform_state import PlatformState, ProcessState, write_platform
from tidewheel.apps.supervisor.airflow import airflow_standalone, make_secrets
from tidewheel.apps.supervisor.backoff import Backoff
from tidewheel.apps.supervisor.processes import (
    ProcessSpec,
    desired_services,
    model_servers,
    platform_processes,
)
from tidewheel.clock import Clock

LOOK_EVERY_S = 0.1
HEALTH_TIMEOUT_S = 2.0
STOP_GRACE_S = 10.0


@dataclass
class Supervised:
    """One process and what happened to it."""

    spec: ProcessSpec
    process: subprocess.Popen[bytes] | None = None
    healthy: bool = False
    started_us: int = 0
    restarts: int = 0
    last_exit: int | None = None
    backoff: Backoff = field(default_factory=Backoff)

    def state(self, log: Path) -> ProcessState:
        running = self.process is not None
        word = ("running" if self.healthy else "starting") if running else "backing-off"
        pid = self.process.pid if self.process else None
        return ProcessState(pid, word, self.spec.port, self.restarts, str(log), self.last_exit)


class Supervisor:
    """Runs until told to stop; one per home."""

    def __init__(
        self, home: LocalHome, project: Path, clock: Clock, mlflow_port: int | None = None, airflow: Path | None = None
    ) -> None:
        self._home, self._clock = home, clock
        self._stopping = threading.Event()
        self._mlflow_port = mlflow_port or free_port()
        runs = None
        if airflow is not None:
            make_secrets(home)
            runs = airflow_standalone(home, project, airflow, free_port())
        self._platform = platform_processes(home, project, self._mlflow_port, free_port(), runs)
        self._running: dict[str, Supervised] = {}
        self._ports: dict[str, int] = {}
        self._grpc_ports: dict[str, int] = {}  # 0 where gRPC, an extra, is not installed
        self._has_grpc = find_spec("grpc") is not None and find_spec("grpc_health") is not None
        self._written: PlatformState | None = None
        self._written_as: tuple[int, int] | None = None
        self._pid, self._started_at_us = 0, clock.now_us()

    def run(self, pid: int) -> None:
        """Supervise until SIGTERM or SIGINT; then stop every process and remove the state file."""
        self._pid = pid
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        stop(belonging_to(self._home.root), STOP_GRACE_S)  # what a killed supervisor left behind
        try:
            while not self._stopping.is_set():
                self._look()
                self._write("running" if self._all_needed_are_healthy() else "starting")
                self._stopping.wait(LOOK_EVERY_S)
        finally:
            self._write("stopping")
            stop([s.process.pid for s in self._running.values() if s.process], STOP_GRACE_S)
            stop(belonging_to(self._home.root), STOP_GRACE_S)
            self._home.state_file.unlink(missing_ok=True)

    def _look(self) -> None:
        wanted = {spec.name: spec for spec in self._desired()}
        gone = [name for name in self._running if name not in wanted]
        if gone:
            stop([s.process.pid for name in gone if (s := self._running[name]).process], STOP_GRACE_S)
            for name in gone:
                del self._running[name]
        now_us = self._clock.monotonic_us()
        for name, spec in wanted.items():
            supervised = self._running.setdefault(name, Supervised(spec))
            self._reap(supervised, now_us)
            if supervised.process is None and now_us >= supervised.backoff.not_before_us:
                self._start(supervised, now_us)
            if supervised.process is not None and not supervised.healthy:
                supervised.healthy = _answers(spec)

    def _desired(self) -> tuple[ProcessSpec, ...]:
        servers: list[ProcessSpec] = []
        for service in desired_services(self._home):
            name, asked = str(service["project"]), service.get("port")
            if name not in self._ports:
                usable = isinstance(asked, int) and port_is_free(asked)
                self._ports[name] = asked if usable and isinstance(asked, int) else free_port()
                self._grpc_ports[name] = free_port() if self._has_grpc else 0
            servers.extend(model_servers(self._home, service, self._ports[name], self._grpc_ports[name]))
        return (*self._platform, *servers)

    def _start(self, supervised: Supervised, now_us: int) -> None:
        spec = supervised.spec
        supervised.process = start(spec.command, home=self._home.root, log=self._log(spec.name), extra=spec.environment)
        supervised.started_us, supervised.healthy = now_us, False

    def _reap(self, supervised: Supervised, now_us: int) -> None:
        if supervised.process is None or (code := supervised.process.poll()) is None:
            return
        supervised.process, supervised.healthy, supervised.last_exit = None, False, code
        supervised.restarts += 1
        supervised.backoff = supervised.backoff.crashed(now_us, now_us - supervised.started_us)

    def _all_needed_are_healthy(self) -> bool:
        return all(self._running[spec.name].healthy for spec in self._platform)

    def _log(self, name: str) -> Path:
        return self._home.logs / f"{name}.log"

    def _write(self, word: str) -> None:
        served = [
            project
            for project in self._ports
            if any(name.startswith(f"model-server-{project}-") for name in self._running)
        ]
        endpoints = {project: f"http://127.0.0.1:{self._ports[project]}" for project in served}
        grpc = {project: f"127.0.0.1:{port}" for project in served if (port := self._grpc_ports[project])}
        processes = {name: s.state(self._log(name)) for name, s in self._running.items()}
        uri = f"http://127.0.0.1:{self._mlflow_port}"
        state = PlatformState(self._pid, self._started_at_us, word, uri, processes, endpoints, grpc)
        # Also when somebody else removed or damaged the file: without it no command finds this platform.
        if state != self._written or _file_facts(self._home.state_file) != self._written_as:
            write_platform(self._home, state)
            self._written, self._written_as = state, _file_facts(self._home.state_file)


def _file_facts(path: Path) -> tuple[int, int] | None:
    """Time of change and size; None where there is no such file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _answers(spec: ProcessSpec) -> bool:
    if spec.health_path is None:
        return True
    url = f"http://127.0.0.1:{spec.port}{spec.health_path}"
    try:
        with urllib.request.urlopen(url, timeout=HEALTH_TIMEOUT_S) as reply:
            if reply.status != 200 or not spec.health_parts:
                return bool(reply.status == 200)
            told = json.loads(reply.read())
            return all(told.get(part, {}).get("status") == "healthy" for part in spec.health_parts)
    except (OSError, ValueError, AttributeError):  # URLError is an OSError
        return False
