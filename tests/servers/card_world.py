"""The card_fraud template in a cluster: made, applied, fed and trained as its users do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from ruamel.yaml import YAML

from servers.kube import Installation

DAYS, CUSTOMERS, TERMINALS = 45, 300, 600
LAST_DAY = "2026-02-18"


def write_cards(
    folder: Path, name: str = "cards", replicas: dict[str, int] | None = None, retrain: dict[str, int] | None = None
) -> Path:
    """The template with a name of its own, two replicas, and a rollout that a test can wait for; ``retrain`` says in
    how many runs a finding must hold."""
    subprocess.run(
        [sys.executable, "-m", "tidewheel", "new", name, "--template", "card_fraud", "--output", "json"],
        check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    path = folder / name / "project.yaml"
    yaml = YAML()
    tree = yaml.load(path)
    tree["tier"] = 2
    tree["serving"]["replicas"] = replicas or {"min": 2, "max": 2}
    tree["serving"]["resources"] = {"cpu": "100m", "cpu_limit": "1", "memory": "768Mi"}
    if retrain is not None:
        tree["retrain"]["persists"] = retrain
        tree["retrain"]["guards"].update(min_mature_labels=0, cooldown="1s")
    tree["rollout"]["steps"] = [
        {"shadow": {"for": "1h", "min_requests": 100}},
        {"canary": {"traffic": 0.5, "for": "1h", "min_requests": 100}},
    ]
    tree["rollout"]["abort_if"].update(p99_latency="5s", decision_flip_ratio=0.9, degraded_ratio=0.5)
    with path.open("w") as file:
        yaml.dump(tree, file)
    return folder / name


def feed(made: Installation, project: Path, name: str) -> Path:
    """Events of ``DAYS`` days into Kafka, taken in; the requests as a file here."""
    made.inside("rm", "-rf", "/tmp/world")
    made.inside("mkdir", "/tmp/world")
    for file in ("project.yaml", "features.py", "generate.py"):
        made.kubectl("cp", str(project / file), f"driver:/tmp/world/{file}")
    made.inside("python", "/tmp/world/generate.py", "--out", "/tmp/world/data", "--days", str(DAYS),
                "--customers", str(CUSTOMERS), "--terminals", str(TERMINALS))  # fmt: skip
    sources = [
        f"--source={source}=/tmp/world/data/{source}.parquet" for source in ("transactions", "labels", "profiles")
    ]
    made.inside("tidewheel", "ingest", "/tmp/world", *sources, "--wait", "--output", "json", timeout_s=300)
    requests = project / "requests.parquet"
    made.kubectl("cp", "driver:/tmp/world/data/requests.parquet", str(requests))
    return requests


def bodies(requests: Path, n: int) -> list[dict[str, Any]]:
    """Requests as Open Inference Protocol v2 wants them."""
    rows = pq.read_table(requests).slice(0, n).to_pylist()
    kinds = {"tx_id": "INT64", "customer_id": "INT64", "terminal_id": "INT64", "tx_time": "BYTES", "amount": "FP64",
             "channel": "BYTES"}  # fmt: skip
    return [
        {"inputs": [
            {"name": column, "datatype": kind, "shape": [1],
             "data": [row[column].isoformat() if column == "tx_time" else row[column]]}
            for column, kind in kinds.items()
        ]}
        for row in rows
    ]  # fmt: skip


def copy_of(project: Path, target: Path) -> Path:
    return Path(shutil.copytree(project, target, ignore=shutil.ignore_patterns(".tidewheel")))


def predict(
    made: Installation, project: Path, requests: Path, url: str, limit: int, rate: float
) -> subprocess.Popen[str]:
    """Load by the client that users have, in the background."""
    command = [sys.executable, "-m", "tidewheel", "predict", str(project), "--rows", str(requests), "--url", url,
               "--limit", str(limit), "--rate", str(rate), "--connections", "8", "--output", "json"]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answered(load: subprocess.Popen[str], timeout_s: float = 180) -> dict[str, Any]:
    out, errors = load.communicate(timeout=timeout_s)
    assert out.strip(), errors
    told: dict[str, Any] = json.loads(out)
    return told
