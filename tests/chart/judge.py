"""What a careful platform team asks of rendered objects. ``faults`` tells what is not so; scanners see little of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Object = dict[str, Any]
Objects = Sequence[Object]

NAME = "app.kubernetes.io/name"
TALK_TO_THE_API_SERVER = {"controller", "bootstrap", "airflow-scheduler", "uninstall"}
# Pods that the chart does not start, by the names that its policies know: of projects, and of a team.
BROUGHT = {"model-server", "stream-worker", "job", "producer", "ingress"}
# By the bootstrap Job and the controller, or by the team.
MADE_LATER = {"ConfigMap": {"trusted-keys", "projects"},
              "Secret": {"secrets", "control", "stores", "mlflow", "airflow", "signing-key"}}  # fmt: skip
FORBIDDEN = {"pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token", "nodes", "clusterroles"}
VOLUMES = {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim", "downwardAPI"}
IMAGE = re.compile(r"[a-z0-9.-]+(:\d+)?/[a-z0-9./_-]+:(?!latest\b)[A-Za-z0-9._-]+(@sha256:[0-9a-f]{64})?")


def faults(objects: Objects, release: str = "tidewheel") -> list[str]:
    return sorted({fault for rule in RULES for fault in rule(objects, release)})


def name_of(one: Object) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def pods(objects: Objects) -> Iterator[tuple[Object, dict[str, str], Object]]:
    """What starts it, its labels and its spec, for every pod."""
    for one in objects:
        if one["kind"] == "Pod":
            yield one, one["metadata"]["labels"], one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet", "Job", "DaemonSet"):
            template = one["spec"]["template"]
            yield one, template["metadata"]["labels"], template["spec"]


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def servers(objects: Objects) -> Iterator[Object]:
    return (one for one in objects if one["kind"] in ("Deployment", "StatefulSet"))


def _made(objects: Objects, kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in objects if one["kind"] == kind}


def _ports(spec: Object) -> set[Any]:
    ports = [port for one in spec["containers"] for port in one.get("ports", ())]
    return {port["name"] for port in ports} | {port["containerPort"] for port in ports}


# -- pods -------------------------------------------------------------------------------------------------------------


def restricted(objects: Objects, release: str) -> Iterator[str]:
    for one, _, spec in pods(objects):
        security = spec.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("runAsUser", 0) < 10000:
            yield f"{name_of(one)}: runs as root, or as a user that a node may have"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name_of(one)}: no seccomp profile"
        if {"hostNetwork", "hostPID", "hostIPC"} & spec.keys():
            yield f"{name_of(one)}: shares something of its node"
        for container in containers(spec):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{name_of(one)}/{container['name']}: may gain privileges"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{name_of(one)}/{container['name']}: can write to its image's files"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name_of(one)}/{container['name']}: keeps capabilities"


def bounded(objects: Objects, release: str) -> Iterator[str]:
    for one, _, spec in pods(objects):
        for container in containers(spec):
            for part in ("requests", "limits"):
                if not {"cpu", "memory"} <= container.get("resources", {}).get(part, {}).keys():
                    yield f"{name_of(one)}/{container['name']}: {part} are not complete"
        for volume in spec.get("volumes", ()):
            kind = next(key for key in volume if key != "name")
            if kind not in VOLUMES:
                yield f"{name_of(one)}: volume {volume['name']} is a {kind}"
            if kind == "emptyDir" and "sizeLimit" not in volume[kind]:
                yield f"{name_of(one)}: volume {volume['name']} may fill its node's disk"


def probed(objects: Objects, release: str) -> Iterator[str]:
    for one in servers(objects):
        spec = one["spec"]["template"]["spec"]
        for container in spec["containers"]:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe not in container:
                    yield f"{name_of(one)}/{container['name']}: no {probe}"
                for way in ("httpGet", "tcpSocket", "grpc"):
                    asked = container.get(probe, {}).get(way)
                    if asked and (asked["port"] not in _ports(spec) or "host" in asked):
                        yield f"{name_of(one)}: {probe} asks port {asked['port']}, which is not its own"
        if not spec.get("terminationGracePeriodSeconds", 0) >= 30:
            yield f"{name_of(one)}: is killed before it has come to an end"


def ended(objects: Objects, release: str) -> Iterator[str]:
    for one in objects:
        if one["kind"] == "Job" and not {"backoffLimit", "activeDeadlineSeconds"} <= one["spec"].keys():
            yield f"{name_of(one)}: may run for ever"


def tokens(objects: Objects, release: str) -> Iterator[str]:
    for one, labels, spec in pods(objects):
        sources = [
            source for volume in spec.get("volumes", ()) for source in volume.get("projected", {}).get("sources", ())
        ]
        has_token = any("serviceAccountToken" in source for source in sources)
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name_of(one)}: mounts a token whether it needs one or not"
        if has_token != (labels[NAME] in TALK_TO_THE_API_SERVER):
            yield f"{name_of(one)}: {'has a token' if has_token else 'has no token'}"


def images(objects: Objects, release: str) -> Iterator[str]:
    for one, _, spec in pods(objects):
        for container in containers(spec):
            if not IMAGE.fullmatch(container["image"]):
                yield f"{name_of(one)}: image {container['image']} is not a full name with tag, and digest if any"


def environment(objects: Objects, release: str) -> Iterator[str]:
    for one, _, spec in pods(objects):
        for container in containers(spec):
            names = [variable["name"] for variable in container.get("env", ())]
            if len(names) != len(set(names)):
                yield f"{name_of(one)}/{container['name']}: a variable is set twice"
            if any("secretKeyRef" in variable.get("valueFrom", {}) for variable in container.get("env", ())) or any(
                "secretRef" in source for source in container.get("envFrom", ())
            ):
                yield f"{name_of(one)}/{container['name']}: secrets as environment"


# -- what leads to what -----------------------------------------------------------------------------------------------


def resolved(objects: Objects, release: str) -> Iterator[str]:
    known = {kind: _made(objects, kind) | {f"{release}-{part}" for part in MADE_LATER.get(kind, ())}
             for kind in ("ConfigMap", "Secret", "ServiceAccount")}  # fmt: skip
    known["ConfigMap"].add("kube-root-ca.crt")
    for one, _, spec in pods(objects):
        used = [("ServiceAccount", spec.get("serviceAccountName", "default"))]
        for volume in spec.get("volumes", ()):
            sources = [volume, *volume.get("projected", {}).get("sources", ())]
            used += [("ConfigMap", source["configMap"]["name"]) for source in sources if "configMap" in source]
            used += [("Secret", source["secret"].get("secretName") or source["secret"]["name"])
                     for source in sources if "secret" in source]  # fmt: skip
        for container in containers(spec):
            used += [("ConfigMap", source["configMapRef"]["name"])
                     for source in container.get("envFrom", ()) if "configMapRef" in source]  # fmt: skip
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            volumes = {volume["name"] for volume in spec.get("volumes", ())}
            volumes |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())}
            if mounted - volumes:
                yield f"{name_of(one)}/{container['name']}: mounts {sorted(mounted - volumes)}, which are no volumes"
        for kind, name in used:
            if name not in known[kind]:
                yield f"{name_of(one)}: {kind} {name} is not there"


def selected(objects: Objects, release: str) -> Iterator[str]:
    labels_of_pods = [(labels, spec) for _, labels, spec in pods(objects)]
    for one in servers(objects):
        if not one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items():
            yield f"{name_of(one)}: does not select its own pods"
    for one in objects:
        if one["kind"] == "Service":
            chosen = [spec for labels, spec in labels_of_pods if one["spec"]["selector"].items() <= labels.items()]
            if one["spec"].get("type") != "ClusterIP":
                yield f"{name_of(one)}: is seen from outside of the cluster"
            for port in one["spec"]["ports"]:
                if not any(port["targetPort"] in _ports(spec) for spec in chosen):
                    yield f"{name_of(one)}: leads nowhere"
        if one["kind"] in ("PodDisruptionBudget", "PodMonitor") and not any(
            one["spec"]["selector"]["matchLabels"].items() <= labels.items() for labels, _ in labels_of_pods
        ):
            yield f"{name_of(one)}: selects no pod"


def disrupted(objects: Objects, release: str) -> Iterator[str]:
    budgets = [one for one in objects if one["kind"] == "PodDisruptionBudget"]
    for one in budgets:
        if one["spec"].get("maxUnavailable") in (0, "0%") or one["spec"].get("minAvailable") == "100%":
            yield f"{name_of(one)}: no node could ever be drained"
    for one in servers(objects):
        labels = one["spec"]["template"]["metadata"]["labels"].items()
        if one["spec"]["replicas"] > 1 and not any(
            budget["spec"]["selector"]["matchLabels"].items() <= labels for budget in budgets
        ):
            yield f"{name_of(one)}: all of its replicas may be taken away at once"


# -- network, rights --------------------------------------------------------------------------------------------------


def isolated(objects: Objects, release: str) -> Iterator[str]:
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    every = [labels for _, labels, _ in pods(objects)]
    denied = [one["spec"]["podSelector"] for one in policies if _denies_all(one["spec"])]
    for one, labels, _ in pods(objects):
        if not any(_matches(selector, labels) for selector in denied):
            yield f"{name_of(one)}: nothing denies it everything"
    for policy in policies:
        if not any(_matches(policy["spec"]["podSelector"], labels) for labels in [*every, *_brought()]):
            yield f"{name_of(policy)}: selects no pod"
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, ()):
                peers = rule.get(side) or []
                if not peers or any(not peer or peer == {"podSelector": {}} for peer in peers):
                    yield f"{name_of(policy)}: a rule that names nobody lets everybody through"
                for peer in peers:
                    inside = peer.get("podSelector")
                    if (
                        inside
                        and "namespaceSelector" not in peer
                        and not any(_matches(inside, labels) for labels in [*every, *_brought()])
                    ):
                        yield f"{name_of(policy)}: a peer that is no pod"
                if not rule.get("ports") and not all("ipBlock" in peer for peer in peers):
                    yield f"{name_of(policy)}: every port"


def _denies_all(spec: Object) -> bool:
    return spec["policyTypes"] == ["Ingress", "Egress"] and not {"ingress", "egress"} & spec.keys()


def _brought() -> list[dict[str, str]]:
    return [{NAME: name, "app.kubernetes.io/part-of": "tidewheel"} for name in BROUGHT]


def _matches(selector: Object, labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        (labels.get(one["key"]) in one["values"]) == (one["operator"] == "In")
        for one in selector.get("matchExpressions", ())
    )


def rights(objects: Objects, release: str) -> Iterator[str]:
    accounts = _made(objects, "ServiceAccount")
    roles = _made(objects, "Role")
    for one in objects:
        if one["kind"] in ("ClusterRole", "ClusterRoleBinding"):
            yield f"{name_of(one)}: holds in every namespace"
        if one["kind"] == "RoleBinding" and not (
            one["roleRef"]["name"] in roles and {who["name"] for who in one["subjects"]} <= accounts
        ):
            yield f"{name_of(one)}: binds what is not there"
        for rule in one.get("rules") or () if one["kind"] == "Role" else ():
            if "*" in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]:
                yield f"{name_of(one)}: a right to everything"
            if FORBIDDEN & set(rule["resources"]) or {"escalate", "bind", "impersonate"} & set(rule["verbs"]):
                yield f"{name_of(one)}: a right by which any other is got"
            if "secrets" in rule["resources"] and rule["verbs"] != ["create"] and not rule.get("resourceNames"):
                yield f"{name_of(one)}: may read every secret of the namespace"
        if one["kind"] == "Secret":
            yield f"{name_of(one)}: a render holds a secret"


RULES: tuple[Callable[[Objects, str], Iterator[str]], ...] = (
    restricted, bounded, probed, ended, tokens, images, environment, resolved, selected, disrupted, isolated, rights,
)  # fmt: skip
