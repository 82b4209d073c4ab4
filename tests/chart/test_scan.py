"""A scanner of Kubernetes objects finds nothing, and is told to pass over nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from chart.test_chart import PROFILES, template

IMAGES = ("serving", "platform", "mlflow", "airflow")
STORES = ("postgresql", "valkey", "kafka", "seaweedfs")
DIGEST = "sha256:" + "0" * 63 + "1"


def checkov(repository: Path) -> str:
    own = repository / ".scan-venv" / "bin" / "checkov"
    found = str(own) if own.is_file() else shutil.which("checkov")
    if found is None:
        pytest.skip("checkov is not here; 'make scan' installs it apart and runs this")
    return found


@pytest.mark.parametrize("profile", ["default", "production"])
def test_checkov_finds_nothing_in(repository: Path, tmp_path: Path, profile: str) -> None:
    program = checkov(repository)
    # By digest, as mirror-images prints them: a chart in a repository cannot know them before its images are built.
    pinned = [f"--set=images.digests.{name}={DIGEST}" for name in IMAGES]
    pinned += [f"--set=images.{name}=registry.example.com/team/{name}:1@{DIGEST}" for name in STORES]
    (tmp_path / "rendered.yaml").write_text(template(*PROFILES[profile], *pinned).stdout)
    done = subprocess.run(
        [program, "-d", str(tmp_path), "--framework", "kubernetes", "--compact", "--quiet", "--skip-download",
         "-o", "json"],
        capture_output=True, text=True, timeout=240, check=False, env={**os.environ, "LOG_LEVEL": "ERROR"},
    )  # fmt: skip
    told = json.loads(done.stdout)
    failed = [f"{one['check_id']} {one['resource']}: {one['check_name']}"
              for one in told.get("results", {}).get("failed_checks", ())]  # fmt: skip
    assert failed == []
    assert told["summary"]["skipped"] == told["summary"]["parsing_errors"] == 0
    assert told["summary"]["passed"] > 500
