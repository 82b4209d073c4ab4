"""The cluster in Kubernetes: an InferenceService and a ConfigMap per project, and what living pods say.

``look`` reads everything once; the port's reads answer from that, its writes go to the API server and are seen at
once. Model servers are asked by HTTP: an InferenceService's own readiness says nothing about a version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx

from tidewheel.adapters.kubernetes_api import KubernetesApi, Object
from tidewheel.deployment.document import DeploymentDocument, document_from_json
from tidewheel.deployment.status import ServerStatus, status_from_json
from tidewheel.errors import ContractViolation, NotFound, TidewheelError
from tidewheel.reconcile.objects.config_maps import document_map, document_map_name
from tidewheel.reconcile.objects.drift import is_as_wanted
from tidewheel.reconcile.objects.inference_service import API_VERSION, KIND, inference_service, server_of
from tidewheel.reconcile.objects.settings import GROUP, HTTP_PORT, MANAGER, PROJECT_LABEL, ClusterSettings
from tidewheel.reconcile.ports import ModelServer

LOG = logging.getLogger("tidewheel.controller")
SCRAPE_TIMEOUT_S, SCRAPERS = 1.0, 8
OURS = {"app.kubernetes.io/managed-by": MANAGER}
SERVERS = OURS | {"app.kubernetes.io/name": "model-server"}
GENERATION = f"{GROUP}/generation"  # of pods: a change makes the kubelet look at their ConfigMaps at once


class KubernetesCluster:
    """Implements reconcile.ports.Cluster for one namespace. ``owners`` maps a project to its ModelProject's uid;
    ``publish`` puts a bundle, by its digest, where pods can fetch it."""

    def __init__(
        self,
        api: KubernetesApi,
        settings: ClusterSettings,
        owners: Mapping[str, str],
        publish: Callable[[str], object],
    ) -> None:
        self._api, self._settings, self._owners, self._publish = api, settings, owners, publish
        self._services: dict[str, Object] = {}
        self._documents: dict[str, str] = {}
        self._pods: dict[str, list[Object]] = {}
        self._statuses: dict[str, tuple[ServerStatus, ...]] = {}
        self._http = httpx.Client(timeout=SCRAPE_TIMEOUT_S, trust_env=False)
        self._scrapers = ThreadPoolExecutor(SCRAPERS, "scrape")

    def close(self) -> None:
        self._scrapers.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def look(self) -> None:
        """Read the cluster. Raises Unavailable."""
        api, namespace = self._api, self._settings.namespace
        self._services = {one["metadata"]["name"]: one for one in api.list(API_VERSION, KIND, namespace, OURS)}
        maps = api.list("v1", "ConfigMap", namespace, OURS | {"app.kubernetes.io/name": "deployment"})
        texts = {one["metadata"]["name"]: one.get("data", {}) for one in maps}
        names = {one["metadata"]["labels"].get(PROJECT_LABEL, "") for one in maps}
        self._documents = {
            name: text for name in names
            if (text := texts.get(document_map_name(name), {}).get(f"{name}.json")) is not None
        }  # fmt: skip
        pods: dict[str, list[Object]] = {}
        for pod in api.list("v1", "Pod", namespace, SERVERS):
            about = pod["metadata"]
            if "deletionTimestamp" not in about and pod.get("status", {}).get("podIP"):
                pods.setdefault(about["labels"].get(PROJECT_LABEL, ""), []).append(pod)
        self._pods = pods
        self._ask()

    def _ask(self) -> None:
        every = [(project, index, pod) for project, pods in self._pods.items() for index, pod in enumerate(pods)]
        told = self._scrapers.map(lambda one: self._asked(*one), every)
        statuses: dict[str, list[tuple[bool, ServerStatus]]] = {}
        for (project, _, pod), status in zip(every, told, strict=True):
            ready = _is_ready(pod)
            if status is not None or ready:
                # A ready pod that does not say what it serves must not be taken for one that has caught up.
                silent = ServerStatus(project, 0, 0, HTTP_PORT, -1, 0)
                statuses.setdefault(project, []).append((ready, status or silent))
        self._statuses = {project: _counted(found) for project, found in statuses.items()}

    def _asked(self, project: str, index: int, pod: Object) -> ServerStatus | None:
        try:
            answer = self._http.get(f"http://{pod['status']['podIP']}:{HTTP_PORT}/status")
            answer.raise_for_status()
            status = status_from_json(answer.content)
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None
        return status if status.project == project else None

    # -- reconcile.ports.Cluster ----------------------------------------------------------------------------------

    def apply_server(self, server: ModelServer) -> None:
        wanted = inference_service(server, self._settings, self._owner(server.project))
        self._services[server.project] = self._api.apply(wanted, MANAGER)

    def delete_server(self, project: str) -> None:
        self._api.delete(API_VERSION, KIND, self._settings.namespace, project)
        self._api.delete("v1", "ConfigMap", self._settings.namespace, document_map_name(project))
        self._services.pop(project, None)
        self._documents.pop(project, None)

    def servers(self) -> tuple[ModelServer, ...]:
        found = []
        for project, live in sorted(self._services.items()):
            server = server_of(live)
            wanted = inference_service(server, self._settings, self._owners.get(project, ""))
            del wanted["metadata"]["ownerReferences"]  # of an orphan: nobody to compare with
            found.append(replace(server, as_wanted=is_as_wanted(wanted, live)))
        return tuple(found)

    def server_status(self, project: str) -> tuple[ServerStatus, ...]:
        return self._statuses.get(project, ())

    def write_document(self, document: DeploymentDocument) -> None:
        """The bundles are where pods can fetch them before anything names them."""
        project = document.project
        for variant in document.variants:
            self._publish(variant.digest)
        wanted = document_map(document, self._settings, self._owner(project))
        self._api.apply(wanted, MANAGER)
        self._documents[project] = wanted["data"][f"{project}.json"]
        bump: Any = {"metadata": {"annotations": {GENERATION: str(document.generation)}}}
        for pod in self._pods.get(project, ()):
            try:
                self._api.merge("v1", "Pod", self._settings.namespace, pod["metadata"]["name"], bump)
            except TidewheelError as error:  # it is gone, or it sees the change a minute later by itself
                LOG.warning("event=pod_not_bumped pod=%s error=%s", pod["metadata"]["name"], error)

    def read_document(self, project: str) -> DeploymentDocument | None:
        text = self._documents.get(project)
        try:
            return None if text is None else document_from_json(text.encode(), document_map_name(project))
        except ContractViolation:
            return None

    def _owner(self, project: str) -> str:
        uid = self._owners.get(project)
        if uid is None:
            raise NotFound(f"{project}: its ModelProject is gone")
        return uid


def _is_ready(pod: Object) -> bool:
    conditions: Sequence[Mapping[str, str]] = pod["status"].get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _counted(found: Sequence[tuple[bool, ServerStatus]]) -> tuple[ServerStatus, ...]:
    """Those that get traffic; before any does, those that answer. Numbered as replicas."""
    chosen = [status for ready, status in found if ready] or [status for _, status in found]
    return tuple(replace(status, replica=index) for index, status in enumerate(chosen))
