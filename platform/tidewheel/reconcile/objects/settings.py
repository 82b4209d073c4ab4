"""What all objects of one installation share: images, where their environment comes from, what is switched on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GROUP, VERSION, KIND, PLURAL = "tidewheel.dev", "v1alpha1", "ModelProject", "modelprojects"
PROJECT_LABEL = f"{GROUP}/project"
MANAGER = "tidewheel-controller"  # owner of the fields that the controller applies
HOME = "/var/lib/tidewheel"
TRUSTED_KEYS = "/etc/tidewheel/trusted-keys"
HTTP_PORT, GRPC_PORT, METRICS_PORT = 8080, 8081, 9100


@dataclass(frozen=True)
class ClusterSettings:
    """One installation. ``env_config_map`` and ``env_secret`` hold the variables that every pod gets;
    ``trusted_keys`` is a ConfigMap of public keys."""

    namespace: str
    serving_image: str
    platform_image: str
    env_config_map: str = "tidewheel-env"
    env_secret: str = "tidewheel-secrets"
    trusted_keys: str = "tidewheel-trusted-keys"
    projects_config_map: str = "tidewheel-projects"
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    pod_monitors: bool = False
    network_policies: bool = False
    callers: Mapping[str, Any] = field(default_factory=dict)  # pod labels that may call model servers; empty: all


def labels_of(project: str, component: str) -> dict[str, str]:
    """Labels of every object of a project. Never KServe's own: it deletes what carries them and is not its."""
    return {
        "app.kubernetes.io/name": component,
        "app.kubernetes.io/instance": project,
        "app.kubernetes.io/part-of": "tidewheel",
        "app.kubernetes.io/managed-by": MANAGER,
        PROJECT_LABEL: project,
    }


def owned_by(project: str, uid: str) -> list[dict[str, Any]]:
    """The owner reference by which everything goes when its ModelProject does, even without a controller."""
    return [
        {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": project, "uid": uid, "controller": True,
         "blockOwnerDeletion": False}
    ]  # fmt: skip
