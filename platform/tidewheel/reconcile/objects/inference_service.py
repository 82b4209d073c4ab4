"""The InferenceService of a project: our server as KServe's predictor container, scaled by KServe.

KServe copies an InferenceService's annotations into its pods, so nothing about a version stands here: a new version
must not restart a pod. It names a container, not a model: KServe then downloads nothing and adds no agent.
"""

from __future__ import annotations

from typing import Any

from tidewheel.reconcile.objects.config_maps import document_map_name
from tidewheel.reconcile.objects.pods import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    environment,
    mounts,
    pull_secrets,
    volumes,
)
from tidewheel.reconcile.objects.settings import GRPC_PORT, HOME, HTTP_PORT, ClusterSettings, labels_of, owned_by
from tidewheel.reconcile.ports import ModelServer

API_VERSION, KIND = "serving.kserve.io/v1beta1", "InferenceService"
DRAIN_S, GRACE_S = 5, 60
HOME_LIMIT = "4Gi"


def inference_service(server: ModelServer, settings: ClusterSettings, uid: str) -> dict[str, Any]:
    """``uid`` is that of the ModelProject that owns it."""
    project = server.project
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": project,
            "namespace": settings.namespace,
            "labels": labels_of(project, "model-server"),
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/autoscalerClass": "hpa" if server.max_replicas > server.replicas else "none",
            },
            "ownerReferences": owned_by(project, uid),
        },
        "spec": {"predictor": _predictor(server, settings)},
    }


def _predictor(server: ModelServer, settings: ClusterSettings) -> dict[str, Any]:
    return {
        "minReplicas": server.replicas,
        "maxReplicas": server.max_replicas,
        "scaleMetric": "cpu",
        "scaleTarget": server.target_cpu_percent,
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        **pull_secrets(settings),
        "labels": labels_of(server.project, "model-server"),
        "annotations": {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(HTTP_PORT),
            "prometheus.io/path": "/metrics",
        },
        "volumes": volumes(settings, HOME_LIMIT, ("document", document_map_name(server.project))),
        "containers": [_container(server, settings)],
    }


def _container(server: ModelServer, settings: ClusterSettings) -> dict[str, Any]:
    def probe(path: str, **more: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": HTTP_PORT, "scheme": "HTTP"}, "timeoutSeconds": 2, **more}

    return {
        "name": "kserve-container",
        "image": settings.serving_image,
        "imagePullPolicy": settings.pull_policy,
        "args": [
            "tidewheel.apps.model_server", "--home", HOME, "--project", server.project, "--host", "0.0.0.0",
            "--port", str(HTTP_PORT), "--grpc-port", str(GRPC_PORT), "--log-format", "json",
        ],
        **environment(settings),
        "ports": [
            {"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "h2c", "containerPort": GRPC_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": probe("/v2/health/ready", periodSeconds=2, failureThreshold=2),
        "livenessProbe": probe("/v2/health/live", periodSeconds=10, failureThreshold=6),
        "startupProbe": probe("/v2/health/live", periodSeconds=1, failureThreshold=120),
        # Endpoints are taken away while the server still answers; then it drains by itself.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DRAIN_S)]}}},
        "resources": {
            "requests": {"cpu": server.cpu, "memory": server.memory},
            "limits": {"cpu": server.cpu_limit, "memory": server.memory},
        },
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": mounts(("document", "deployments")),
    }  # fmt: skip


def server_of(live: dict[str, Any]) -> ModelServer:
    """The server that a live InferenceService stands for; what cannot be read of it differs from anything wanted."""
    predictor = live.get("spec", {}).get("predictor", {})
    container: dict[str, Any] = next(iter(predictor.get("containers", ())), {})
    resources = container.get("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    replicas = int(predictor.get("minReplicas", 0))
    return ModelServer(
        live["metadata"]["name"],
        replicas,
        None,
        int(predictor.get("maxReplicas", 0)),
        int(predictor.get("scaleTarget", ModelServer.target_cpu_percent)),
        str(requests.get("cpu", "")),
        str(limits.get("cpu", "")),
        str(limits.get("memory", "")),
    )
