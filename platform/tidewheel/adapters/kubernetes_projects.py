"""ModelProjects: what people applied, brought into force; and what became of it, told back as status and Events.

The object names the code by its digest; the code itself, signed, lies in the object store. Its spec is shown and
validated in the object, but what counts is the ``project.yaml`` under the signature: where they differ nothing is
taken over.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidewheel.adapters.kubernetes_api import KubernetesApi, Object
from tidewheel.bundle.signature import SignatureRefused, Trust, verify_trusted
from tidewheel.clock import Clock, utc_text
from tidewheel.errors import Conflict, ContractViolation, InputError, NotFound, SpecError, TidewheelError, Unavailable
from tidewheel.features.load import load_features
from tidewheel.findings import Finding
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.answers import Answer
from tidewheel.reconcile.applied import Applied, applied_names, put_in_force, read_applied, withdraw
from tidewheel.reconcile.objects.config_maps import code_map, code_map_name, projects_map
from tidewheel.reconcile.objects.drift import is_as_wanted
from tidewheel.reconcile.objects.model_project import spec_differences
from tidewheel.reconcile.objects.network_policy import network_policy
from tidewheel.reconcile.objects.pod_monitor import API_VERSION as MONITOR_API
from tidewheel.reconcile.objects.pod_monitor import pod_monitor
from tidewheel.reconcile.objects.settings import GROUP, KIND, MANAGER, VERSION, ClusterSettings
from tidewheel.reconcile.objects.stream_worker import stream_worker, stream_worker_name
from tidewheel.reconcile.pauses import set_paused
from tidewheel.spec.load import PROJECT_FILE, load_project
from tidewheel.spec.project import ModelProject

LOG = logging.getLogger("tidewheel.controller")
API = f"{GROUP}/{VERSION}"
FINALIZER = f"{GROUP}/controller"
CONFIRM_DELETE = f"{GROUP}/confirm-delete"
PAUSE = f"{GROUP}/rollout-paused"  # its value is the reason
ANSWER = f"{GROUP}/answer"
MAX_DELETED_RATIO = 0.3
EVENT_SECONDS = 3600

Fetch = Callable[[str, Path], None]  # project code by its digest into a folder; raises a TidewheelError


@dataclass
class AppliedProject:
    """One ModelProject that is there and is not going. ``fault``: why its newest code is not in force."""

    live: Object
    applied: Applied | None = None
    spec: ModelProject | None = None
    fault: Finding | None = None

    @property
    def uid(self) -> str:
        return str(self.live["metadata"]["uid"])


@dataclass
class KubernetesProjects:
    """``look`` once a round; ``here`` and ``owners`` hold what it saw."""

    api: KubernetesApi
    settings: ClusterSettings
    home: Path
    journal: Journal
    fetch: Fetch
    trust: Trust
    clock: Clock
    here: dict[str, AppliedProject] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    _objects: dict[tuple[str, str], Object] = field(default_factory=dict)

    def look(self, retire: Callable[[str], None]) -> None:
        """Put what was applied in force; ``retire`` removes the servers of a project that is going.

        Raises Unavailable where the API server does not answer; faults of one project do not stop the others.
        """
        found = self.api.list(API, KIND, self.settings.namespace)
        self._objects = self._live_objects()
        going = [one for one in found if one["metadata"].get("deletionTimestamp")]
        self.owners.clear()
        self.owners.update({one["metadata"]["name"]: one["metadata"]["uid"] for one in found})
        self.here = {one["metadata"]["name"]: AppliedProject(one) for one in found if one not in going}
        for name in applied_names(self.home) - self.owners.keys():
            withdraw(self.home, name)  # its object is gone, finalizer or not
        for name, project in self.here.items():
            try:
                self._put_in_force(name, project)
            except Unavailable as error:
                project.fault = Finding("BundleMissing", str(error), "warning", name)
            except TidewheelError as error:  # a Conflict with somebody else's change: the next round sees it
                LOG.warning("event=not_now project=%s message=%s", name, error)
        for one in going:
            self._let_go(one, retire, len(going), len(found))
        self._tell_schedules()

    def _tell_schedules(self) -> None:
        """The project files in force, where Airflow finds them."""
        specs = {
            name: (self.home / "projects" / project.applied.digest / PROJECT_FILE).read_text()
            for name, project in self.here.items()
            if project.applied is not None
        }
        wanted = projects_map(specs, self.settings)
        live = self._objects.get(("ConfigMap", self.settings.projects_config_map), {})
        if live.get("data", {}) != wanted["data"]:
            self.api.apply(wanted, MANAGER)

    def _live_objects(self) -> dict[tuple[str, str], Object]:
        """What we made of the projects besides the servers, by kind and name."""
        kinds = [("v1", "ConfigMap"), ("apps/v1", "Deployment")]
        kinds += [("networking.k8s.io/v1", "NetworkPolicy")] if self.settings.network_policies else []
        kinds += [(MONITOR_API, "PodMonitor")] if self.settings.pod_monitors else []
        ours = {"app.kubernetes.io/managed-by": MANAGER}
        found = [one for api, kind in kinds for one in self.api.list(api, kind, self.settings.namespace, ours)]
        return {(one["kind"], one["metadata"]["name"]): one for one in found}

    def _put_in_force(self, name: str, project: AppliedProject) -> None:
        live, digest = project.live, str(project.live["spec"].get("code", {}).get("digest", ""))
        if FINALIZER not in live["metadata"].get("finalizers", ()):
            finalizers = [*live["metadata"].get("finalizers", ()), FINALIZER]
            change = {"metadata": {"finalizers": finalizers, "resourceVersion": live["metadata"]["resourceVersion"]}}
            self.api.merge(API, KIND, self.settings.namespace, name, change)
        folder = self.home / "projects" / digest
        try:
            if not folder.is_dir():
                self.fetch(digest, folder)
            verify_trusted(folder, digest, self.trust())
            spec = load_project(folder)
            load_features(folder, spec)
            if differences := spec_differences(live, spec):
                raise ContractViolation(f"the object's spec is not that of its code: {'; '.join(differences[:3])}")
        except SignatureRefused as error:
            project.fault = Finding(error.reason, str(error), "critical", name)
        except (ContractViolation, SpecError) as error:
            project.fault = Finding("BundleInvalid", str(error), "critical", name)
        except NotFound as error:
            project.fault = Finding("BundleMissing", str(error), "warning", name)
        else:
            actor = str(live["metadata"].get("annotations", {}).get(f"{GROUP}/applied-by", "kubernetes"))
            project.applied = put_in_force(self.journal, self.home, name, digest, self.clock, actor)
            project.spec = spec
            self._take_pause(name, live, actor)
            self._take_answer(name, live)
            self._make(name, project, project.applied)
            return
        if (kept := read_applied(self.journal, name)) is not None:
            project.applied = kept  # what was in force before goes on
            self._make(name, project, kept)

    def _take_answer(self, name: str, live: Object) -> None:
        """A person's answer to a decision that waits, recorded and then cleared: who comes too late is told."""
        text = live["metadata"].get("annotations", {}).get(ANSWER)
        if text is None:
            return
        try:
            answer = Answer.from_json(text)
            change = self.journal.approve if answer.verb == "approve" else self.journal.refuse
            record = change(answer.decision, answer.actor, answer.reason, project=name)
            LOG.info("event=answered project=%s decision=%s state=%s", name, record.id, record.state)
        except (Conflict, NotFound, InputError) as error:
            self.tell_event(name, "DecisionPending", f"the answer does not count: {error}", warning=True)
        self.api.merge(API, KIND, self.settings.namespace, name, {"metadata": {"annotations": {ANSWER: None}}})

    def _take_pause(self, name: str, live: Object, actor: str) -> None:
        """The annotation is the lever, the journal the fact."""
        reason = live["metadata"].get("annotations", {}).get(PAUSE)
        if set_paused(self.journal, name, reason is not None, actor=actor, reason=reason or "the annotation is gone"):
            LOG.info("event=rollout_%s project=%s", "paused" if reason is not None else "resumed", name)

    def _make(self, name: str, project: AppliedProject, applied: Applied) -> None:
        """What a project has besides its servers."""
        settings, uid = self.settings, project.uid
        wanted = [code_map(applied, settings, uid), stream_worker(name, settings, uid)]
        wanted += [network_policy(name, settings, uid)] if settings.network_policies else []
        wanted += [pod_monitor(name, settings, uid)] if settings.pod_monitors else []
        for one in wanted:
            key = (one["kind"], one["metadata"]["name"])
            if key not in self._objects or not is_as_wanted(one, self._objects[key]):
                self._objects[key] = self.api.apply(one, MANAGER)
                LOG.info("event=object_applied project=%s kind=%s name=%s", name, *key)

    # -- deletion -------------------------------------------------------------------------------------------------

    def _let_go(self, live: Object, retire: Callable[[str], None], n_going: int, n: int) -> None:
        about = live["metadata"]
        name = about["name"]
        if FINALIZER not in about.get("finalizers", ()):
            return
        allowed = max(1, int(MAX_DELETED_RATIO * n))
        if n_going > allowed and about.get("annotations", {}).get(CONFIRM_DELETE) != "true":
            message = (
                f"{n_going} of {n} projects are being deleted at once, {allowed} may be; to go on: "
                f"kubectl annotate modelproject {name} {CONFIRM_DELETE}=true"
            )
            self.tell_event(name, "TooManyRemovals", message, warning=True)
            return
        retire(name)
        namespace = self.settings.namespace
        self.api.delete("apps/v1", "Deployment", namespace, stream_worker_name(name))
        self.api.delete("v1", "ConfigMap", namespace, code_map_name(name))
        if self.settings.network_policies:
            self.api.delete("networking.k8s.io/v1", "NetworkPolicy", namespace, name)
        if self.settings.pod_monitors:
            self.api.delete(MONITOR_API, "PodMonitor", namespace, name)
        withdraw(self.home, name)
        left = [one for one in about["finalizers"] if one != FINALIZER]
        change = {"metadata": {"finalizers": left, "resourceVersion": about["resourceVersion"]}}
        try:
            self.api.merge(API, KIND, namespace, name, change)
        except (NotFound, Conflict):
            return
        LOG.info("event=project_removed project=%s", name)

    # -- told back ------------------------------------------------------------------------------------------------

    def tell_status(self, name: str, status: dict[str, Any]) -> None:
        """Write a project's status where it is another than before."""
        live = self.here[name].live
        if live.get("status") == status:
            return
        body = {
            "apiVersion": API,
            "kind": KIND,
            "metadata": {"name": name, "namespace": self.settings.namespace},
            "status": status,
        }
        self.api.apply(body, MANAGER, status=True)

    def tell_event(self, name: str, reason: str, message: str, *, warning: bool) -> None:
        """One Event per project, reason and message in an hour; a failure is no reason to stop."""
        uid, now_us = self.owners.get(name), self.clock.now_us()
        if uid is None:
            return
        hour = now_us // (EVENT_SECONDS * 1_000_000)
        mark = hashlib.sha256(f"{uid} {reason} {message} {hour}".encode()).hexdigest()[:16]
        at = utc_text(now_us // 1_000_000 * 1_000_000)
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{mark}", "namespace": self.settings.namespace},
            "involvedObject": {"apiVersion": API, "kind": KIND, "name": name, "uid": uid,
                               "namespace": self.settings.namespace},
            "reason": reason,
            "message": message[:1000],
            "type": "Warning" if warning else "Normal",
            "source": {"component": MANAGER},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }  # fmt: skip
        try:
            self.api.create(event)
        except Conflict:
            return
        except TidewheelError as error:
            LOG.warning("event=event_not_told project=%s reason=%s error=%s", name, reason, error)
