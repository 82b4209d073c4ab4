"""Processes of this machine: start one with a log, stop one with its group, find what a home left behind.

Used by the supervisor and by `up` and `down`. A process belongs to a home when TIDEWHEEL_HOME in its
environment says so; that also finds grandchildren and what a killed supervisor left.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

HOME_VARIABLE = "TIDEWHEEL_HOME"
_PR_SET_PDEATHSIG = 1


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module with this Python."""
    return [sys.executable, "-m", module, *arguments]


def free_port() -> int:
    """A TCP port on loopback that nothing uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    """True where a server could listen on loopback at ``port``; a socket in TIME_WAIT does not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def start(
    command: Sequence[str], *, home: Path, log: Path, extra: Mapping[str, str] | None = None, with_parent: bool = True
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own, its output appended to ``log``.

    With ``with_parent`` the kernel ends it when this process dies, even by SIGKILL (Linux).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **(extra or {}), HOME_VARIABLE: str(home), "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_parent if with_parent and sys.platform == "linux" else None,  # noqa: PLW1509 (one thread)
        )


def stop(pids: Sequence[int], grace_s: float) -> None:
    """SIGTERM to each, SIGKILL with its whole session to those that stay longer than ``grace_s``."""
    processes = [process for pid in pids if (process := _process(pid))]
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        for child in _children(process):
            _signal(child, signal.SIGKILL)
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)


def belonging_to(home: Path, *, but: int = 0) -> list[int]:
    """Ids of this user's processes that were started for ``home``, except ``but`` and the caller."""
    found = []
    for process in psutil.process_iter(["pid"]):
        try:
            if process.pid not in (os.getpid(), but) and process.environ().get(HOME_VARIABLE) == str(home):
                found.append(process.pid)
        except (psutil.Error, OSError):  # gone meanwhile, or another user's
            continue
    return found


def is_alive(pid: int) -> bool:
    """True for a running process, False for a zombie or none."""
    process = _process(pid)
    return process is not None and process.status() != psutil.STATUS_ZOMBIE


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
