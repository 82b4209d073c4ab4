"""The judge of renders sees what scanners do not: defects planted one at a time in a render that is sound."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from chart.judge import Object, faults
from chart.test_chart import rendered

Plant = Callable[[dict[str, Object]], Any]


def pod(one: Object) -> Object:
    spec: Object = one["spec"]["template"]["spec"]
    return spec


def first(one: Object) -> Object:
    container: Object = pod(one)["containers"][0]
    return container


PLANTS: list[tuple[str, str, Plant]] = [
    ("a digest of the wrong length", "is not a full name",
     lambda r: first(r["Deployment tidewheel-mlflow"]).update(image="a.example/b:1@sha256:12")),
    ("the tag latest", "is not a full name",
     lambda r: first(r["Deployment tidewheel-mlflow"]).update(image="a.example/b:latest")),
    ("a service account that is not there", "ServiceAccount nobody is not there",
     lambda r: pod(r["Deployment tidewheel-mlflow"]).update(serviceAccountName="nobody")),
    ("a secret that is not there", "Secret none is not there",
     lambda r: pod(r["StatefulSet tidewheel-valkey"])["volumes"].append(
         {"name": "x", "secret": {"secretName": "none"}})),
    ("a secret in the environment", "secrets as environment",
     lambda r: first(r["Deployment tidewheel-mlflow"])["env"].append(
         {"name": "X", "valueFrom": {"secretKeyRef": {"name": "tidewheel-secrets", "key": "X"}}})),
    ("a mount of no volume", "which are no volumes",
     lambda r: first(r["Deployment tidewheel-mlflow"])["volumeMounts"].append({"name": "x", "mountPath": "/x"})),
    ("a probe of a port that is not opened", "which is not its own",
     lambda r: first(r["Deployment tidewheel-mlflow"])["readinessProbe"]["httpGet"].update(port=81)),
    ("a policy that lets everything out", "lets everybody through",
     lambda r: r["NetworkPolicy tidewheel-names"]["spec"]["egress"].append({})),
    ("a policy that selects no pod", "selects no pod",
     lambda r: r["NetworkPolicy tidewheel-controller-asks"]["spec"]["podSelector"].update(
         matchLabels={"app.kubernetes.io/name": "controler"})),
    ("a policy whose peer is no pod", "a peer that is no pod",
     lambda r: r["NetworkPolicy tidewheel-to-mlflow-5000"]["spec"]["ingress"][0].update(
         {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "controler"}}}]})),
    ("no policy that denies everything", "nothing denies it everything",
     lambda r: r.pop("NetworkPolicy tidewheel-default-deny")),
    ("a budget that no drain passes", "no node could ever be drained",
     lambda r: r["PodDisruptionBudget tidewheel-controller"]["spec"].update(maxUnavailable=0)),
    ("replicas without a budget", "may be taken away at once",
     lambda r: r.pop("PodDisruptionBudget tidewheel-controller")),
    ("a service that leads nowhere", "leads nowhere",
     lambda r: r["Service tidewheel-mlflow"]["spec"]["selector"].update({"app.kubernetes.io/name": "mlfow"})),
    ("a service's port that is none", "leads nowhere",
     lambda r: r["Service tidewheel-mlflow"]["spec"]["ports"][0].update(targetPort="web")),
    ("a service that is seen from outside", "seen from outside",
     lambda r: r["Service tidewheel-mlflow"]["spec"].update(type="LoadBalancer")),
    ("a deployment that selects other pods", "does not select its own pods",
     lambda r: r["Deployment tidewheel-mlflow"]["spec"]["selector"]["matchLabels"].update(x="y")),
    ("a right to enter pods", "any other is got",
     lambda r: r["Role tidewheel-airflow"]["rules"].append(
         {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]})),
    ("a right to everything", "a right to everything",
     lambda r: r["Role tidewheel-controller"]["rules"][0].update(verbs=["*"])),
    ("a right to all secrets", "may read every secret",
     lambda r: r["Role tidewheel-controller"]["rules"].append(
         {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})),
    ("a binding of nobody", "binds what is not there",
     lambda r: r["RoleBinding tidewheel-controller"]["subjects"][0].update(name="nobody")),
    ("a scratch volume without an end", "may fill its node's disk",
     lambda r: pod(r["Deployment tidewheel-mlflow"])["volumes"][0].update(emptyDir={})),
    ("a volume of the node", "is a hostPath",
     lambda r: pod(r["Deployment tidewheel-mlflow"])["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ("a container without a limit", "limits are not complete",
     lambda r: first(r["Deployment tidewheel-mlflow"])["resources"].pop("limits")),
    ("a root file system to write to", "can write to its image",
     lambda r: first(r["Deployment tidewheel-mlflow"])["securityContext"].update(readOnlyRootFilesystem=False)),
    ("an init container with capabilities", "keeps capabilities",
     lambda r: pod(r["Deployment tidewheel-mlflow"])["initContainers"][0]["securityContext"].pop("capabilities")),
    ("the root user", "runs as root",
     lambda r: pod(r["Deployment tidewheel-mlflow"])["securityContext"].update(runAsUser=0)),
    ("a token that is not needed", "mounts a token",
     lambda r: pod(r["Deployment tidewheel-mlflow"]).pop("automountServiceAccountToken")),
    ("a token by another way", "has a token",
     lambda r: pod(r["Deployment tidewheel-mlflow"])["volumes"].append(
         {"name": "x", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}})),
    ("a job without an end", "may run for ever",
     lambda r: r["Job tidewheel-uninstall"]["spec"].pop("activeDeadlineSeconds")),
    ("a server without a probe", "no livenessProbe",
     lambda r: first(r["Deployment tidewheel-mlflow"]).pop("livenessProbe")),
    ("a secret in the render", "a render holds a secret",
     lambda r: r.update(x={"kind": "Secret", "metadata": {"name": "x"}})),
    ("a variable that is set twice", "set twice",
     lambda r: first(r["Deployment tidewheel-mlflow"])["env"].append({"name": "ARTIFACTS", "value": "s3://other"})),
]  # fmt: skip


@pytest.mark.parametrize(("said", "plant"), [pytest.param(said, plant, id=name) for name, said, plant in PLANTS])
def test_the_judge_sees(said: str, plant: Plant) -> None:
    objects = {f"{one['kind']} {one['metadata']['name']}": one for one in copy.deepcopy(rendered("everything"))}
    plant(objects)
    found = faults(list(objects.values()))
    assert any(said in fault for fault in found), found
