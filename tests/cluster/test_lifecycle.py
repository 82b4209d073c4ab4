"""A project's life in a real cluster: applied, trained in a pod, served by KServe, rolled out, rolled back, removed.

The tests of this module go on from each other, in order; two pods serve, and what counts is the generation that each
of them says it serves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.card_world import LAST_DAY, answered, bodies, copy_of, feed, predict, write_cards
from servers.kube import Installation, eventually
from waiting import until

NAME = "cards"


@dataclass
class Life:
    made: Installation
    project: Path
    requests: Path
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.made.address(f'{NAME}-predictor')}"

    def serves(self, version: str) -> bool:
        """Both pods serve one generation, whose champion is this version."""
        status = self.made.status(NAME)
        told = self.made.generations(NAME)
        return status.get("version") == version and len(told) == 2 and set(told) == {status["generation"]}

    def train(self, as_of: str) -> str:
        return str(self.made.job(NAME, "train", "--as-of", as_of)["version"])

    def events(self) -> list[dict[str, Any]]:
        found = self.made.kubectl("get", "events", "--field-selector", f"involvedObject.name={NAME}", "-o", "json")
        items: list[dict[str, Any]] = json.loads(found)["items"]
        return items

    def pod_names(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.made.pods(NAME)}

    def restarts(self) -> int:
        return sum(
            one["restartCount"] for pod in self.made.pods(NAME) for one in pod["status"].get("containerStatuses", ())
        )


@pytest.fixture(scope="module")
def life(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("project")
    life = Life(installation, write_cards(folder, NAME), folder / "requests.parquet")
    yield life
    for name, seconds in life.figures.items():
        print(f"{name}: {seconds:.1f} s")


def test_an_applied_project_is_taken_over_with_its_stream_worker(life: Life) -> None:
    told = life.made.tidewheel("apply", str(life.project))
    assert told["changed"] is True
    assert told["status"]["stage"] == "empty"
    eventually(lambda: life.made.pods(NAME, "stream-worker")[0]["status"]["phase"] == "Running", 90)
    again = life.made.tidewheel("apply", str(life.project))
    assert again["changed"] is False


def test_events_are_taken_in_from_kafka_to_the_store_and_the_lake(life: Life) -> None:
    life.requests = feed(life.made, life.project, NAME)
    assert life.requests.stat().st_size > 100_000


def test_a_version_is_trained_in_a_pod_and_served_by_two(life: Life) -> None:
    version = life.train(LAST_DAY)  # the first that passes its gate is @champion
    began = time.monotonic()
    until(lambda: life.serves(version), limit_s=120)
    life.figures["an InferenceService from nothing to two serving pods"] = time.monotonic() - began
    eventually(lambda: all(_is_ready(pod) for pod in life.made.pods(NAME)), 60)


def test_it_decides_over_the_service_by_rest_and_by_grpc(life: Life) -> None:
    import asyncio

    from benchmarks.grpc_load import closed_loop, messages

    for body in bodies(life.requests, 5):
        answer = httpx.post(f"{life.url}/v2/models/{NAME}/infer", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        outputs = {one["name"]: one["data"][0] for one in answer.json()["outputs"]}
        assert outputs["decision"] in ("approve", "review", "decline")
        assert outputs["degraded"] is False, outputs["reasons"]
    sent = messages(NAME, [json.dumps(body).encode() for body in bodies(life.requests, 5)])
    address = f"{life.made.address(f'{NAME}-predictor')}:8081"
    asyncio.run(closed_loop(address, 1, sent, 20))  # raises where a call fails


def test_pods_are_restricted_and_hold_no_more_secrets_than_they_use(life: Life) -> None:
    for pod in life.made.pods(NAME) + life.made.pods(NAME, "stream-worker"):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            secrets = {one["secretRef"]["name"] for one in container["envFrom"] if "secretRef" in one}
            assert secrets == {"tidewheel-secrets"}, "neither the journal's password nor MLflow's"


def test_a_challenger_is_rolled_out_by_steps_under_load_without_a_failure(life: Life) -> None:
    before, restarts = life.pod_names(), life.restarts()
    load = predict(life.made, life.project, life.requests, life.url, limit=9000, rate=150)
    version = life.train("2026-02-17")  # passes its gate, so that it is @challenger
    until(lambda: life.serves(version), limit_s=120)
    told = answered(load)
    assert told["n_failed"] == 0
    assert told["n_degraded"] <= 0.01 * told["n_requests"], "a node of two cores trains a model meanwhile"
    said = [event["message"] for event in life.events() if event["reason"] == "GenerationMade"]
    for step in ("load", "step 1", "step 2"):
        assert any(f"rollout of {version}: {step}" in message for message in said), said
    assert life.pod_names() == before, "a new version starts no pod"
    assert life.restarts() == restarts


def test_rollback_is_served_by_both_pods_within_two_seconds_of_its_journal_entry(life: Life) -> None:
    load = predict(life.made, life.project, life.requests, life.url, limit=3000, rate=150)
    generation = life.made.status(NAME)["generation"]
    life.made.tidewheel("rollback", str(life.project), "--reason", "a test", "--no-wait")
    pods = [f"http://{pod['status']['podIP']}:8080/status" for pod in life.made.pods(NAME)]
    with httpx.Client(timeout=2) as client:
        until(lambda: life.made.status(NAME)["generation"] > generation, limit_s=20)
        until(lambda: all(client.get(pod).json()["generation"] > generation for pod in pods), limit_s=20)
        served = time.time()
    made_at = _journal_time(life, generation + 1)
    life.figures["rollback, from the journal's entry to both pods (the test looks every 0.1 s)"] = served - made_at
    told = answered(load)
    assert told["n_failed"] == 0
    assert life.serves("1")


def test_an_alias_that_a_person_moves_is_served_everywhere_within_ten_seconds(life: Life) -> None:
    began = time.monotonic()
    life.made.tidewheel("promote", str(life.project), "2", "--reason", "forward again", "--no-wait")
    until(lambda: life.serves("2"), limit_s=30)
    life.figures["alias moved, to all traffic on both pods"] = time.monotonic() - began
    assert life.figures["alias moved, to all traffic on both pods"] <= 10


def test_what_was_deleted_or_changed_by_hand_is_put_back(life: Life) -> None:
    life.made.kubectl("delete", "configmap", f"{NAME}-deployment")
    life.made.kubectl("patch", "inferenceservice", NAME, "--type=merge", "-p",
                      json.dumps({"spec": {"predictor": {"maxReplicas": 5}}}))  # fmt: skip
    life.made.kubectl("delete", "deployment", f"{NAME}-stream-worker")
    eventually(lambda: f"{NAME}-deployment" in life.made.kubectl("get", "configmaps", "-o", "name"), 30)
    eventually(
        lambda: life.made.kubectl("get", "isvc", NAME, "-o", "jsonpath={.spec.predictor.maxReplicas}") == "2", 30
    )
    eventually(lambda: len(life.made.pods(NAME, "stream-worker")) == 1, 30)
    eventually(lambda: life.serves("2"), 60)


def test_a_pod_that_is_deleted_under_load_costs_no_request(life: Life) -> None:
    load = predict(life.made, life.project, life.requests, life.url, limit=4500, rate=150)
    pod = sorted(life.pod_names())[0]
    life.made.kubectl("delete", "pod", pod, "--wait=false")
    told = answered(load)
    assert told["n_failed"] == 0
    eventually(lambda: life.serves("2"), 90)
    assert pod not in life.pod_names()


def test_a_killed_controller_goes_on_where_it_was(life: Life) -> None:
    life.made.kubectl("delete", "pod", "-l", "app.kubernetes.io/name=controller", "--grace-period=0", "--force")
    life.made.tidewheel("promote", str(life.project), "1", "--reason", "while it is away", "--no-wait")
    eventually(lambda: life.serves("1"), 120)


def test_code_that_nobody_signed_is_refused_and_what_was_in_force_stays(life: Life) -> None:
    other = copy_of(life.project, life.project.parent / "unsigned" / NAME)
    features = other / "features.py"
    features.write_text(features.read_text() + "\n# another digest\n")
    stranger = life.project.parent / "stranger.pem"
    from tidewheel.bundle.signature import SigningKey

    stranger.write_bytes(SigningKey.make().pem)
    before = life.made.status(NAME)["code"]
    told = life.made.tidewheel("apply", str(other), "--signing-key", str(stranger), code=1)
    assert "SignatureInvalid" in told["error"]
    status = life.made.status(NAME)
    assert (status["finding"], status["code"]) == ("SignatureInvalid", before)
    life.made.tidewheel("apply", str(life.project))
    eventually(lambda: life.made.status(NAME)["finding"] == "", 30)


def test_deleting_the_project_removes_all_that_was_made_of_it(life: Life) -> None:
    life.made.kubectl("delete", "modelproject", NAME, "--timeout=60s")
    kinds = "inferenceservices,deployments,configmaps,networkpolicies,pods"

    def left() -> list[str]:
        found = life.made.kubectl("get", kinds, "-l", f"tidewheel.dev/project={NAME}", "-o", "name")
        return found.split()

    eventually(lambda: not left(), 120)


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


def _journal_time(life: Life, generation: int) -> float:
    """When a generation was made, in Unix seconds, as the journal has it."""
    code = (
        "from pathlib import Path\n"
        "from tidewheel.adapters.local_home import LocalHome\n"
        "from tidewheel.journal.ledger import Journal\n"
        f"made = Journal(LocalHome.of(Path('.')).journal_url).generations('{NAME}')\n"
        f"print(next(one.recorded_at_us for one in made if one.generation == {generation}))"
    )
    return int(life.made.inside("python", "-c", code).strip().splitlines()[-1]) / 1e6
