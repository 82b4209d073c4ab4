"""The commands and the code of the how-to pages work, in the order in which they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from servers.redis import ALLOWED

pytestmark = pytest.mark.integration

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def run(script: str, folder: Path) -> str:
    environment = {**{name: value for name, value in os.environ.items() if name != "TIDEWHEEL_FEAST"}, "PATH": PATH}
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_features_are_read_with_feast_as_the_page_says(repository: Path, tmp_path: Path):
    pytest.importorskip("feast", reason="feast is not installed; install tidewheel[feast]")
    page = (repository / "docs" / "how-to" / "read-with-feast.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", "python"]
    run("tidewheel new card-fraud --template card_fraud", tmp_path)
    project = tmp_path / "card-fraud"
    run("tidewheel apply && python generate.py --out data --days 12 --customers 60 --terminals 90", project)
    command = [sys.executable, "-m", "tidewheel.apps.stream_worker", "--home", str(project / ".tidewheel")]
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        sources = " ".join(f"--source {name}=data/{name}.parquet" for name in ("transactions", "labels", "profiles"))
        run(f"tidewheel ingest {sources} --wait", project)
    finally:
        worker.terminate()
        worker.wait(timeout=20)
    told = run(blocks[0][1], project)
    assert "card_" in told
    (project / "page.py").write_text(blocks[1][1])
    answer = run("python page.py", project)
    values = dict(re.findall(r"'(\w+)': ([^,}]+)", answer))
    assert int(values["card_n_tx_30d"]) > 0
    assert values["customer_id"] == "3"


def test_a_redis_user_needs_what_the_page_tells(repository: Path):
    page = (repository / "docs" / "how-to" / "connect-redis.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"```acl\n(.*?)\n```", page, re.DOTALL)
    assert set(re.findall(r"\+\S+", line)) == set(ALLOWED.split())
