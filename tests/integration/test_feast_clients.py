"""`tidewheel apply` tells stock Feast clients what there is: embedded in a file, or in PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from servers.postgres import PASSWORD, postgres_server
from tidewheel.adapters.connections import Connections, write_connections
from tidewheel.adapters.local_home import LocalHome

feast = pytest.importorskip("feast", reason="feast is not installed; install tidewheel[feast]")

pytestmark = pytest.mark.integration

ON = {name: value for name, value in os.environ.items() if name != "TIDEWHEEL_FEAST"}


def apply(project: Path, *options: str, environment: dict[str, str] | None = None) -> dict[str, str]:
    command = [sys.executable, "-m", "tidewheel", "apply", str(project), "--output", "json", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**ON, **(environment or {})}
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)["feast"]
    return told


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "card-fraud"
    command = [sys.executable, "-m", "tidewheel", "new", "card-fraud", "--into", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


def change_features(project: Path) -> None:
    """A window becomes longer: other states."""
    code = project / "features.py"
    text = code.read_text()
    assert "30d" in text
    code.write_text(text.replace("30d", "31d"))


def registry_of(project: Path) -> Any:
    return feast.FeatureStore(repo_path=str(LocalHome.of(project).feast)).registry


def test_apply_writes_the_registry_and_again_only_where_something_changed(project: Path):
    assert apply(project, "--wait") == {"state": "written", "reason": ""}
    registry = registry_of(project)
    views = {view.name: view for view in registry.list_feature_views("card_fraud")}
    (service,) = registry.list_feature_services("card_fraud")
    assert [projection.name for projection in service.feature_view_projections] == list(views)
    card = next(view for view in views.values() if view.tags["view"] == "card")
    assert card.name == f"card_{card.tags['state_id'][:8]}"
    assert [entity.name for entity in registry.list_entities("card_fraud") if entity.name != "__dummy"] == [
        "customer_id", "terminal_id",
    ]  # fmt: skip
    assert {str(field.dtype) for field in card.features if field.name == "state"} == {"Bytes"}
    before = (LocalHome.of(project).feast / "registry.db").stat()
    assert apply(project, "--wait") == {"state": "current", "reason": ""}
    assert (LocalHome.of(project).feast / "registry.db").stat().st_mtime_ns == before.st_mtime_ns
    change_features(project)
    assert apply(project, "--wait")["state"] == "written"
    now = {view.name for view in registry_of(project).list_feature_views("card_fraud")}
    assert len(now) == len(views)  # the old states have no version that reads them
    assert card.name not in now


def test_a_registry_that_cannot_be_written_is_told_and_stops_nothing(project: Path):
    write_connections(LocalHome.of(project), Connections(feast_registry="postgresql://svc@127.0.0.1:1/feast"))
    told = apply(project)
    assert told["state"] == "failed"
    assert "OperationalError" in told["reason"]
    assert (LocalHome.of(project).root / "applied" / "card-fraud.json").is_file()


def test_apply_can_be_told_to_leave_feast_alone(project: Path):
    assert apply(project, environment={"TIDEWHEEL_FEAST": "off"}) == {"state": "off", "reason": ""}
    assert not LocalHome.of(project).feast.exists()


def test_the_registry_is_in_postgres_where_there_is_one(project: Path, monkeypatch: pytest.MonkeyPatch):
    with postgres_server("feast") as url:
        write_connections(LocalHome.of(project), Connections(feast_registry=url))
        assert apply(project, environment={"PGPASSWORD": PASSWORD}) == {"state": "written", "reason": ""}
        config = (LocalHome.of(project).feast / "feature_store.yaml").read_text()
        assert "registry_type: sql" in config
        assert PASSWORD not in config
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        registry = registry_of(project)
        first = {view.name for view in registry.list_feature_views("card_fraud")}
        assert len(first) == 3
        change_features(project)
        assert apply(project, environment={"PGPASSWORD": PASSWORD})["state"] == "written"
        registry = registry_of(project)
        assert len({view.name for view in registry.list_feature_views("card_fraud")}) == 3
        assert {view.name for view in registry.list_feature_views("card_fraud")} != first
