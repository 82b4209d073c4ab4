"""Who may reach a project's pods. Where they may go is the chart's to say: it knows the stores."""

from __future__ import annotations

from typing import Any

from tidewheel.reconcile.objects.settings import (
    GRPC_PORT,
    HTTP_PORT,
    METRICS_PORT,
    PROJECT_LABEL,
    ClusterSettings,
    labels_of,
    owned_by,
)


def network_policy(project: str, settings: ClusterSettings, uid: str) -> dict[str, Any]:
    """Callers reach the servers' two ports, everybody in the namespace the metrics; nothing else comes in."""
    ports = [{"port": port, "protocol": "TCP"} for port in (HTTP_PORT, GRPC_PORT)]
    callers = {"ports": ports} if not settings.callers else {
        "ports": ports,
        "from": [{"podSelector": {"matchLabels": dict(settings.callers)}, "namespaceSelector": {}},
                 {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "tidewheel"}}}],
    }  # fmt: skip
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": project,
            "namespace": settings.namespace,
            "labels": labels_of(project, "network"),
            "ownerReferences": owned_by(project, uid),
        },
        "spec": {
            "podSelector": {"matchLabels": {PROJECT_LABEL: project}},
            "policyTypes": ["Ingress"],
            "ingress": [callers, {"ports": [{"port": METRICS_PORT, "protocol": "TCP"}]}],
        },
    }
