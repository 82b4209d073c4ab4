"""What a project is in Kubernetes, as built: restricted, without a secret, and without a word about a version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidewheel.deployment.document import DeploymentDocument, Variant, document_from_json
from tidewheel.reconcile.applied import Applied
from tidewheel.reconcile.objects.config_maps import code_map, document_map, projects_map
from tidewheel.reconcile.objects.drift import is_as_wanted
from tidewheel.reconcile.objects.inference_service import inference_service, server_of
from tidewheel.reconcile.objects.network_policy import network_policy
from tidewheel.reconcile.objects.pod_monitor import pod_monitor
from tidewheel.reconcile.objects.settings import ClusterSettings
from tidewheel.reconcile.objects.stream_worker import stream_worker
from tidewheel.reconcile.ports import ModelServer

SETTINGS = ClusterSettings("team", "registry/serving:1", "registry/platform:1")
SERVER = ModelServer("tiny", 2, None, 4, 60, "500m", "2", "1Gi")
DOCUMENT = DeploymentDocument(
    "tiny", 3, "customer_id", "salt", "1", (Variant("1", "a" * 64, {"approve": 0.0}),), {"1": 1.0}
)


def every_object(settings: ClusterSettings = SETTINGS) -> list[dict[str, Any]]:
    return [
        inference_service(SERVER, settings, "uid-1"),
        stream_worker("tiny", settings, "uid-1"),
        document_map(DOCUMENT, settings, "uid-1"),
        code_map(Applied("tiny", "b" * 64, 5), settings, "uid-1"),
        network_policy("tiny", settings, "uid-1"),
        pod_monitor("tiny", settings, "uid-1"),
    ]


def pod_specs() -> list[dict[str, Any]]:
    return [
        inference_service(SERVER, SETTINGS, "u")["spec"]["predictor"],
        stream_worker("tiny", SETTINGS, "u")["spec"]["template"]["spec"],
    ]


@pytest.mark.parametrize("made", every_object(), ids=lambda made: made["kind"])
def test_every_object_is_in_the_namespace_labelled_and_owned_by_its_project(made: dict[str, Any]) -> None:
    about = made["metadata"]
    assert about["namespace"] == "team"
    assert about["labels"]["tidewheel.dev/project"] == "tiny"
    assert [owner["uid"] for owner in about["ownerReferences"]] == ["uid-1"]
    assert not any(label.startswith("serving.kserve.io") for label in about["labels"]), "KServe deletes what has them"


@pytest.mark.parametrize("spec", pod_specs(), ids=["model server", "stream worker"])
def test_pods_are_restricted_and_bounded(spec: dict[str, Any]) -> None:
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)
    for container in spec["containers"]:
        security = container["securityContext"]
        assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert not any("PASSWORD" in one["name"] or "SECRET" in one["name"] for one in container["env"])
        assert all(one["name"] != "PYTHONPATH" for one in container["env"]), "KServe refuses it"


def test_a_model_server_is_a_container_of_its_own_to_kserve_and_names_no_model() -> None:
    made = inference_service(SERVER, SETTINGS, "u")
    predictor = made["spec"]["predictor"]
    assert "model" not in predictor
    assert [one["name"] for one in predictor["containers"]] == ["kserve-container"]
    assert [port["name"] for port in predictor["containers"][0]["ports"]] == ["http1", "h2c"]
    assert made["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"


def test_replicas_that_cannot_grow_need_no_autoscaler() -> None:
    fixed = inference_service(replace(SERVER, max_replicas=2), SETTINGS, "u")
    grows = inference_service(SERVER, SETTINGS, "u")
    key = "serving.kserve.io/autoscalerClass"
    assert (fixed["metadata"]["annotations"][key], grows["metadata"]["annotations"][key]) == ("none", "hpa")


def test_a_live_inference_service_reads_back_as_the_server_that_it_stands_for() -> None:
    assert server_of(inference_service(SERVER, SETTINGS, "u")) == SERVER


def test_what_others_add_to_an_object_is_not_looked_at_and_what_they_change_is_seen() -> None:
    wanted = inference_service(SERVER, SETTINGS, "u")
    live = inference_service(SERVER, SETTINGS, "u")
    live["status"] = {"url": "http://tiny"}
    live["spec"]["predictor"]["timeout"] = 30
    assert is_as_wanted(wanted, live)
    live["spec"]["predictor"]["containers"][0]["image"] = "other"
    assert not is_as_wanted(wanted, live)
    assert not is_as_wanted({"a": [1, 2]}, {"a": [1, 2, 3]})
    assert not is_as_wanted({"a": None}, {})


def test_a_document_goes_through_its_config_map_unchanged() -> None:
    text = document_map(DOCUMENT, SETTINGS, "u")["data"]["tiny.json"]
    assert document_from_json(text.encode()) == DOCUMENT


def test_schedules_get_one_file_per_project_in_order_of_names() -> None:
    made = projects_map({"b": "name: b\n", "a": "name: a\n"}, SETTINGS)
    assert list(made["data"]) == ["a.yaml", "b.yaml"]
    assert "ownerReferences" not in made["metadata"], "it belongs to no single project"


def test_callers_are_everybody_or_those_with_the_labels_that_the_installation_names() -> None:
    opened = network_policy("tiny", SETTINGS, "u")["spec"]["ingress"][0]
    named = network_policy("tiny", replace(SETTINGS, callers={"role": "checkout"}), "u")["spec"]["ingress"][0]
    assert "from" not in opened
    assert named["from"][0]["podSelector"] == {"matchLabels": {"role": "checkout"}}
