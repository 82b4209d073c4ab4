"""The controller process: what the registry's aliases ask for becomes what model servers serve.

python -m tidewheel.apps.controller --home DIR --tracking-uri URI
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from tidewheel.adapters.local_cluster import LocalCluster
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.mlflow_registry import MlflowRegistry
from tidewheel.adapters.signing_keys import trust_of
from tidewheel.clock import SystemClock
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.controller import Controller

LOG = logging.getLogger("tidewheel.controller")
logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each poll of the registry says nothing
ROUND_EVERY_S = 0.5
REGISTRY_TIMEOUT_S = 5


def main() -> int:
    """Run rounds until SIGTERM or SIGINT; a round under way is finished first."""
    parser = argparse.ArgumentParser(prog="tidewheel.apps.controller", description="Deploy what aliases ask for.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--tracking-uri", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    home, clock = LocalHome(arguments.home.resolve()), SystemClock()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    registry = MlflowRegistry(arguments.tracking_uri, timeout_s=REGISTRY_TIMEOUT_S)
    journal, cluster = Journal(home.journal_url, clock), LocalCluster(home, clock)
    controller = Controller(home.root, journal, registry, cluster, clock, trust_of(home))
    LOG.info("event=started home=%s", home.root)
    while not stopping.is_set():
        try:
            controller.round()
        except Exception:  # a fault of ours must not stop the next round; servers keep serving meanwhile
            LOG.exception("event=round_failed")
        stopping.wait(ROUND_EVERY_S)
    LOG.info("event=stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
