"""What Airflow itself makes of project files: DAGs, their tasks and pods, and what a broken file costs the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

IMAGE = "registry.test/platform:1"
PODS = {"TIDEWHEEL_TASKS": "pods", "TIDEWHEEL_NAMESPACE": "team", "TIDEWHEEL_PLATFORM_IMAGE": IMAGE}
ML = {"mlflow", "xgboost", "pandas", "numpy", "pyarrow", "duckdb", "feast", "evidently", "onnxruntime", "kubernetes"}


def write(folder: Path, template: str, name: str, *changes: tuple[str, str]) -> None:
    text = template
    for old, new in (("name: card-fraud", f"name: {name}"), *changes):
        assert old in text
        text = text.replace(old, new, 1)
    (folder / f"{name}.yaml").write_text(text)


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Project files as a ConfigMap mounts them, one of them broken."""
    made = tmp_path_factory.mktemp("projects")
    template = (repository / "model_templates" / "card_fraud" / "project.yaml").read_text()
    write(made, template, "fraud")
    write(made, template, "churn", ("tier: 1", "tier: 3"), ("every: 1d", "every: 6h"))
    write(made, template, "odd", ("every: 1d", "every: 36h"))
    write(made, template, "broken", ("window: 28d", "window: four weeks"))
    write(made, template, "alias")
    (made / "alias.yaml").write_text(template)
    return made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def told(folder: Path, home: Path, inside: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return inside(home, folder, "tell", **PODS)


def test_each_sound_project_has_its_dags_in_a_file_of_its_own(told: dict[str, Any]):
    names = {dag: one["file"] for dag, one in told["dags"].items()}
    assert names == {f"{p}__{stage}": f"{p}.py" for p in ("fraud", "churn", "odd") for stage in ("monitor", "train")}


def test_a_broken_file_is_an_import_error_of_its_project_alone_with_file_and_line(told: dict[str, Any], folder: Path):
    assert set(told["errors"]) == {"broken.py", "alias.py"}
    line = 1 + (folder / "broken.yaml").read_text().splitlines().index("  window: 28d".replace("28d", "four weeks"))
    assert f"{folder / 'broken.yaml'}:{line}: training.window" in told["errors"]["broken.py"]
    assert "pydantic" not in told["errors"]["broken.py"]
    assert "alias.yaml:2: name: must be that of the file, 'alias' (got 'card-fraud')" in told["errors"]["alias.py"]


def test_cadences_are_those_of_the_spec(told: dict[str, Any]):
    schedules = {dag: one["schedule"] for dag, one in told["dags"].items() if one["schedule"] != "None"}
    assert schedules == {
        "fraud__monitor": "10 0 * * *",
        "churn__monitor": "10 0,6,12,18 * * *",
        "odd__monitor": "1 day, 12:00:00",
    }


def test_reading_imports_no_model_library_and_no_kubernetes_client(told: dict[str, Any]):
    assert {name.split(".")[0] for name in told["modules"]} & ML == set()
    assert "airflow.providers.cncf.kubernetes.operators" not in told["modules"]
    assert "tidewheel.spec.project" in told["modules"]
    assert "tidewheel.spec.project" in told["modules"]


def test_a_file_is_read_in_less_than_five_milliseconds(told: dict[str, Any]):
    assert set(told["parse_ms"]) == {"fraud.py", "churn.py", "odd.py"}
    assert max(told["parse_ms"].values()) < 5


def test_a_dag_says_whose_it_is_and_what_to_do(told: dict[str, Any]):
    for name, dag in told["dags"].items():
        tier = "tier-3" if name.startswith("churn") else "tier-1"
        assert {"tidewheel", tier} <= set(dag["tags"]), name
        assert (dag["owner"], dag["max_active_runs"], dag["catchup"]) == ("payments-risk", 1, False)
        assert "### Triage" in dag["notes"]
        for task, one in dag["tasks"].items():
            assert one["retries"] >= 3, task
            assert one["timeout_s"] or task == "ask"


def test_a_monitor_starts_one_training_per_decision(told: dict[str, Any]):
    tasks = told["dags"]["churn__monitor"]["tasks"]
    assert tasks["monitor"]["command"] == ["monitor", "--as-of", "{{ times.as_of(dag_run, params) }}"]
    assert tasks["retrain"]["after"] == ["monitor"]
    assert tasks["retrain"]["run"] == "{{ times.retrain_run(dag_run, params) }}"


def test_a_person_is_asked_where_the_tier_demands_it_and_nowhere_else(told: dict[str, Any]):
    assert set(told["dags"]["churn__train"]["tasks"]) == {"train"}
    tasks = told["dags"]["fraud__train"]["tasks"]
    after = {name: one["after"] for name, one in tasks.items()}
    assert after == {
        "policy": [], "ask": ["policy"], "approve": ["ask"], "refuse": ["ask"], "ask_again": ["ask"],
        "train": ["approve"],
    }  # fmt: skip
    assert tasks["train"]["command"][:2] == ["train", "--decision"]


def test_job_pods_are_restricted_and_only_training_has_the_key(told: dict[str, Any]):
    assert len(told["pods"]) == 3 + 4 + 4 + 1  # monitors; policy, approve, refuse and train of two; one train
    for name, pod in told["pods"].items():
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert spec["serviceAccountName"] == "tidewheel-job"
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        project, task = name.split("__")[0], name.split(".")[1]
        assert container["args"][:3] == ["tidewheel.apps.job", project, "--"]
        assert container["envFrom"] == [
            {"configMapRef": {"name": "tidewheel-env"}},
            {"secretRef": {"name": "tidewheel-secrets"}},
            {"secretRef": {"name": "tidewheel-control"}},
        ]
        assert (container["image"], pod["metadata"]["namespace"]) == (IMAGE, "team")
        assert container["resources"] == {
            "requests": {"cpu": "200m", "memory": "768Mi"}, "limits": {"cpu": "2", "memory": "3Gi"},
        }  # fmt: skip
        signs = any(mount["name"] == "signing-key" for mount in container["volumeMounts"])
        assert signs == (task in ("policy", "train")), name
        assert spec["activeDeadlineSeconds"] > 0
        assert pod["metadata"]["labels"]["tidewheel.dev/project"] == project


def test_at_the_next_look_what_was_mended_is_there_what_was_removed_gone_and_the_rest_the_same(
    told: dict[str, Any], folder: Path, home: Path, inside: Callable[..., dict[str, Any]]
):
    broken = folder / "broken.yaml"
    broken.write_text(broken.read_text().replace("four weeks", "28d"))
    (folder / "alias.yaml").unlink()
    (folder / "odd.yaml").unlink()
    now = inside(home, folder, "tell", **PODS)
    assert now["files"] == ["broken.py", "churn.py", "fraud.py"]
    assert now["errors"] == {}
    assert {name for name in now["dags"] if name.startswith("broken")} == {"broken__monitor", "broken__train"}
    for name in ("fraud__train", "churn__monitor"):  # else each look made a new DAG version
        assert now["dags"][name]["serialized"] == told["dags"][name]["serialized"]
