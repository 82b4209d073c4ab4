"""What all our pods have in common: restricted, a home that may go at any time, one environment."""

from __future__ import annotations

from typing import Any

from tidewheel.reconcile.objects.settings import HOME, TRUSTED_KEYS, ClusterSettings

USER_ID = 10001

POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def environment(settings: ClusterSettings) -> dict[str, Any]:
    """``env`` and ``envFrom`` of a container."""
    return {
        "env": [
            {"name": "TIDEWHEEL_HOME", "value": HOME},
            {"name": "TIDEWHEEL_TRUSTED_KEYS", "value": TRUSTED_KEYS},
            {"name": "TIDEWHEEL_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "DO_NOT_TRACK", "value": "1"},
        ],
        "envFrom": [
            {"configMapRef": {"name": settings.env_config_map}},
            {"secretRef": {"name": settings.env_secret}},
        ],
    }


def volumes(settings: ClusterSettings, home_limit: str, *config_maps: tuple[str, str]) -> list[dict[str, Any]]:
    """The home, a folder for temporary files, the trusted keys, and ``config_maps``: (volume, ConfigMap that may not
    be there yet)."""
    return [
        {"name": "home", "emptyDir": {"sizeLimit": home_limit}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "trusted-keys", "configMap": {"name": settings.trusted_keys}},
        *({"name": volume, "configMap": {"name": name, "optional": True}} for volume, name in config_maps),
    ]


def mounts(*config_maps: tuple[str, str]) -> list[dict[str, Any]]:
    """Mounts of ``volumes``; ``config_maps``: (volume, folder below the home)."""
    return [
        {"name": "home", "mountPath": HOME},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "trusted-keys", "mountPath": TRUSTED_KEYS, "readOnly": True},
        *({"name": volume, "mountPath": f"{HOME}/{folder}", "readOnly": True} for volume, folder in config_maps),
    ]


def pull_secrets(settings: ClusterSettings) -> dict[str, Any]:
    """Nothing where no secret is needed: an empty list would be a field that we own."""
    return {"imagePullSecrets": [{"name": name} for name in settings.pull_secrets]} if settings.pull_secrets else {}
