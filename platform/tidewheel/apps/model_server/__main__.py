"""``python -m tidewheel.apps.model_server --home DIR --project NAME --replica I --port PORT``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tidewheel.apps.model_server.endpoint import ApiKeys, MeshClients
from tidewheel.apps.model_server.http_connection import Limits
from tidewheel.apps.model_server.serve import Settings, run
from tidewheel.errors import InputError


def main() -> int:
    """Parse arguments and serve until SIGTERM. TIDEWHEEL_API_KEY_FILE names a file with the keys that callers need,
    TIDEWHEEL_MESH_CLIENTS_FILE one with the identities that may ask without."""
    usual = Limits()
    parser = argparse.ArgumentParser(prog="tidewheel.apps.model_server", description="Serve one model project.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--replica", type=int, default=0)
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one; replicas share a port")
    parser.add_argument("--host", default=Settings().host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--grpc-port", type=int, default=0, help="gRPC beside HTTP; 0 leaves it out (default: 0)")
    parser.add_argument("--log-format", choices=["text", "json"], default="text", help="of stderr (default: text)")
    parser.add_argument(
        "--otlp-endpoint", default=os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
        help="send traces to this collector, such as http://collector:4318 (default: OTEL_EXPORTER_OTLP_ENDPOINT)",
    )  # fmt: skip
    parser.add_argument(
        "--trace-ratio", type=float, default=Settings().trace_ratio,
        help="of the requests that come without a trace, how many to trace (default: %(default)g)",
    )  # fmt: skip
    for name, default, told in (
        ("request-timeout-s", usual.header_s, "a header, and then a body, must arrive within this"),
        ("idle-timeout-s", usual.idle_s, "a connection without a request is closed after this"),
        ("connection-age-s", usual.age_s, "a connection is closed after an answer at this age, give or take a tenth"),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{told} (default: %(default)g)")
    given = parser.parse_args()
    limits = Limits(
        header_s=given.request_timeout_s,
        body_s=given.request_timeout_s,
        idle_s=given.idle_timeout_s,
        age_s=given.connection_age_s,
    )
    key_file, client_file = (os.environ.get(f"TIDEWHEEL_{name}_FILE") for name in ("API_KEY", "MESH_CLIENTS"))
    try:
        keys = ApiKeys.of(Path(key_file)) if key_file else None
        clients = MeshClients.of(Path(client_file)) if client_file else None
    except (InputError, OSError) as error:
        parser.exit(1, f"TIDEWHEEL_API_KEY_FILE or TIDEWHEEL_MESH_CLIENTS_FILE: {error}\n")
    settings = Settings(
        limits,
        keys,
        clients,
        given.grpc_port or None,
        given.host,
        given.log_format,
        given.otlp_endpoint,
        given.trace_ratio,
    )  # fmt: skip
    return run(given.home, given.project, given.replica, given.port, settings)


if __name__ == "__main__":
    sys.exit(main())
