"""ConfigMaps by which a project's processes learn what to do: its deployment document and its code in force."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidewheel.deployment.document import DeploymentDocument
from tidewheel.reconcile.applied import Applied
from tidewheel.reconcile.objects.settings import MANAGER, ClusterSettings, labels_of, owned_by


def document_map_name(project: str) -> str:
    return f"{project}-deployment"


def code_map_name(project: str) -> str:
    return f"{project}-code"


def document_map(document: DeploymentDocument, settings: ClusterSettings, uid: str) -> dict[str, Any]:
    """Mounted by model servers and stream workers."""
    return _config_map(
        document_map_name(document.project), document.project, document.to_json().decode(), settings, uid
    )  # fmt: skip


def code_map(applied: Applied, settings: ClusterSettings, uid: str) -> dict[str, Any]:
    """Mounted by stream workers."""
    body = json.dumps({"digest": applied.digest, "name": applied.name, "at_us": applied.at_us})
    return _config_map(code_map_name(applied.name), applied.name, body, settings, uid)


def projects_map(specs: Mapping[str, str], settings: ClusterSettings) -> dict[str, Any]:
    """The project files in force, by name: what Airflow makes DAGs of, without asking the API server."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": settings.projects_config_map,
            "namespace": settings.namespace,
            "labels": {
                "app.kubernetes.io/name": "projects",
                "app.kubernetes.io/part-of": "tidewheel",
                "app.kubernetes.io/managed-by": MANAGER,
            },
        },
        "data": {f"{name}.yaml": text for name, text in sorted(specs.items())},
    }


def _config_map(name: str, project: str, text: str, settings: ClusterSettings, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": labels_of(project, "deployment"),
            "ownerReferences": owned_by(project, uid),
        },
        "data": {f"{project}.json": text},
    }
