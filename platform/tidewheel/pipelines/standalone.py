"""Airflow on one machine: `python -m tidewheel.pipelines.standalone`, run by Airflow's own Python.

It does what `airflow standalone` does, with three differences: all of it listens on loopback alone (no log servers: the
logs are files here), there is no triggerer (no task waits in one), and nothing is left running when this process ends,
however it ends. The configuration is in the environment.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
from pathlib import Path

COMPONENTS = (("scheduler", "--skip-serve-logs"), ("dag-processor",), ("api-server",))
LOOK_EVERY_S, STOP_GRACE_S = 0.5, 15.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Until SIGTERM, or until a component ends, which ends all: whoever supervises this process starts it again."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    _make_database()
    airflow = str(Path(sys.executable).with_name("airflow"))
    running = [
        subprocess.Popen([airflow, *line], preexec_fn=_die_with_parent)  # noqa: PLW1509  # one thread runs here
        for line in COMPONENTS
    ]
    try:
        while not stopping.wait(LOOK_EVERY_S):
            if ended := [one for one in running if one.poll() is not None]:
                return ended[0].returncode or 1
        return 0
    finally:
        _stop(running)


def _make_database() -> None:
    from airflow.utils.db import initdb

    initdb()


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
    for one in running:
        one.terminate()
    for one in running:
        try:
            one.wait(timeout=STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            one.kill()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
