"""The pod of one job, as Kubernetes takes it: restricted, its home of its own, no rights in the cluster."""

from __future__ import annotations

from typing import Any

from tidewheel.pipelines.settings import PodSettings

HOME, TRUSTED_KEYS, SIGNING_KEY = "/var/lib/tidewheel", "/etc/tidewheel/trusted-keys", "/etc/tidewheel/signing-key"
USER_ID = 10001


def job_pod(settings: PodSettings, project: str, stage: str, *, signs: bool, deadline_s: int) -> dict[str, Any]:
    """The manifest without its arguments. ``signs``: mount the private key, which only training needs."""
    volumes: list[dict[str, Any]] = [
        {"name": "home", "emptyDir": {"sizeLimit": settings.scratch}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "trusted-keys", "configMap": {"name": settings.trusted_keys}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "home", "mountPath": HOME},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "trusted-keys", "mountPath": TRUSTED_KEYS, "readOnly": True},
    ]
    env = {"TIDEWHEEL_HOME": HOME, "TIDEWHEEL_TRUSTED_KEYS": TRUSTED_KEYS, "DO_NOT_TRACK": "1"}
    if signs:
        volumes.append({"name": "signing-key", "secret": {"secretName": settings.signing_key, "defaultMode": 0o440}})
        mounts.append({"name": "signing-key", "mountPath": SIGNING_KEY, "readOnly": True})
        env["TIDEWHEEL_SIGNING_KEY_FILE"] = f"{SIGNING_KEY}/signing.pem"
    container = {
        "name": "base",  # what the operator calls it
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "envFrom": [
            {"configMapRef": {"name": settings.env_config_map}},
            *({"secretRef": {"name": name}} for name in settings.env_secrets),
        ],
        "resources": {
            "requests": {"cpu": settings.cpu, "memory": settings.memory},
            "limits": {"cpu": settings.cpu_limit, "memory": settings.memory_limit},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": settings.namespace, "labels": labels_of(project, stage)},
        "spec": {
            "serviceAccountName": settings.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": deadline_s,
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
            "containers": [container],
            "volumes": volumes,
        },
    }


def labels_of(project: str, stage: str) -> dict[str, str]:
    """Labels of a project's job, by which network policies and people find it."""
    return {
        "app.kubernetes.io/name": "job",
        "app.kubernetes.io/component": stage,
        "app.kubernetes.io/instance": project,
        "app.kubernetes.io/part-of": "tidewheel",
        "app.kubernetes.io/managed-by": "airflow",
        "tidewheel.dev/project": project,
    }
