"""`tidewheel sign` over a real MLflow: versions from before signatures, and a rotation of keys as the page says it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from memory.tiny import write_bundle, write_project
from servers.mlflow import mlflow_server
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.mlflow_registry import MlflowRegistry
from tidewheel.adapters.signing_keys import SIGNING_VARIABLE, TRUSTED_VARIABLE, trusted_keys
from tidewheel.apps.local_platform import unsigned_versions
from tidewheel.bundle.signature import SignatureRefused, verify_trusted
from tidewheel.cli.main import cli
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.journal.ledger import Journal
from tidewheel.whole_file import write_whole

pytestmark = pytest.mark.integration


def sign(project: Path, uri: str) -> dict[str, Any]:
    command = ["sign", str(project), "--tracking-uri", uri, "--output", "json"]
    result = CliRunner().invoke(cli, command, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    body: dict[str, Any] = json.loads(result.stdout)
    return body


def test_old_versions_are_signed_and_keys_rotated(tmp_path: Path) -> None:
    for name in (SIGNING_VARIABLE, TRUSTED_VARIABLE):
        os.environ.pop(name, None)
    project = write_project(tmp_path / "tiny")
    home = LocalHome.of(project)
    (tmp_path / "bundle").mkdir()
    digest = write_bundle(tmp_path / "bundle", key=None)
    with mlflow_server(tmp_path / "mlflow") as uri:
        registry = MlflowRegistry(uri)
        version = registry.register("tiny", tmp_path / "bundle", digest, tags={}, metrics={}, params={})
        here = home.bundles / digest
        registry.download(version, here)
        document = DeploymentDocument(
            "tiny", 1, "customer_id", "s", "1", (Variant("1", digest, {"approve": 0.0}),), {"1": 1.0}, (), ()
        )
        write_whole(home.deployments / "tiny.json", document.to_json())
        assert "run 'tidewheel sign PROJECT'" in unsigned_versions(home)["1"]

        first = sign(project, uri)
        assert (first["versions"], first["trusted_here"]) == ([{"version": "1", "digest": digest}], True)
        assert unsigned_versions(home) == {}
        verify_trusted(here, digest, trusted_keys(home))
        assert sign(project, uri)["versions"] == []

        (home.keys / "signing.pem").rename(home.keys / "old.pem")
        second = sign(project, uri)
        assert second["key"] != first["key"]
        assert [one["version"] for one in second["versions"]] == ["1"]
        (home.keys / "trusted" / f"{first['key'][:16]}.pem").unlink()
        verify_trusted(here, digest, trusted_keys(home))
        registry.download(version, tmp_path / "elsewhere")
        verify_trusted(tmp_path / "elsewhere", digest, trusted_keys(home))

        (home.keys / "trusted" / f"{second['key'][:16]}.pem").unlink()
        with pytest.raises(SignatureRefused, match="trusted are none"):
            verify_trusted(here, digest, trusted_keys(home))
    entries = Journal(home.journal_url).entries("tiny", kind="signed")
    assert [entry.body["key"] for entry in entries] == [first["key"], second["key"]]
