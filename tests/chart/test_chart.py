"""The chart as it renders: restricted, bounded, without a secret, the same each time, and strict about its values."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from chart.judge import containers, faults, name_of, pods

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tidewheel"
PROFILES: dict[str, tuple[str, ...]] = {
    "default": (),
    "small": ("-f", str(CHART / "values-small.yaml")),
    "production": ("-f", str(CHART / "values-production.yaml")),
    "everything": ("-f", str(Path(__file__).parent / "everything.yaml")),
}  # fmt: skip


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("helm")
    if found is None:
        pytest.skip("helm is not on PATH; 'eval \"$(infra/test-cluster)\"' puts it there")
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)


def template(*arguments: str, check: str = "false") -> subprocess.CompletedProcess[str]:
    return helm("template", "tidewheel", str(CHART), "-n", "team", "--kube-version", "1.34.0",
                "--set", f"kserve.check={check}", *arguments)  # fmt: skip


def objects_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [one for one in YAML(typ="safe").load_all(done.stdout) if one]


@cache
def rendered(profile: str) -> list[dict[str, Any]]:
    return objects_of(template(*PROFILES[profile]))


every_profile = pytest.mark.parametrize("profile", PROFILES)


def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint", str(CHART), "--strict", "--set", "kserve.check=false")
    assert done.returncode == 0, done.stdout


@every_profile
def test_a_render_is_what_a_careful_team_asks_for(profile: str) -> None:
    assert faults(rendered(profile)) == []


@every_profile
def test_two_renders_are_the_same(profile: str) -> None:
    assert objects_of(template(*PROFILES[profile])) == rendered(profile)


def test_the_small_preset_stays_within_eight_gibibytes_and_four_cpus() -> None:
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


def test_a_cluster_that_lacks_what_the_chart_needs_is_named_clearly() -> None:
    done = template(check="true")
    assert done.returncode != 0
    assert "KServe is not installed in this cluster" in done.stderr
    done = template("--api-versions", "serving.kserve.io/v1beta1", check="true")
    assert done.returncode != 0
    assert "install the chart tidewheel-crds first" in done.stderr
    objects_of(template("--api-versions", "serving.kserve.io/v1beta1,tidewheel.dev/v1alpha1", check="true"))


@pytest.mark.parametrize("name", ["postgresql", "valkey", "kafka", "objectStore", "mlflow"])
def test_a_store_that_is_neither_bundled_nor_named_is_asked_for(name: str) -> None:
    done = helm("template", "t", str(CHART), "--kube-version", "1.34.0", "--set", "kserve.check=false",
                "--set", f"{name}.enabled=false")  # fmt: skip
    assert done.returncode != 0
    assert f"is needed where {name}.enabled is false" in done.stderr


def test_a_job_that_changes_is_another_job() -> None:
    """A Job cannot be changed in place; a render for GitOps is always of revision 1."""
    before = {one["metadata"]["name"] for one in rendered("default") if one["kind"] == "Job"}
    after = {
        one["metadata"]["name"] for one in objects_of(template("--set-string", "images.tag=9")) if one["kind"] == "Job"
    }
    assert before & after == {"tidewheel-uninstall"}, "only the hook, which Helm makes anew"


def test_every_pod_runs_where_the_team_says_and_pulls_with_its_secret() -> None:
    for one, _, spec in pods(rendered("everything")):
        assert spec["nodeSelector"] == {"disk": "fast"}, name_of(one)
        assert spec["tolerations"] == [{"key": "team", "operator": "Exists"}], name_of(one)
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name_of(one)


def test_endpoints_of_named_projects_are_reached_by_v1_and_v2() -> None:
    routes = {one["kind"]: one["spec"] for one in rendered("everything") if one["kind"] in ("Ingress", "HTTPRoute")}
    paths = {
        (path["path"], path["backend"]["service"]["name"], path["backend"]["service"]["port"]["number"])
        for path in routes["Ingress"]["rules"][0]["http"]["paths"]
    }
    wanted = {"/v2/models/card-fraud", "/v1/models/card-fraud:predict", "/v1/models/card-fraud"}
    assert paths == {(path, "card-fraud-predictor", 80) for path in wanted}
    (rule,) = routes["HTTPRoute"]["rules"]
    assert {match["path"]["value"] for match in rule["matches"]} == wanted
    assert rule["backendRefs"] == [{"name": "card-fraud-predictor", "port": 80}]


@pytest.mark.parametrize("way", ["ingress", "httpRoute"])
def test_a_way_in_without_a_project_or_a_host_is_asked_for(way: str) -> None:
    on = ("--set", f"endpoints.{way}.enabled=true", "--set", "endpoints.httpRoute.gateway=public")
    assert "names no project" in template(*on, "--set", "endpoints.host=a.example.com").stderr
    if way == "ingress":
        assert "endpoints.host is needed" in template(*on, "--set", "endpoints.projects={a}").stderr


def _mebibytes(text: str) -> float:
    return float(text[:-2]) * (1024 if text.endswith("Gi") else 1)


def _cpus(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def test_the_images_of_a_site_without_internet_are_all_listed() -> None:
    listed = set((ROOT / "charts" / "images.txt").read_text().split())
    used = {container["image"] for _, _, spec in pods(rendered("default")) for container in containers(spec)}
    version = YAML(typ="safe").load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert used | {f"ghcr.io/tidewheel/serving:{version}"} == listed
