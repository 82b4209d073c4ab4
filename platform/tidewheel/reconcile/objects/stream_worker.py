"""The stream worker of a project: events from the log into online state and into the lake."""

from __future__ import annotations

from typing import Any

from tidewheel.reconcile.objects.config_maps import code_map_name, document_map_name
from tidewheel.reconcile.objects.pods import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    environment,
    mounts,
    pull_secrets,
    volumes,
)
from tidewheel.reconcile.objects.settings import HOME, METRICS_PORT, PROJECT_LABEL, ClusterSettings, labels_of, owned_by

HOME_LIMIT = "20Gi"
GRACE_S = 60


def stream_worker_name(project: str) -> str:
    return f"{project}-stream-worker"


def stream_worker(project: str, settings: ClusterSettings, uid: str, replicas: int = 1) -> dict[str, Any]:
    """Workers share out the log's partitions, so that more than one may run."""
    name, labels = stream_worker_name(project), labels_of(project, "stream-worker")
    chosen = {"app.kubernetes.io/name": "stream-worker", PROJECT_LABEL: project}
    maps = (("document", document_map_name(project)), ("code", code_map_name(project)))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": labels,
            "ownerReferences": owned_by(project, uid),
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": chosen},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": GRACE_S,
                    "securityContext": POD_SECURITY,
                    **pull_secrets(settings),
                    "volumes": volumes(settings, HOME_LIMIT, *maps),
                    "containers": [
                        {
                            "name": "stream-worker",
                            "image": settings.platform_image,
                            "imagePullPolicy": settings.pull_policy,
                            "args": [
                                "tidewheel.apps.stream_worker", "--home", HOME,
                                "--metrics-host", "0.0.0.0", "--metrics-port", str(METRICS_PORT),
                            ],
                            **environment(settings),
                            "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
                            "livenessProbe": {
                                "httpGet": {"path": "/metrics", "port": METRICS_PORT, "scheme": "HTTP"},
                                "periodSeconds": 20, "timeoutSeconds": 5, "failureThreshold": 6,
                                "initialDelaySeconds": 10,
                            },
                            "resources": {
                                "requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}
                            },
                            "securityContext": CONTAINER_SECURITY,
                            "volumeMounts": mounts(("document", "deployments"), ("code", "applied")),
                        }
                    ],
                },
            },
        },
    }  # fmt: skip
