"""The loop broken on purpose, on the real local platform: it goes on serving, says what is wrong, and recovers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.platform_state import read_platform
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

HISTORY_DAYS = 63
AS_OF = "2026-03-09"


def tidewheel(*arguments: str, code: int = 0) -> dict[str, Any]:
    line = [sys.executable, "-m", "tidewheel", *arguments, "--output", "json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code, done.stderr[-3000:]
    body: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {"error": done.stderr}
    return body


class Loop:
    """A small town on a running platform, with three versions registered and the first one serving."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder / "card-fraud"
        self.home = LocalHome.of(self.project)
        tidewheel("new", "card-fraud", "--into", str(self.project))
        tidewheel("up", str(self.project))
        self.generate("history", 0, HISTORY_DAYS)
        self.ingest("history", "transactions", "labels", "profiles")
        self.digests: dict[str, str] = {}
        spec = self.project / "project.yaml"
        text = spec.read_text()
        for trees in (100, 60, 40):
            spec.write_text(text.replace("n_estimators: 100", f"n_estimators: {trees}"))
            made = tidewheel("train", str(self.project), "--as-of", AS_OF)
            self.digests[made["version"]] = made["digest"]
        tidewheel("promote", str(self.project), "1", "--reason", "first version")

    def generate(self, out: str, first: int, days: int) -> None:
        script = self.project / "generate.py"
        small = ("--customers", "400", "--terminals", "500")
        given = ("--out", str(self.folder / out), "--first-day", str(first), "--days", str(days), *small)
        subprocess.run([sys.executable, str(script), *given], check=True, timeout=60, capture_output=True)

    def ingest(self, folder: str, *names: str) -> None:
        sources = [part for n in names for part in ("--source", f"{n}={self.folder / folder / n}.parquet")]
        tidewheel("ingest", str(self.project), *sources, "--wait")

    def answers(self) -> str:
        """The version that answers a request now."""
        request = {"tx_id": 1, "customer_id": 3, "terminal_id": 17, "tx_time": f"{AS_OF}T10:00:00Z", "amount": 9.5}
        reply = tidewheel("predict", str(self.project), "--request", json.dumps({**request, "channel": "online"}))
        return str(reply["model_version"])

    def status(self) -> dict[str, Any]:
        return tidewheel("status", str(self.project))

    def server_pid(self) -> int:
        pid = read_platform(self.home).processes["model-server-card-fraud-0"].pid
        assert pid is not None
        return pid


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("loop")
    try:
        yield Loop(folder)
    finally:
        tidewheel("down", str(folder / "card-fraud"))


def test_a_server_killed_in_the_swap_comes_back_with_the_new_version(loop: Loop):
    promote = [sys.executable, "-m", "tidewheel", "promote", str(loop.project), "2", "--reason", "better"]
    document = loop.home.deployments / "card-fraud.json"
    swap = subprocess.Popen(promote, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed = loop.server_pid()
    # The new version is named as warm while servers load it: the moment between the old and the new.
    until(lambda: '"2"' in document.read_text())
    os.kill(killed, signal.SIGKILL)
    assert swap.wait(timeout=60) == 0
    assert loop.server_pid() != killed
    assert loop.answers() == "2"
    assert loop.status()["champion"] == "2"
    tidewheel("rollback", str(loop.project), "--reason", "the next story starts with version 1")
    assert loop.answers() == "1"


def test_a_version_whose_bytes_were_changed_never_serves_and_says_why(loop: Loop):
    version, digest = "3", loop.digests["3"]
    copies = [loop.home.bundles / digest / "MANIFEST.json", *loop.home.mlflow_artifacts.rglob("MANIFEST.json")]
    whole = copies[0].read_bytes()
    changed = [copy.with_name("features.py") for copy in copies if copy.read_bytes() == whole]
    assert len(changed) == 2
    for path in changed:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes() + b"\n# harmless, says whoever changed it\n")
    tidewheel("promote", str(loop.project), version, "--reason", "looks fine", "--no-wait")
    until(lambda: version in loop.status()["refused"])
    assert loop.status()["refused"][version]["reason"] == "DigestMismatch"
    assert loop.answers() == "1"
    assert loop.status()["champion"] == "1"
    tidewheel("promote", str(loop.project), "1", "--reason", "back to what serves")
    assert loop.status()["refused"] == {}


def test_a_label_feed_that_stops_is_missed_and_nothing_else_is_reported(loop: Loop):
    for day in range(HISTORY_DAYS, HISTORY_DAYS + 10):
        loop.generate(f"day-{day}", day, 1)
        loop.ingest(f"day-{day}", "transactions", "profiles")
    monitored = tidewheel("monitor", str(loop.project), "--as-of", "2026-03-18", "--no-report")
    assert [finding["reason"] for finding in monitored["findings"]] == ["LabelsMissing"]
    assert loop.answers() == "1"
