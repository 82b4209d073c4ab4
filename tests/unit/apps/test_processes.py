"""The command lines of a local platform's processes."""

from __future__ import annotations

from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.apps.supervisor.processes import model_servers


def test_replicas_of_a_project_share_a_port_for_each_protocol(tmp_path: Path) -> None:
    made = model_servers(LocalHome(tmp_path), {"project": "card-fraud", "replicas": 2}, 8080, 8081)
    assert [one.name for one in made] == ["model-server-card-fraud-0", "model-server-card-fraud-1"]
    for number, one in enumerate(made):
        told = dict(zip(one.command, one.command[1:], strict=False))
        assert (told["--replica"], told["--port"], told["--grpc-port"]) == (str(number), "8080", "8081")
