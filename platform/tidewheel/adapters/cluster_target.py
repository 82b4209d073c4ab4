"""A cluster as a person at a terminal acts on it: ModelProjects by kubeconfig, code by the object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidewheel.adapters.bundle_shelf import put_bundle
from tidewheel.adapters.kubernetes_api import KubernetesApi, Object
from tidewheel.adapters.kubernetes_projects import ANSWER, API, PAUSE
from tidewheel.adapters.object_store import VARIABLE, ObjectStore
from tidewheel.bundle.signature import SigningKey, sign_bundle
from tidewheel.clock import SECOND_US, Clock
from tidewheel.errors import InputError, NotFound, Unavailable
from tidewheel.reconcile.answers import Answer
from tidewheel.reconcile.objects.model_project import model_project
from tidewheel.reconcile.objects.settings import KIND

MANAGER = "tidewheel-cli"


class ClusterTarget:
    """``context`` is one of the kubeconfig's; ``namespace`` that of the installation."""

    def __init__(self, context: str, namespace: str) -> None:
        self._api = KubernetesApi(context)
        self.context, self._namespace = context, namespace

    def project(self, name: str) -> Object | None:
        """The live ModelProject. Raises Unavailable, and NotFound where the cluster has no tidewheel."""
        try:
            return self._api.get(API, KIND, self._namespace, name)
        except NotFound as error:
            if "could not find the requested resource" in str(error):
                raise NotFound(
                    f"context {self.context}: no ModelProjects there; install the chart tidewheel-crds"
                ) from error
            return None

    def apply(
        self, folder: Path, digest: str, tree: dict[str, Any], key: SigningKey, store: ObjectStore, actor: str
    ) -> None:
        """Sign the code in ``folder``, send it, and name it in the ModelProject. Safe to run again."""
        sign_bundle(folder, digest, key)
        put_bundle(store, "projects", folder, digest)
        self._api.apply(model_project(tree, digest, self._namespace, actor), MANAGER)

    def pause(self, name: str, reason: str | None) -> None:
        """Hold the rollout for a reason; None lets it go on. Raises NotFound."""
        self._api.merge(API, KIND, self._namespace, name, {"metadata": {"annotations": {PAUSE: reason}}})

    def answer(self, name: str, answer: Answer) -> None:
        """Hand it to the controller. Raises NotFound."""
        change = {"metadata": {"annotations": {ANSWER: answer.to_json()}}}
        self._api.merge(API, KIND, self._namespace, name, change)

    def wait(
        self,
        name: str,
        done: Callable[[Object], bool],
        clock: Clock,
        pause: Callable[[float], object],
        timeout_s: float,
    ) -> Object:
        """The live object as soon as ``done`` says so. Raises Unavailable with its state where that takes longer."""
        deadline_us = clock.monotonic_us() + int(timeout_s * SECOND_US)
        live: Object | None = None
        while clock.monotonic_us() < deadline_us:
            live = self.project(name)
            if live is not None and done(live):
                return live
            pause(0.3)
        status = (live or {}).get("status", {})
        said = "; ".join(f"{one['type']} {one['status']}: {one['message']}" for one in status.get("conditions", ()))
        raise Unavailable(f"{name}: not there after {timeout_s:g} s ({said or 'the controller has said nothing'})")


def object_store_of(url: str | None) -> ObjectStore:
    """The store that pods fetch code from. Raises InputError where nothing names it."""
    if not url:
        raise InputError(
            f"{VARIABLE}: not set; it names the cluster's object store as it is reached from here, such as "
            "s3://tidewheel?endpoint=https://s3.example.com, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    try:
        return ObjectStore(url)
    except ModuleNotFoundError as error:
        raise InputError(f"{VARIABLE}: {error.name} is not installed; install tidewheel[objects]") from error
