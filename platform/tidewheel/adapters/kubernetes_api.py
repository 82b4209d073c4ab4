"""The Kubernetes API by plain objects: a few verbs with time-outs, and its refusals as our errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tidewheel.errors import Conflict, InputError, NotFound, TidewheelError, Unavailable

TIMEOUT_S = (3.0, 15.0)  # to connect, to answer
_APPLY = "application/apply-patch+yaml"
_UNTYPED = "failed to create typed patch object"
_MERGE = "application/merge-patch+json"
_PLURALS = {
    "ConfigMap": "configmaps", "Deployment": "deployments", "Event": "events", "InferenceService": "inferenceservices",
    "Lease": "leases", "ModelProject": "modelprojects", "NetworkPolicy": "networkpolicies", "Pod": "pods",
    "PodMonitor": "podmonitors", "Secret": "secrets",
    "Job": "jobs", "Service": "services", "Namespace": "namespaces",
    "CustomResourceDefinition": "customresourcedefinitions",
}  # fmt: skip
_ERRORS: dict[int, type[TidewheelError]] = {400: InputError, 401: Unavailable, 403: Unavailable, 404: NotFound,
                                            409: Conflict, 422: InputError}  # fmt: skip

Object = dict[str, Any]


class KubernetesApi:
    """One API server. ``context`` names one of the kubeconfig's; None is the pod's own service account, or the
    kubeconfig's current context outside a cluster. Raises InputError where there is neither."""

    def __init__(self, context: str | None = None) -> None:
        import kubernetes.client
        import kubernetes.config
        from kubernetes.config.config_exception import ConfigException

        configuration: Any = kubernetes.client.Configuration()
        config: Any = kubernetes.config
        try:
            if context is None:
                try:
                    config.load_incluster_config(client_configuration=configuration)
                except ConfigException:
                    config.load_kube_config(client_configuration=configuration)
            else:
                config.load_kube_config(context=context, client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise InputError(f"Kubernetes: {str(error).splitlines()[0]}; set KUBECONFIG or name a context") from error
        configuration.retries = False
        configuration.client_side_validation = False
        self._client: Any = kubernetes.client.ApiClient(configuration)

    def close(self) -> None:
        self._client.rest_client.pool_manager.clear()

    def get(self, api_version: str, kind: str, namespace: str | None, name: str) -> Object:
        """Raises NotFound."""
        return self._call("GET", _path(api_version, kind, namespace, name))

    def list(
        self, api_version: str, kind: str, namespace: str | None, labels: Mapping[str, str] | str | None = None
    ) -> list[Object]:
        """All of a kind, from the API server's cache: no older than what was written before the call."""
        chosen = labels if isinstance(labels, str) else ",".join(f"{k}={v}" for k, v in (labels or {}).items())
        found: list[Object] = []
        query: list[tuple[str, str]] = [("labelSelector", chosen)] if chosen else []
        token = ""
        while True:
            page = [*query, ("limit", "500"), *([("continue", token)] if token else [])]
            answer = self._call("GET", _path(api_version, kind, namespace), query=page)
            found += [{"apiVersion": api_version, "kind": kind, **one} for one in answer.get("items", ())]
            token = answer.get("metadata", {}).get("continue", "")
            if not token:
                return found

    def apply(self, wanted: Object, manager: str, *, status: bool = False, dry_run: bool = False) -> Object:
        """Server-side apply: the fields of ``wanted`` become ours, also those that somebody else has set."""
        about = wanted["metadata"]
        path = _path(wanted["apiVersion"], wanted["kind"], about.get("namespace"), about["name"])
        query = [
            ("fieldManager", manager),
            ("force", "true"),
            ("fieldValidation", "Strict"),
            *([("dryRun", "All")] if dry_run else []),
        ]
        return self._call("PATCH", path + ("/status" if status else ""), wanted, _APPLY, query)

    def merge(self, api_version: str, kind: str, namespace: str | None, name: str, change: Object) -> Object:
        """Change some fields of an object that is there. Raises NotFound."""
        return self._call("PATCH", _path(api_version, kind, namespace, name), change, _MERGE)

    def create(self, wanted: Object) -> Object:
        """Raises Conflict where it is there already."""
        return self._call(
            "POST", _path(wanted["apiVersion"], wanted["kind"], wanted["metadata"].get("namespace")), wanted
        )

    def replace(self, wanted: Object) -> Object:
        """Raises Conflict where somebody else changed it since it was read."""
        about = wanted["metadata"]
        path = _path(wanted["apiVersion"], wanted["kind"], about.get("namespace"), about["name"])
        return self._call("PUT", path, wanted)

    def delete(self, api_version: str, kind: str, namespace: str | None, name: str) -> None:
        """Deleting what is not there does nothing. What it owns goes in the background."""
        try:
            self._call("DELETE", _path(api_version, kind, namespace, name), {"propagationPolicy": "Background"})
        except NotFound:
            return

    def has_kind(self, api_version: str, kind: str) -> bool:
        """Whether the API server knows a kind: its CRD is installed."""
        group = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            return any(one["kind"] == kind for one in self._call("GET", group).get("resources", ()))
        except NotFound:
            return False

    def _call(
        self, method: str, path: str, body: Object | None = None, content: str = "application/json",
        query: Iterable[tuple[str, str]] = (),
    ) -> Object:  # fmt: skip
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", **({"Content-Type": content} if body is not None else {})}
        try:
            request = self._client.param_serialize(
                method, path, query_params=list(query), header_params=headers,
                body=None if body is None else json.dumps(body) if content == _APPLY else body,
                auth_settings=["BearerToken"],
            )  # fmt: skip
            answer = self._client.call_api(*request, _request_timeout=TIMEOUT_S)
            data = answer.read()
        except (HTTPError, OSError) as error:
            raise Unavailable(f"Kubernetes: the API server does not answer ({type(error).__name__})") from error
        except Exception as error:  # the client wraps what its transport raises in an exception of its own
            if type(error).__module__.startswith("kubernetes"):
                raise Unavailable(f"Kubernetes: the API server does not answer ({type(error).__name__})") from error
            raise
        try:
            told: Object = json.loads(data) if data else {}
        except ValueError:
            told = {}
        if answer.status < 300:
            return told
        message = str(told.get("message") or data[:200]).splitlines()[0] if data else ""
        # Server-side apply calls a field that no schema has a fault of its own.
        kind = InputError if _UNTYPED in message else _ERRORS.get(answer.status, Unavailable)
        raise kind(f"Kubernetes: {method} {path}: {answer.status} {message}")


def _path(api_version: str, kind: str, namespace: str | None, name: str = "") -> str:
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    parts = (root, *(("namespaces", namespace) if namespace else ()), _PLURALS[kind], *((name,) if name else ()))
    return "/".join(parts)
