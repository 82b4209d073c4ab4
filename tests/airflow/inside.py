"""Run by Airflow's own Python: tells in JSON what Airflow makes of project files, or runs DAGs in this process.

inside.py tell FOLDER            dags, import errors, modules, milliseconds per file
inside.py run DAG CONF           the DAG's tasks, one after the other, here
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

DAG_FILE = Path(__file__).parents[2] / "dags" / "model_projects.py"


def loaded() -> tuple[Any, Any]:
    """The bundle of TIDEWHEEL_PROJECTS and what Airflow's own reader finds in it."""
    from airflow.dag_processing.dagbag import DagBag

    from tidewheel.pipelines.bundle import ProjectsBundle

    bundle = ProjectsBundle(name="tidewheel", dag_file=str(DAG_FILE))
    bundle.initialize()
    return bundle, DagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name="tidewheel")


def tell() -> dict[str, Any]:
    bundle, bag = loaded()
    modules = sorted(sys.modules)
    from airflow.serialization.serialized_objects import DagSerialization

    from tidewheel.pipelines.factory import dags_of
    from tidewheel.pipelines.settings import PodSettings

    told = {}
    for dag_id, dag in sorted(bag.dags.items()):
        tasks = {
            one.task_id: {
                "kind": type(one).__name__,
                "command": getattr(one, "command", None),
                "after": sorted(one.upstream_task_ids),
                "retries": one.retries,
                "timeout_s": one.execution_timeout.total_seconds() if one.execution_timeout else None,
                "run": getattr(one, "trigger_run_id", None),
            }
            for one in dag.tasks
        }
        told[dag_id] = {
            "file": dag.relative_fileloc, "schedule": str(dag.schedule), "tags": sorted(dag.tags), "notes": dag.doc_md,
            "owner": dag.owner, "max_active_runs": dag.max_active_runs, "catchup": dag.catchup, "tasks": tasks,
            "serialized": DagSerialization.to_dict(dag),
        }  # fmt: skip
    pods = {}
    for dag in bag.dags.values():
        for one in dag.tasks:
            if isinstance(getattr(getattr(one, "settings", None), "pods", None), PodSettings):
                operator = one.pod_operator(one.settings.pods)
                pod = operator.build_pod_request_obj(dry_run=True)
                from kubernetes.client import ApiClient

                pods[f"{dag.dag_id}.{one.task_id}"] = ApiClient().sanitize_for_serialization(pod)
    files = sorted(bundle.path.glob("*.py"))
    return {
        "dags": told, "errors": bag.import_errors, "modules": modules, "pods": pods,
        "files": [path.name for path in files],
        "parse_ms": {path.name: quickest_ms(dags_of, path) for path in files if path.name not in bag.import_errors},
    }  # fmt: skip


def quickest_ms(read: Any, path: Path) -> float:
    """CPU milliseconds of the quickest of several reads: other processes of the machine do not count."""
    times = []
    for _ in range(40):
        start = time.process_time()
        read(str(path))
        times.append(time.process_time() - start)
    return min(times) * 1000


def run(wanted: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import sync_bag_to_db
    from airflow.utils.db import initdb

    initdb()
    DagBundlesManager().sync_bundles_to_db()
    _, bag = loaded()
    sync_bag_to_db(bag, "tidewheel", None)
    told = {}
    for dag_id, conf in wanted:
        done = bag.dags[dag_id].test(run_conf=conf)
        told[dag_id] = {"": str(done.state), **{one.task_id: str(one.state) for one in done.get_task_instances()}}
    return told


if __name__ == "__main__":
    out = os.dup(1)  # what is printed on the way goes to stderr, the answer alone to stdout
    os.dup2(2, 1)
    answer = tell() if sys.argv[1] == "tell" else run(json.loads(sys.argv[2]))
    os.write(out, json.dumps(answer, default=str).encode())
