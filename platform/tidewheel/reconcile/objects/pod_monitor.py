"""What Prometheus' operator should scrape of a project."""

from __future__ import annotations

from typing import Any

from tidewheel.reconcile.objects.settings import PROJECT_LABEL, ClusterSettings, labels_of, owned_by

API_VERSION, KIND = "monitoring.coreos.com/v1", "PodMonitor"


def pod_monitor(project: str, settings: ClusterSettings, uid: str) -> dict[str, Any]:
    """Model servers and stream workers; a pod without one of the ports is passed over."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": project,
            "namespace": settings.namespace,
            "labels": labels_of(project, "monitor"),
            "ownerReferences": owned_by(project, uid),
        },
        "spec": {
            "selector": {"matchLabels": {PROJECT_LABEL: project}},
            "podMetricsEndpoints": [
                {"port": port, "path": "/metrics", "interval": "15s"} for port in ("http1", "metrics")
            ],
        },
    }
