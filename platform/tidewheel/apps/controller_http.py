"""What a cluster's controller says over HTTP: whether it lives, whether its cluster answers, and figures."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidewheel.apps.cluster_controller import ClusterController

REQUEST_TIMEOUT_S = 5


def serve_health(controller: ClusterController, port: int) -> ThreadingHTTPServer:
    """On ``port``, by threads that end with the process."""

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:  # the base class calls it so
            health = controller.health
            match self.path:
                case "/healthz":
                    self._say(200 if health.alive else 503, "alive" if health.alive else "the loop does not turn")
                case "/readyz":
                    self._say(503 if health.fault else 200, health.fault or "ready")
                case "/metrics":
                    self._say(200, figures(controller))
                case _:
                    self._say(404, "there are /healthz, /readyz and /metrics")

        def _say(self, status: int, text: str) -> None:
            body = f"{text}\n".encode()
            self.send_response(status)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Probes are no news."""

    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)  # a pod's own network
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server


def figures(controller: ClusterController) -> str:
    """Prometheus' text."""
    here = controller.projects.here
    failing = int(bool(controller.health.fault))
    faults = sum(project.fault is not None for project in here.values())
    lines = (
        ("tidewheel_controller_leading", "Whether this replica acts.", int(controller.health.leading)),
        (
            "tidewheel_controller_failing",
            "Whether the newest round could not be done.",
            failing,
        ),
        ("tidewheel_controller_projects", "ModelProjects that are there.", len(here)),
        ("tidewheel_controller_projects_at_fault", "Those whose newest code is not in force.", faults),
    )
    return "\n".join(f"# HELP {name} {told}\n# TYPE {name} gauge\n{name} {value}" for name, told, value in lines)
