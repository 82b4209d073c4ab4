"""The controller of a cluster: ModelProjects and registry aliases become InferenceServices and deployment documents.

``python -m tidewheel.apps.controller --cluster kubernetes --namespace NS ...``; of several one acts, by a Lease. Its
home may go at any time: the journal, the object store and the API server have what lasts.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidewheel.adapters.bundle_shelf import fetch_bundle, put_bundle
from tidewheel.adapters.kubernetes_api import KubernetesApi
from tidewheel.adapters.kubernetes_cluster import KubernetesCluster
from tidewheel.adapters.kubernetes_lease import Leadership
from tidewheel.adapters.kubernetes_projects import KubernetesProjects
from tidewheel.adapters.lake_mirror import LakeMirror
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.object_store import VARIABLE, ObjectStore, open_object_store
from tidewheel.adapters.polled_registry import PolledRegistry
from tidewheel.adapters.signing_keys import trust_of
from tidewheel.bundle.manifest import SIGNATURE
from tidewheel.clock import SECOND_US, Clock
from tidewheel.errors import InputError, TidewheelError
from tidewheel.findings import Finding
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.controller import Controller
from tidewheel.reconcile.head import Head, head_from_body
from tidewheel.reconcile.objects.project_status import Told, status_of
from tidewheel.reconcile.objects.settings import ClusterSettings
from tidewheel.reconcile.pauses import is_paused

LOG = logging.getLogger("tidewheel.controller")
ROUND_EVERY_S = 0.5
IDLE_EVERY_S = 2.0
BUSY_FOR_US = 30 * SECOND_US
REGISTRY_TIMEOUT_S = 5.0
LEASE = "tidewheel-controller"


@dataclass
class Health:
    """What /healthz and /readyz say: the loop turns, and the cluster answered lately."""

    clock: Clock
    turned_at_us: int = 0
    leading: bool = False
    fault: str = "starting"

    @property
    def alive(self) -> bool:
        return self.clock.monotonic_us() - self.turned_at_us < 120 * SECOND_US


class ClusterController:
    """``run`` until told to stop."""

    def __init__(self, home: LocalHome, settings: ClusterSettings, tracking_uri: str, clock: Clock) -> None:
        store = open_object_store()
        if store is None:
            raise InputError(f"{VARIABLE} is not set: pods would have nowhere to fetch bundles from")
        self._home, self._settings, self._store, self._clock = home, settings, store, clock
        self._api = KubernetesApi()
        self._journal = Journal(home.journal_url, clock)
        trust = trust_of(home)
        self.projects = KubernetesProjects(
            self._api, settings, home.root, self._journal,
            lambda digest, folder: fetch_bundle(store, "projects", digest, folder), trust, clock,
        )  # fmt: skip
        self._publisher = Publisher(home, store)
        self._cluster = KubernetesCluster(self._api, settings, self.projects.owners, self._publisher.publish)
        self._predictions = ArrivingPredictions(home, store)
        self._controller = Controller(
            home.root, self._journal, PolledRegistry(tracking_uri, REGISTRY_TIMEOUT_S, clock), self._cluster, clock,
            trust, self._tell, self._predictions.arrive,
        )  # fmt: skip
        self.leadership = Leadership(self._api, settings.namespace, LEASE, _identity(), clock)
        self.health = Health(clock, clock.monotonic_us())
        self._changed_at_us = clock.monotonic_us()

    def run(self, stopping: threading.Event) -> None:
        """Rounds until ``stopping``: often while something changes, else as often as the registry is asked."""
        while not stopping.is_set():
            self.health.turned_at_us = self._clock.monotonic_us()
            self.health.leading = self.leadership.held()
            if self.health.leading:
                self._turn()
            else:
                self.health.fault = ""  # it stands by, and that is all it should do
            busy = self._clock.monotonic_us() - self._changed_at_us < BUSY_FOR_US
            stopping.wait(ROUND_EVERY_S if busy else IDLE_EVERY_S)
        self.leadership.release()
        self._cluster.close()

    def _turn(self) -> None:
        try:
            self.projects.look(self._cluster.delete_server)
            self._cluster.look()
            self._controller.round()
            self._tell_statuses()
            self.health.fault = ""
        except TidewheelError as error:
            self._not_now(str(error))
        except Exception as error:  # a fault of ours must not stop the next round; servers keep serving meanwhile
            LOG.exception("event=round_failed")
            self.health.fault = type(error).__name__

    def _not_now(self, fault: str) -> None:
        if fault != self.health.fault:
            LOG.warning("event=not_now message=%s", fault)
        self.health.fault = fault

    def _tell_statuses(self) -> None:
        servers = {server.project: server.replicas for server in self._cluster.servers()}
        for name, project in self.projects.here.items():
            newest = self._journal.head(name)
            head = head_from_body(newest.body) if newest else Head()
            if head.rollout is not None or head.staged is not None:
                self._changed_at_us = self._clock.monotonic_us()
            told = Told(
                int(project.live["metadata"].get("generation", 0)),
                project.applied.digest if project.applied else None,
                project.spec,
                head,
                newest.generation if newest else 0,
                self._cluster.server_status(name),
                servers.get(name, project.spec.serving.replicas.min if project.spec else 0),
                project.fault,
                self._settings.namespace,
                head.rollout is not None and is_paused(self._journal, name),
                tuple(one.id for one in self._journal.decisions(name, state="pending")),
            )
            before: Mapping[str, object] = project.live.get("status", {})
            try:
                self.projects.tell_status(name, status_of(told, before, self._clock.now_us()))
            except TidewheelError as error:  # a status that cannot be told must not keep other projects from theirs
                LOG.warning("event=status_not_told project=%s error=%s", name, error)

    def _tell(self, project: str, finding: Finding) -> None:
        self._changed_at_us = self._clock.monotonic_us()
        self.projects.tell_event(project, finding.reason, finding.message, warning=finding.severity != "info")


class Publisher:
    """Sends bundles to the object store, once each while it lives; a signature that is newer goes again."""

    def __init__(self, home: LocalHome, store: ObjectStore) -> None:
        self._home, self._store = home, store
        self._sent: dict[str, int] = {}  # by digest: when the signature that went along was written

    def publish(self, digest: str) -> None:
        """Raises Unavailable, and ContractViolation where the bundle here is damaged."""
        folder = self._home.bundles / digest
        signature = folder / SIGNATURE
        signed_at = signature.stat().st_mtime_ns if signature.is_file() else 0
        if self._sent.get(digest) != signed_at:
            new = put_bundle(self._store, "bundles", folder, digest)
            LOG.info("event=bundle_published digest=%s new=%s", digest[:12], new)
            self._sent[digest] = signed_at


class ArrivingPredictions:
    """The prediction log of projects that roll out, fetched as it grows."""

    def __init__(self, home: LocalHome, store: ObjectStore) -> None:
        self._mirror = LakeMirror(store, home.lake)
        self._newest: dict[str, str] = {}

    def arrive(self, project: str) -> None:
        """Parts are named by the time at which they were begun; one may come somewhat later than a newer one."""
        after = self._newest.get(project, "")
        fetched = [path.name for path in self._mirror.fetch(f"predictions/{project}", before(after))]
        self._newest[project] = max([after, *fetched])


def before(name: str, slack_us: int = 120 * SECOND_US) -> str:
    """A name that sorts ``slack_us`` before that of a part, empty for none.

    >>> before("part-01700000000000000-ab.parquet", slack_us=1)
    'part-01699999999999999'
    """
    stamp = name.removeprefix("part-")[:17]
    return f"part-{max(0, int(stamp) - slack_us):017d}" if stamp.isdigit() else ""


def _identity() -> str:
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{os.getpid()}"


def prepare(home: Path) -> LocalHome:
    """The controller's working folder."""
    home.mkdir(parents=True, exist_ok=True)
    return LocalHome(home.resolve())
