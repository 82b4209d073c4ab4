"""``python -m tidewheel.apps.model_server --home DIR --project NAME --replica I --port PORT``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tidewheel.apps.model_server.serve import run


def main() -> int:
    """Parse arguments and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="tidewheel.apps.model_server", description="Serve one model project.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--replica", type=int, default=0)
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one; replicas share a port")
    arguments = parser.parse_args()
    return run(arguments.home, arguments.project, arguments.replica, arguments.port)


if __name__ == "__main__":
    sys.exit(main())
