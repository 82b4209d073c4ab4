"""`tidewheel train` on the template's own data with a real MLflow server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from servers.mlflow import free_port, mlflow_server
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.mlflow_registry import MlflowRegistry
from tidewheel.adapters.signing_keys import trusted_keys
from tidewheel.bundle.loader import load_bundle
from tidewheel.bundle.reference import read_reference
from tidewheel.cli.main import cli
from tidewheel.clock import parse_utc
from tidewheel.errors import Conflict, InputError
from tidewheel.findings import Decision, Finding
from tidewheel.journal.ledger import Journal

pytestmark = pytest.mark.integration

AS_OF = "2026-03-09"  # day 63 of the generator's calendar
FOLDERS = {"transactions": "transactions", "labels": "fraud_labels", "profiles": "customer_profiles"}


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(scope="module")
def history(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine weeks of a small world, as source files."""
    folder = tmp_path_factory.mktemp("history")
    generate = repository / "model_templates" / "card_fraud" / "generate.py"
    size = ["--days", "63", "--customers", "300", "--terminals", "400"]
    subprocess.run([sys.executable, generate, "--out", folder, *size], check=True, capture_output=True)
    return folder


@pytest.fixture
def project(repository: Path, history: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A project of this test's own name whose lake holds the history."""
    folder = tmp_path / "project"
    shutil.copytree(repository / "model_templates" / "card_fraud", folder)
    name = "p-" + request.node.name[-30:].replace("_", "-").strip("-")
    text = (folder / "project.yaml").read_text()
    first = next(line for line in text.splitlines() if line.startswith("name:"))
    edit(folder / "project.yaml", first, f"name: {name}")
    for source, target in FOLDERS.items():
        (LocalHome.of(folder).lake / target).mkdir(parents=True)
        shutil.copy(history / f"{source}.parquet", LocalHome.of(folder).lake / target)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) >= 1, f"{old!r} is not in {path.name}"
    path.write_text(text.replace(old, new, 1))


def run(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["train", str(project), *arguments, "--output", "json"], standalone_mode=False)


def train(project: Path, uri: str, *arguments: str) -> dict[str, Any]:
    result = run(project, "--tracking-uri", uri, *arguments)
    if result.exception is not None:
        raise result.exception
    body: dict[str, Any] = json.loads(result.stdout)
    return body


def told(project: Path, uri: str, *arguments: str) -> str:
    """What a person reads."""
    command = ["train", str(project), "--tracking-uri", uri, *arguments]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def name_of(project: Path) -> str:
    return (project / "project.yaml").read_text().split("name: ", 1)[1].split("\n", 1)[0]


def test_a_first_version_is_registered_with_its_lineage_and_waits_for_a_person(project: Path, mlflow_uri: str) -> None:
    made = train(project, mlflow_uri, "--as-of", AS_OF)
    assert (made["version"], made["alias"], made["gate"]["action"], made["champion"]) == ("1", None, "pass", None)
    assert made["metrics"]["average_precision"]["value"] > made["baseline"]["average_precision"]["value"]
    assert made["window"]["train_end"] == "2026-02-16T00:00:00Z"
    assert (made["window"]["holdout_start"], made["window"]["holdout_end"]) == (
        "2026-02-23T00:00:00Z",
        "2026-03-02T00:00:00Z",
    )
    registry = MlflowRegistry(mlflow_uri)
    version = registry.version(name_of(project), "1")
    home = LocalHome.of(project)
    bundle = load_bundle(home.bundles / version.digest, version.digest, trusted_keys(home))
    wanted = {
        "gate": "pass",
        "tidewheel.as_of": "2026-03-09T00:00:00Z",
        "tidewheel.window": "2026-01-19T00:00:00Z/2026-02-16T00:00:00Z",
        "tidewheel.holdout": "2026-02-23T00:00:00Z/2026-03-02T00:00:00Z",
        "tidewheel.label_delay": "7d",
        "tidewheel.n_rows": str(made["window"]["n_train"]),
        "tidewheel.feature_digest": bundle.plan.feature_digest,
        "tidewheel.spec_digest": bundle.plan.spec_digest,
        "tidewheel.parent_version": "none",
        "tidewheel.digest": version.digest,
    }
    assert {key: version.tags[key] for key in wanted} == wanted
    reference = read_reference(bundle.folder)
    assert [feature.name for feature in reference.features] == list(bundle.plan.names)
    assert {feature.n_rows for feature in reference.features} == {made["window"]["n_train"]}


def test_training_again_on_equal_data_gives_the_same_version(project: Path, mlflow_uri: str) -> None:
    first, second = (train(project, mlflow_uri, "--as-of", AS_OF) for _ in range(2))
    assert (first["version"], second["version"], first["digest"]) == ("1", "1", second["digest"])
    assert len(MlflowRegistry(mlflow_uri).versions(name_of(project))) == 1


def test_a_first_version_of_a_lower_tier_serves_at_once(project: Path, mlflow_uri: str) -> None:
    edit(project / "project.yaml", "tier: 1", "tier: 2")
    text = told(project, mlflow_uri, "--as-of", AS_OF)
    assert "version 1, gate pass" in text
    assert "alias @champion is set" in text
    assert MlflowRegistry(mlflow_uri).aliases(name_of(project)) == {"champion": "1"}


def test_a_challenger_meets_a_champion_that_keeps_its_old_features(project: Path, mlflow_uri: str) -> None:
    train(project, mlflow_uri, "--as-of", AS_OF)
    registry = MlflowRegistry(mlflow_uri)
    registry.set_alias(name_of(project), "champion", "1")
    shutil.rmtree(LocalHome.of(project).bundles)  # it comes from the registry then
    edit(project / "features.py", 'windows=["1h", "1d", "7d", "30d"]', 'windows=["1d", "30d"]')
    made = train(project, mlflow_uri, "--as-of", AS_OF)
    assert (made["version"], made["alias"], made["champion"]["version"]) == ("2", "challenger", "1")
    assert registry.aliases(name_of(project)) == {"champion": "1", "challenger": "2"}
    first = json.loads(registry.version(name_of(project), "1").tags["tidewheel.result"])
    assert made["champion"]["average_precision"] == pytest.approx(first["metrics"]["average_precision"], abs=1e-4)
    assert registry.version(name_of(project), "2").tags["tidewheel.parent_version"] == "1"


def test_a_stateful_project_continues_from_the_champion(project: Path, mlflow_uri: str) -> None:
    edit(project / "project.yaml", "mode: stateless", "mode: stateful ")
    first = train(project, mlflow_uri, "--as-of", "2026-03-08")
    assert first["notes"][0] == "there is no champion to continue from; trained from nothing"
    MlflowRegistry(mlflow_uri).set_alias(name_of(project), "champion", "1")
    second = train(project, mlflow_uri, "--as-of", AS_OF)
    import xgboost

    store = LocalHome.of(project).bundles
    rounds = [
        xgboost.Booster(model_file=store / made["digest"] / "model.ubj").num_boosted_rounds()
        for made in (first, second)
    ]
    assert (rounds, second["notes"]) == ([100, 200], [])


def test_a_refused_candidate_is_registered_without_an_alias(project: Path, mlflow_uri: str) -> None:
    edit(project / "project.yaml", "min: 0.50", "min: 0.99")
    made = train(project, mlflow_uri, "--as-of", AS_OF)
    assert (made["version"], made["alias"], made["gate"]["action"]) == ("1", None, "refuse")
    assert [finding["reason"] for finding in made["gate"]["findings"]] == ["BelowMinimum"]
    assert MlflowRegistry(mlflow_uri).version(name_of(project), "1").tags["gate"] == "refused"


ASKS = Decision("retrain", (Finding("CadenceDue", "every 7d", "info"),))


def test_an_approved_decision_is_carried_out_once(project: Path, mlflow_uri: str) -> None:
    name, journal = name_of(project), Journal(LocalHome.of(project).journal_url)
    decision = journal.record_decision(name, "retrain", parse_utc(AS_OF), ASKS, "pending").id
    with pytest.raises(Conflict, match=f"waits for a person; run 'tidewheel approve {decision}"):
        train(project, mlflow_uri, "--decision", decision)
    journal.approve(decision, "ann", "labels are in", project=name)
    first = train(project, mlflow_uri, "--decision", decision)
    assert (first["version"], first["decision"]["state"]) == ("1", "executed")
    second = train(project, mlflow_uri, "--decision", decision, "--as-of", "2026-03-10")
    assert (second["version"], second["digest"]) == ("1", first["digest"])
    assert len(MlflowRegistry(mlflow_uri).versions(name)) == 1


def test_a_run_that_died_after_registering_is_finished_and_not_repeated(project: Path, mlflow_uri: str) -> None:
    name, journal = name_of(project), Journal(LocalHome.of(project).journal_url)
    decision = journal.record_decision(name, "retrain", parse_utc(AS_OF), ASKS, "approved").id
    made = train(project, mlflow_uri, "--decision", decision)
    shutil.rmtree(LocalHome.of(project).lake)  # nothing to train on any more
    other = LocalHome.of(project).root / "journal.db"
    other.unlink()
    Journal(LocalHome.of(project).journal_url).record_decision(name, "retrain", parse_utc(AS_OF), ASKS, "approved")
    again = train(project, mlflow_uri, "--decision", decision)
    assert (again["version"], again["metrics"]) == (made["version"], made["metrics"])


def test_a_policy_that_asks_for_nothing_is_recorded_and_trains_nothing(project: Path, mlflow_uri: str) -> None:
    name, journal = name_of(project), Journal(LocalHome.of(project).journal_url)
    journal.start_run(name, "monitor", parse_utc(AS_OF))
    journal.finish_run(name, "monitor", parse_utc(AS_OF), {"exit_code": 0})
    for _ in range(2):
        made = train(project, mlflow_uri, "--if-needed", "--as-of", AS_OF)
        assert (made["version"], made["decision"]["action"]) == (None, "none")
    (decision,) = journal.decisions(name)
    assert decision.decision.reasons == ("NothingAsks",)
    skipping = run(project, "--if-needed", "--as-of", AS_OF, "--tracking-uri", mlflow_uri, "--skip-code", "99")
    assert skipping.return_value == 99  # nobody needs to be asked
    assert f"{decision.id}: none (none)" in told(project, mlflow_uri, "--if-needed", "--as-of", AS_OF)
    assert MlflowRegistry(mlflow_uri).versions(name) == ()


def test_a_time_before_any_mature_label_says_what_is_missing(project: Path, mlflow_uri: str) -> None:
    with pytest.raises(InputError, match="no labelled row between"):
        train(project, mlflow_uri, "--as-of", "2026-01-06")


def test_a_registry_that_is_down_stops_before_any_work(project: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "tidewheel", "train", project, "--as-of", AS_OF, "--tracking-uri", uri]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"error: {uri}: MLflow does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert not LocalHome.of(project).bundles.exists()
