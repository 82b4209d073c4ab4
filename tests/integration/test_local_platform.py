"""`up`, `down` and the supervisor: real processes, whatever happens to them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewheel.adapters.child_processes import belonging_to, is_alive
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.platform_state import PlatformState, read_platform
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def tidewheel(*arguments: str, code: int = 0) -> dict[str, Any]:
    line = [sys.executable, "-m", "tidewheel", *arguments, "--output", "json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code, done.stderr
    body: dict[str, Any] = json.loads(done.stdout) if code == 0 else {"error": done.stderr}
    return body


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("platform") / "card-fraud"
    tidewheel("new", "card-fraud", "--into", str(folder))
    tidewheel("up", str(folder))
    yield folder
    tidewheel("down", str(folder))


def state(project: Path) -> PlatformState:
    return read_platform(LocalHome.of(project))


def test_up_waits_until_every_process_is_healthy(project: Path):
    processes = state(project).processes
    assert {"mlflow", "stream-worker", "controller", "scheduler"} <= set(processes)
    assert {process.state for process in processes.values()} == {"running"}


def test_the_worker_tells_prometheus_at_the_port_that_is_shown(project: Path):
    port = state(project).processes["stream-worker"].port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"tidewheel_stream_up_to_date" in answer.read()


def test_up_again_changes_nothing(project: Path):
    before = state(project)
    assert tidewheel("up", str(project))["started"] is False
    assert {name: p.pid for name, p in state(project).processes.items()} == {
        name: p.pid for name, p in before.processes.items()
    }


@pytest.mark.parametrize("name", ["stream-worker", "controller", "scheduler"])
def test_a_killed_process_comes_back_and_the_crash_is_shown(project: Path, name: str):
    killed = state(project).processes[name]
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: state(project).processes[name].restarts > killed.restarts)
    until(lambda: state(project).processes[name].state == "running")
    now = state(project).processes[name]
    assert now.pid != killed.pid
    assert now.last_exit == -signal.SIGKILL


def test_a_killed_supervisor_leaves_nothing_that_the_next_up_does_not_replace(project: Path):
    home, before = LocalHome.of(project), state(project)
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: not is_alive(before.pid))
    tidewheel("up", str(project))
    now = state(project)
    old = {process.pid for process in before.processes.values()}
    assert not old & set(belonging_to(home.root))
    assert {process.state for process in now.processes.values()} == {"running"}


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path):
    tidewheel("new", "other", "--into", str(tmp_path / "other"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = tidewheel("up", str(tmp_path / "other"), "--mlflow-port", str(port), code=1)["error"]
    assert f"port {port} is in use; choose another with --mlflow-port or leave it out" in " ".join(error.split())
    assert belonging_to(LocalHome.of(tmp_path / "other").root) == []


def test_down_leaves_no_process_and_can_be_repeated(project: Path):
    home = LocalHome.of(project)
    assert tidewheel("down", str(project))["stopped"]
    assert belonging_to(home.root) == []
    assert tidewheel("down", str(project))["stopped"] == []
    assert "not running" in tidewheel("predict", str(project), "--request", "{}", code=1)["error"]
