"""`python -m tidewheel.apps.supervisor --home DIR --project DIR`: one per home, by a lock."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.apps.supervisor.supervise import Supervisor
from tidewheel.clock import SystemClock


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--mlflow-port", type=int)
    parser.add_argument("--airflow", type=Path, help="environment whose `airflow standalone` runs the schedules")
    given = parser.parse_args()
    home = LocalHome(given.home)
    home.root.mkdir(parents=True, exist_ok=True)
    with (home.root / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stdout.write("event=already-running\n")
            return 0
        Supervisor(home, given.project, SystemClock(), given.mlflow_port, given.airflow).run(os.getpid())
    return 0


if __name__ == "__main__":
    sys.exit(main())
