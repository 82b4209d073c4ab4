"""The controller process: what the registry's aliases ask for becomes what model servers serve.

python -m tidewheel.apps.controller --home DIR --tracking-uri URI [--cluster kubernetes --namespace NS ...]
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from tidewheel.adapters.local_cluster import LocalCluster
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.mlflow_registry import MlflowRegistry
from tidewheel.adapters.signing_keys import trust_of
from tidewheel.apps.log_lines import set_up_log
from tidewheel.clock import SystemClock
from tidewheel.errors import InputError
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.controller import Controller

LOG = logging.getLogger("tidewheel.controller")
logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each poll of the registry says nothing
ROUND_EVERY_S = 0.5
REGISTRY_TIMEOUT_S = 5


def main() -> int:
    """Run rounds until SIGTERM or SIGINT; a round under way is finished first."""
    given = _arguments()
    set_up_log(given.log_format)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    home = LocalHome(given.home.resolve())
    LOG.info("event=started home=%s cluster=%s", home.root, given.cluster)
    try:
        if given.cluster == "kubernetes":
            _run_in_kubernetes(home, given, stopping)
        else:
            _run_here(home, given.tracking_uri, stopping)
    except InputError as error:
        LOG.error("event=cannot_start error=%s", error)
        return 1
    LOG.info("event=stopped")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tidewheel.apps.controller", description="Deploy what aliases ask for.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument(
        "--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI"),
        help="MLflow's address (default: MLFLOW_TRACKING_URI)",
    )  # fmt: skip
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    parser.add_argument("--cluster", choices=["local", "kubernetes"], default="local")
    cluster = parser.add_argument_group("in Kubernetes")
    cluster.add_argument("--namespace", default="default", help="where ModelProjects and all that follows are")
    cluster.add_argument("--serving-image", default="")
    cluster.add_argument("--platform-image", default="")
    cluster.add_argument("--pull-policy", choices=["Always", "IfNotPresent", "Never"], default="IfNotPresent")
    cluster.add_argument("--pull-secret", action="append", default=[], help="may be repeated")
    cluster.add_argument("--env-config-map", default="tidewheel-env")
    cluster.add_argument("--env-secret", default="tidewheel-secrets")
    cluster.add_argument("--trusted-keys", default="tidewheel-trusted-keys", help="ConfigMap of public keys")
    cluster.add_argument("--projects", default="tidewheel-projects", help="ConfigMap to keep the project files in")
    cluster.add_argument("--pod-monitors", action="store_true", help="make a PodMonitor for each project")
    cluster.add_argument("--network-policies", action="store_true", help="make a NetworkPolicy for each project")
    cluster.add_argument("--port", type=int, default=0, help="for /healthz, /readyz and /metrics; 0: none")
    given = parser.parse_args()
    if not given.tracking_uri:
        parser.error("--tracking-uri or MLFLOW_TRACKING_URI is needed")
    if given.cluster == "kubernetes" and not (given.serving_image and given.platform_image):
        parser.error("--serving-image and --platform-image are needed with --cluster kubernetes")
    return given


def _run_here(home: LocalHome, tracking_uri: str, stopping: threading.Event) -> None:
    clock = SystemClock()
    registry = MlflowRegistry(tracking_uri, timeout_s=REGISTRY_TIMEOUT_S)
    journal, cluster = Journal(home.journal_url, clock), LocalCluster(home, clock)
    controller = Controller(home.root, journal, registry, cluster, clock, trust_of(home))
    while not stopping.is_set():
        try:
            controller.round()
        except Exception:  # a fault of ours must not stop the next round; servers keep serving meanwhile
            LOG.exception("event=round_failed")
        stopping.wait(ROUND_EVERY_S)


def _run_in_kubernetes(home: LocalHome, given: argparse.Namespace, stopping: threading.Event) -> None:
    from tidewheel.apps.cluster_controller import ClusterController
    from tidewheel.apps.controller_http import serve_health
    from tidewheel.reconcile.objects.settings import ClusterSettings

    settings = ClusterSettings(
        given.namespace,
        given.serving_image,
        given.platform_image,
        given.env_config_map,
        given.env_secret,
        given.trusted_keys,
        given.projects,
        given.pull_policy,
        tuple(given.pull_secret),
        given.pod_monitors,
        given.network_policies,
    )
    controller = ClusterController(home, settings, given.tracking_uri, SystemClock())
    if given.port:
        serve_health(controller, given.port)
    controller.run(stopping)


if __name__ == "__main__":
    sys.exit(main())
