"""The API server refuses what `tidewheel validate` refuses: one verdict, whichever way a project comes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from servers.kube import Kube
from spec_samples import GOOD_PROJECT
from tidewheel.adapters.kubernetes_api import KubernetesApi
from tidewheel.adapters.kubernetes_projects import API
from tidewheel.errors import InputError, SpecError
from tidewheel.reconcile.objects.crd import custom_resource_definition
from tidewheel.reconcile.objects.model_project import model_project
from tidewheel.reconcile.objects.settings import KIND
from tidewheel.spec.load import load_project

DIGEST = "a" * 64

# Each changes the good project at a path; None takes the field away. The second says whether it is right.
CHANGES: list[tuple[str, dict[str, Any], bool]] = [
    ("nothing", {}, True),
    ("a description", {"description": "Stops fraud"}, True),
    ("tier 1", {"tier": 1}, True),
    ("tier 4", {"tier": 4}, False),
    ("tier as text", {"tier": "1"}, False),
    ("no owner", {"owner": None}, False),
    ("an empty owner", {"owner": ""}, False),
    ("a field nobody knows", {"ownr": "x"}, False),
    ("a nested field nobody knows", {"serving.deadlin": "5ms"}, False),
    ("no entities", {"entities": {}}, False),
    ("an entity without a type", {"entities.customer": {"key": "customer_id"}}, False),
    ("an entity of another type", {"entities.customer.type": "float64"}, False),
    ("an entity name with a dash", {"entities.my-card": {"key": "card_id", "type": "int64"}}, False),
    ("two entities with one key", {"entities.other": {"key": "customer_id", "type": "int64"}}, False),
    ("two entities", {"entities.terminal": {"key": "terminal_id", "type": "string"}}, True),
    ("no sources", {"sources": {}}, False),
    ("a request that is no source", {"request": "nothing"}, False),
    ("a request without an event id", {"sources.payments.event_id": None}, False),
    ("a request that is a table", {"sources.payments.topic": None}, False),
    ("a topic with a space", {"sources.payments.topic": "a b"}, False),
    ("a path out of the lake", {"sources.payments.path": "../x"}, False),
    ("an absolute path", {"sources.payments.path": "/x"}, False),
    ("a path with dots in a name", {"sources.payments.path": "a..b/c"}, True),
    ("a column of an unknown type", {"sources.payments.columns.amount": "decimal"}, False),
    ("no columns", {"sources.payments.columns": {}}, False),
    ("a column that is the event time", {"sources.payments.columns.at": "int64"}, False),
    ("a column that is the event id", {"sources.payments.columns.id": "int64"}, False),
    ("a column that is a key", {"sources.payments.columns.customer_id": "int64"}, False),
    ("a message key that is no entity", {"sources.payments.key": "terminal"}, False),
    ("a message key", {"sources.payments.key": "customer"}, True),
    ("a label of no source", {"label.source": "truth"}, False),
    ("a label of no column", {"label.column": "fraud"}, False),
    ("a label that is text", {"sources.labels.columns.is_fraud": "string"}, False),
    ("a delay without a unit", {"label.delay": "7"}, False),
    ("a delay of zero", {"label.delay": "0d"}, False),
    ("labels without an event id", {"sources.labels.event_id": None}, False),
    ("no training window", {"training": {}}, False),
    ("another trainer", {"training.trainer": "torch"}, False),
    ("parameters of several types", {"training.params": {"max_depth": 3, "eta": 0.1, "tree_method": "hist"}}, True),
    ("a parameter that is the platform's", {"training.params": {"objective": "binary:logistic"}}, False),
    ("a slice that is no column", {"training.gate.slices": ["city"]}, False),
    ("a slice", {"training.gate.slices": ["channel"]}, True),
    ("a gate over one", {"training.gate.min": 1.5}, False),
    ("no decision", {"serving.decision": {}}, False),
    ("no decision at zero", {"serving.decision": {"approve": 0.1}}, False),
    ("two decisions at one score", {"serving.decision": {"a": 0.0, "b": 0.5, "c": 0.5}}, False),
    ("a decision over one", {"serving.decision": {"a": 0.0, "b": 1.5}}, False),
    ("replicas the wrong way", {"serving.replicas": {"min": 3, "max": 2}}, False),
    ("a least number over the default most", {"serving.replicas": {"min": 2}}, False),
    ("no replica", {"serving.replicas": {"min": 0, "max": 2}}, False),
    ("memory without a unit", {"serving.resources": {"memory": "512"}}, False),
    ("a fallback to no decision", {"serving.fallback": {"decision": "maybe"}}, False),
    ("a fallback", {"serving.fallback": {"decision": "approve", "last_good": "10m"}}, True),
    ("a rollout of no entity", {"rollout": {"unit": "terminal"}}, False),
    ("a rollout", {"rollout": {"unit": "customer", "steps": [{"canary": {"traffic": 0.1, "for": "1h"}}]}}, True),
    ("a step of two kinds", {"rollout": {"unit": "customer", "steps": [
        {"shadow": {"for": "1h"}, "canary": {"traffic": 0.1, "for": "1h"}}]}}, False),
    ("a step of no kind", {"rollout": {"unit": "customer", "steps": [{}]}}, False),
    ("all of the traffic", {"rollout": {"unit": "customer", "steps": [
        {"canary": {"traffic": 1.0, "for": "1h"}}]}}, False),
    ("runs over of", {"retrain": {"persists": {"runs": 4, "of": 3}}}, False),
    ("a reason nobody finds", {"retrain": {"when": ["Boredom"]}}, False),
    ("a drift test nobody knows", {"monitoring": {"drift": {"test": "ks"}}}, False),
    ("a drift limit of zero", {"monitoring": {"drift": {"limit": 0.0}}}, False),
    ("a fraction where a number is counted", {"retrain": {"guards": {"max_per_30d": 1.5}}}, False),
]  # fmt: skip


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    name = f"crd-{uuid.uuid4().hex[:6]}"
    kube.api.apply(custom_resource_definition(), "tests")
    kube.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "tests")
    kube.run("wait", "--for=condition=Established", "crd/modelprojects.tidewheel.dev", "--timeout=30s")
    yield name
    kube.api.delete("v1", "Namespace", None, name)


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = YAML(typ="safe").load(GOOD_PROJECT)
    for path, value in changes.items():
        *above, last = path.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return tree


def accepts(api: KubernetesApi, tree: dict[str, Any], namespace: str) -> tuple[bool, str]:
    try:
        api.apply(model_project(tree, DIGEST, namespace, "tests"), "tests", dry_run=True)
    except InputError as error:
        return False, str(error)
    return True, ""


@pytest.mark.parametrize(("changes", "right"), [(c, r) for _, c, r in CHANGES], ids=[name for name, _, _ in CHANGES])
def test_the_api_server_and_validate_agree_on(
    kube: Kube, namespace: str, tmp_path: Path, changes: dict[str, Any], right: bool
) -> None:
    tree = changed(changes)
    with (tmp_path / "project.yaml").open("w") as file:
        YAML().dump(tree, file)
    try:
        load_project(tmp_path)
        told, said = True, ""
    except SpecError as error:
        told, said = False, str(error)
    there, answer = accepts(kube.api, tree, namespace)
    assert (told, there) == (right, right), f"validate: {said}\nAPI server: {answer}"


def test_an_object_under_another_name_than_its_project_is_refused(kube: Kube, namespace: str) -> None:
    wanted = model_project(changed({}), DIGEST, namespace, "tests")
    wanted["metadata"]["name"] = "other"
    with pytest.raises(InputError, match=r"metadata\.name must be spec.name"):
        kube.api.apply(wanted, "tests", dry_run=True)


def test_an_object_without_code_is_refused(kube: Kube, namespace: str) -> None:
    wanted = model_project(changed({}), DIGEST, namespace, "tests")
    del wanted["spec"]["code"]
    with pytest.raises(InputError, match=r"spec\.code"):
        kube.api.apply(wanted, "tests", dry_run=True)


def test_kubectl_shows_what_a_person_wants_to_see(kube: Kube, namespace: str) -> None:
    kube.api.apply(model_project(changed({}), DIGEST, namespace, "tests"), "tests")
    header = kube.run("-n", namespace, "get", "mp").splitlines()[0].split()
    assert header == ["NAME", "VERSION", "TRAFFIC", "STAGE", "READY", "FINDING", "AGE"]
    assert API == "tidewheel.dev/v1alpha1" and KIND == "ModelProject"
