"""The chart as it renders: restricted, bounded, without a secret, the same each time, and strict about its values."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tidewheel"
PROFILES: dict[str, tuple[str, ...]] = {
    "default": (),
    "small": ("-f", str(CHART / "values-small.yaml")),
    "production": ("-f", str(CHART / "values-production.yaml")),
    "everything": ("--set", "controller.replicas=2,controller.podMonitors=true,alerts.enabled=true,"
                            "dashboards.enabled=true"),
}  # fmt: skip
WITH_TOKEN = {"controller", "bootstrap", "airflow-scheduler", "uninstall"}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("helm")
    if found is None:
        pytest.skip("helm is not on PATH; 'eval \"$(infra/test-cluster)\"' puts it there")
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)


@cache
def rendered(profile: str) -> list[dict[str, Any]]:
    done = helm("template", "tidewheel", str(CHART), "-n", "team", "--kube-version", "1.34.0",
                "--set", "kserve.check=false", *PROFILES[profile])  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [one for one in YAML(typ="safe").load_all(done.stdout) if one]


def pods(profile: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, labels and spec of every pod that the chart starts."""
    for one in rendered(profile):
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], one["metadata"]["labels"], one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet", "Job", "DaemonSet"):
            template = one["spec"]["template"]
            yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


every_profile = pytest.mark.parametrize("profile", PROFILES)


def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint", str(CHART), "--strict", "--set", "kserve.check=false")
    assert done.returncode == 0, done.stdout


@every_profile
def test_every_pod_is_restricted(profile: str) -> None:
    for name, _, spec in pods(profile):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] != 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for container in containers(spec):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name


@every_profile
def test_every_container_is_bounded_and_every_scratch_volume_too(profile: str) -> None:
    for name, _, spec in pods(profile):
        for container in containers(spec):
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), name
            assert {"cpu", "memory"} <= resources["limits"].keys(), name
        assert all("sizeLimit" in one["emptyDir"] for one in spec.get("volumes", ()) if "emptyDir" in one), name


@every_profile
def test_every_server_has_its_three_probes_and_every_job_an_end(profile: str) -> None:
    for one in rendered(profile):
        if one["kind"] in ("Deployment", "StatefulSet"):
            for container in one["spec"]["template"]["spec"]["containers"]:
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), container["name"]
        if one["kind"] == "Job":
            assert {"backoffLimit", "activeDeadlineSeconds"} <= one["spec"].keys(), one["metadata"]["name"]


@every_profile
def test_only_pods_that_talk_to_the_api_server_hold_a_token(profile: str) -> None:
    for name, labels, spec in pods(profile):
        assert spec["automountServiceAccountToken"] is False, name
        has_token = any("projected" in volume for volume in spec.get("volumes", ()))
        assert has_token == (labels["app.kubernetes.io/name"] in WITH_TOKEN), name
        if has_token:
            assert spec["serviceAccountName"] != "default", name


@every_profile
def test_no_render_holds_a_secret_and_two_are_the_same(profile: str) -> None:
    assert not [one for one in rendered(profile) if one["kind"] == "Secret"]
    again = helm("template", "tidewheel", str(CHART), "-n", "team", "--kube-version", "1.34.0",
                 "--set", "kserve.check=false", *PROFILES[profile]).stdout  # fmt: skip
    assert [one for one in YAML(typ="safe").load_all(again) if one] == rendered(profile)


@every_profile
def test_roles_name_what_they_need_and_nothing_wider(profile: str) -> None:
    assert not [one for one in rendered(profile) if one["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    for one in rendered(profile):
        for rule in one.get("rules", ()) if one["kind"] == "Role" else ():
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            assert not {"pods/exec", "pods/attach", "serviceaccounts/token"} & set(rule["resources"])
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["create"] or rule.get("resourceNames"), "no right to read any secret there is"


@every_profile
def test_services_are_inside_the_cluster_and_lead_to_a_port_of_their_pods(profile: str) -> None:
    for one in rendered(profile):
        if one["kind"] != "Service":
            continue
        assert one["spec"]["type"] == "ClusterIP"
        chosen = one["spec"]["selector"].items()
        ports = {
            port["name"]
            for _, labels, spec in pods(profile)
            if chosen <= labels.items()
            for container in spec["containers"]
            for port in container.get("ports", ())
        }
        assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports, one["metadata"]["name"]


@every_profile
def test_secrets_and_config_maps_that_pods_use_are_made_or_brought(profile: str) -> None:
    made = {one["metadata"]["name"] for one in rendered(profile) if one["kind"] == "ConfigMap"}
    later = {f"tidewheel-{name}" for name in ("trusted-keys", "projects")}  # by the bootstrap Job and the controller
    for name, _, spec in pods(profile):
        for volume in spec.get("volumes", ()):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in made | later, name
        for container in containers(spec):
            for source in container.get("envFrom", ()):
                if "configMapRef" in source:
                    assert source["configMapRef"]["name"] in made, name


@every_profile
def test_network_is_denied_but_for_named_peers(profile: str) -> None:
    policies = [one for one in rendered(profile) if one["kind"] == "NetworkPolicy"]
    deny = next(one for one in policies if one["metadata"]["name"].endswith("default-deny"))
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny["spec"] and "egress" not in deny["spec"]
    for policy in policies:
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, ()):
                assert rule.get(peers), f"{policy['metadata']['name']}: a rule without peers lets everybody in"
                assert rule.get("ports") or policy["metadata"]["name"].endswith("names"), policy["metadata"]["name"]


@every_profile
def test_more_than_one_replica_has_a_disruption_budget(profile: str) -> None:
    budgets = {one["metadata"]["name"] for one in rendered(profile) if one["kind"] == "PodDisruptionBudget"}
    several = {one["metadata"]["name"] for one in rendered(profile)
               if one["kind"] == "Deployment" and one["spec"]["replicas"] > 1}  # fmt: skip
    assert several <= budgets


def test_the_small_preset_stays_within_eight_gibibytes_and_four_cpus_of_requests() -> None:
    memory = cpu = 0.0
    for one in rendered("small"):
        if one["kind"] in ("Deployment", "StatefulSet"):
            for container in one["spec"]["template"]["spec"]["containers"]:
                memory += _mebibytes(container["resources"]["limits"]["memory"])
                cpu += _cpus(container["resources"]["limits"]["cpu"])
    assert memory <= 8 * 1024
    assert cpu <= 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mlflow.enabld=false", "enabld"),
        ("kafka.storage=5", "storage"),
        ("controller.replicas=0", "replicas"),
        ("images.pullPolicy=Sometimes", "pullPolicy"),
        ("postgresql.resources.limits.memory=lots", "memory"),
    ],
)
def test_a_value_that_is_misspelt_or_wrong_is_refused(given: str, said: str) -> None:
    done = helm("template", "t", str(CHART), "--kube-version", "1.34.0", "--set", "kserve.check=false", "--set", given)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_cluster_without_kserve_is_named_clearly() -> None:
    done = helm("template", "t", str(CHART), "--kube-version", "1.34.0")
    assert done.returncode != 0
    assert "KServe is not installed in this cluster" in done.stderr


@pytest.mark.parametrize("name", ["postgresql", "valkey", "kafka", "objectStore", "mlflow"])
def test_a_store_that_is_neither_bundled_nor_named_is_asked_for(name: str) -> None:
    done = helm("template", "t", str(CHART), "--kube-version", "1.34.0", "--set", "kserve.check=false",
                "--set", f"{name}.enabled=false")  # fmt: skip
    assert done.returncode != 0
    assert f"is needed where {name}.enabled is false" in done.stderr


def test_every_value_is_used() -> None:
    text = "\n".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    values = YAML(typ="safe").load((CHART / "values.yaml").read_text())
    unused = [path for path in _leaves(values) if not _is_used(path, text)]
    assert unused == []


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(node, dict) and node and path[-1:] not in (("resources",), ("labels",), ("env",)):
        for name, one in node.items():
            yield from _leaves(one, (*path, name))
    else:
        yield path


def _is_used(path: tuple[str, ...], text: str) -> bool:
    whole = re.escape(".".join(path))
    # Airflow's components are gone through by one template.
    through = path[0] == "airflow" and path[-1] == "resources" and f".Values.airflow.{path[1]}" in text
    return bool(re.search(rf"\.Values\.{whole}\b", text)) or through


def _mebibytes(text: str) -> float:
    return float(text[:-2]) * (1024 if text.endswith("Gi") else 1)


def _cpus(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def test_the_images_of_a_site_without_internet_are_all_listed() -> None:
    listed = set((ROOT / "charts" / "images.txt").read_text().split())
    used = {container["image"] for _, _, spec in pods("default") for container in containers(spec)}
    version = json.loads(json.dumps(YAML(typ="safe").load((CHART / "Chart.yaml").read_text())))["appVersion"]
    assert used | {f"ghcr.io/tidewheel/serving:{version}"} == listed
