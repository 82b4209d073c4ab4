"""What any cluster does, judged on the memory twin and on the local one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memory.cluster import MemoryCluster
from tidewheel.adapters.local_cluster import STATUS_VALID_US, LocalCluster
from tidewheel.adapters.local_home import LocalHome
from tidewheel.clock import FixedClock
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.deployment.status import ServerStatus, VersionStatus
from tidewheel.reconcile.ports import Cluster, ModelServer
from tidewheel.whole_file import write_whole

DOCUMENT = DeploymentDocument(
    "tiny", 3, "customer_id", "salt", "1", (Variant("1", "a" * 64, {"approve": 0.0}),), {"1": 1.0}
)


@pytest.fixture(params=["memory", "local"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Cluster:
    makers: dict[str, Callable[[], Cluster]] = {
        "memory": lambda: MemoryCluster(obedient=False),
        "local": lambda: LocalCluster(LocalHome(tmp_path), FixedClock(0)),
    }
    return makers[request.param]()


def test_a_new_cluster_is_empty(cluster: Cluster) -> None:
    assert (cluster.servers(), cluster.read_document("tiny"), cluster.server_status("tiny")) == ((), None, ())


def test_servers_are_kept_by_project_and_replaced(cluster: Cluster) -> None:
    cluster.apply_server(ModelServer("tiny", 2))
    cluster.apply_server(ModelServer("big", 1, 9000))
    cluster.apply_server(ModelServer("tiny", 3))
    assert cluster.servers() == (ModelServer("big", 1, 9000), ModelServer("tiny", 3))


def test_deleting_a_server_twice_is_the_same_as_once(cluster: Cluster) -> None:
    cluster.apply_server(ModelServer("tiny"))
    cluster.delete_server("tiny")
    cluster.delete_server("tiny")
    assert cluster.servers() == ()


def test_a_document_reads_back_and_is_replaced_whole(cluster: Cluster) -> None:
    cluster.write_document(DOCUMENT)
    assert cluster.read_document("tiny") == DOCUMENT
    assert cluster.read_document("tin") is None


# -- the local one alone: its files can be damaged, its servers can die -------------------------------------------


def status(pid: int, project: str = "tiny", replica: int = 0) -> ServerStatus:
    return ServerStatus(project, pid, replica, 8080, 3, 0, {"1": VersionStatus("a", "ready")}, {"requests": 7})


def written(home: LocalHome, told: ServerStatus) -> None:
    write_whole(home.server_status / f"{told.project}-{told.replica}.json", told.to_json())


def test_only_living_replicas_of_the_project_are_told(tmp_path: Path) -> None:
    home, clock = LocalHome(tmp_path), FixedClock(0)
    written(home, status(os.getpid()))
    written(home, status(2**22 - 1, replica=1))  # no such process
    written(home, status(os.getpid(), "tiny-more"))
    (home.server_status / "tiny-3.json").write_text("{")
    local = LocalCluster(home, clock)
    assert local.server_status("tiny") == (status(os.getpid()),)
    clock.at_us = STATUS_VALID_US + 1
    assert local.server_status("tiny") == ()


def test_damaged_files_read_as_absent(tmp_path: Path) -> None:
    home = LocalHome(tmp_path)
    for folder in (home.services, home.deployments):
        folder.mkdir()
        (folder / "tiny.json").write_text('{"project": ')
    local = LocalCluster(home)
    assert (local.servers(), local.read_document("tiny")) == ((), None)
