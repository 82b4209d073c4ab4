"""An installation's life: upgraded, taken back, uninstalled; what stores hold and what was made once stays.

The tests go on from each other, in order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.card_world import write_cards
from servers.kube import Installation, Kube, eventually, install

pytestmark = pytest.mark.timeout(600)
KEPT = """
import json, os, socket, sys
from pathlib import Path
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
import mlflow
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.object_store import open_object_store
from tidewheel.clock import SystemClock
from tidewheel.journal.ledger import Journal

brokers = {"bootstrap.servers": os.environ["TIDEWHEEL_EVENT_LOG"].removeprefix("kafka://")}
store = open_object_store()

def valkey(*words):
    with socket.create_connection(("tidewheel-valkey", 6379), timeout=10) as link:
        for command in (("AUTH", os.environ["TIDEWHEEL_REDIS_PASSWORD"]), words):
            link.sendall((" ".join(command) + "\\r\\n").encode())
            said = link.recv(1000).decode()
    return said.strip().splitlines()[-1]

def put():
    with Journal(LocalHome.of(Path()).journal_url, SystemClock()) as journal:
        journal.append("kept", "check", {"id": "kept"}, actor="a test")
    store.put("kept/object", b"kept")
    assert valkey("SET", "kept", "kept") == "+OK"
    admin = AdminClient(brokers)
    for made in admin.create_topics([NewTopic("kept", 1, 1)]).values():
        made.result(30)
    producer = Producer(brokers)
    producer.produce("kept", b"kept")
    assert producer.flush(30) == 0
    mlflow.create_experiment("kept")

def get():
    with Journal(LocalHome.of(Path()).journal_url, SystemClock()) as journal:
        entry = journal.entries("kept", kind="check", limit=1, newest_first=True)[0].seq
    consumer = Consumer({**brokers, "group.id": "kept"})
    consumer.assign([TopicPartition("kept", 0, 0)])
    message = consumer.poll(30)
    consumer.close()
    print(json.dumps([entry, store.get("kept/object", 99).decode(), valkey("GET", "kept"),
                      message.value().decode(), mlflow.get_experiment_by_name("kept").name]))

{"put": put, "get": get}[sys.argv[1]]()
"""


@pytest.fixture(scope="module")
def made(kube: Kube, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    if not os.environ.get("TIDEWHEEL_TEST_IMAGES"):
        pytest.skip('no images: TIDEWHEEL_TEST_IMAGES is not set; run: eval "$(infra/test-cluster)"')
    with install(kube, repository, tmp_path_factory.mktemp("upgrade")) as made:
        made.inside("python", "-c", KEPT, "put")
        yield made


def kept(made: Installation) -> str:
    return made.inside("python", "-c", KEPT, "get").splitlines()[-1]


def secrets(made: Installation) -> dict[str, str]:
    """Every Secret's content, by a digest: a failing test must print none."""
    found = json.loads(made.kubectl("get", "secrets", "-l", "app.kubernetes.io/part-of=tidewheel", "-o", "json"))
    return {one["metadata"]["name"]: hashlib.sha256(json.dumps(one["data"], sort_keys=True).encode()).hexdigest()
            for one in found["items"]}  # fmt: skip


def pods_of(made: Installation, *names: str) -> set[str]:
    found = json.loads(made.kubectl("get", "pods", "-o", "json"))["items"]
    return {one["metadata"]["uid"] for one in found if one["metadata"]["labels"].get("app.kubernetes.io/name") in names}


def test_an_upgrade_and_its_rollback_keep_what_stores_hold_and_what_was_made_once(
    made: Installation, repository: Path
) -> None:
    before, held = secrets(made), kept(made)
    assert {"tidewheel-stores", "tidewheel-signing-key"} <= before.keys()
    stores = "postgresql", "valkey", "kafka", "object-store", "mlflow"
    running = pods_of(made, *stores)
    names = "postgresql", "valkey", "kafka", "objectStore", "mlflow"
    values = [f"--set={name}.resources.requests.memory=200Mi" for name in names]
    made.upgrade(repository, "--set", "airflow.enabled=false", *values)
    assert not running & pods_of(made, *stores), "every store has started anew"
    assert (secrets(made), kept(made)) == (before, held)
    made.helm("rollback", "tidewheel", "1", "--wait", "--timeout", "300s")
    assert (secrets(made), kept(made)) == (before, held)


def test_the_installation_says_by_itself_that_it_works(made: Installation) -> None:
    said = made.helm("test", "tidewheel", "--logs").stdout
    for neighbour in ("journal", "object store", "online store", "event log", "mlflow", "controller"):
        assert f"ok     {neighbour}" in said


def test_it_refuses_to_go_while_a_project_is_there_if_it_is_told_to(made: Installation, repository: Path) -> None:
    made.tidewheel("apply", str(write_cards(made.folder, "kept")))
    eventually(lambda: made.project("kept")["metadata"].get("finalizers"), 60)
    made.upgrade(repository, "--set", "airflow.enabled=false", "--set", "uninstall.deleteProjects=false")
    assert made.helm("uninstall", "tidewheel", check=False).returncode != 0
    assert "ModelProjects are still there: kept" in made.kubectl("logs", "job/tidewheel-uninstall")
    assert made.project("kept")["metadata"].get("deletionTimestamp") is None


def test_it_goes_with_its_projects_and_leaves_volumes_and_secrets(made: Installation, repository: Path) -> None:
    before = secrets(made)
    made.upgrade(repository, "--set", "airflow.enabled=false")
    made.helm("uninstall", "tidewheel", "--wait", "--timeout", "300s")
    assert made.kubectl("get", "modelprojects", "-o", "name") == ""
    kinds = "deployments,statefulsets,services,jobs,networkpolicies,roles,serviceaccounts,inferenceservices"
    left = made.kubectl("get", kinds, "-l", "app.kubernetes.io/part-of=tidewheel", "-o", "name")
    assert left == ""
    assert secrets(made) == before
    claims = made.kubectl("get", "persistentvolumeclaims", "-o", "name").split()
    assert len(claims) == 4


def test_installed_again_it_goes_on_with_what_it_had(made: Installation, repository: Path) -> None:
    made.upgrade(repository, "--set", "airflow.enabled=false")
    assert json.loads(kept(made))[1:] == ["kept", "kept", "kept", "kept"]
