"""Who of several controllers acts: the holder of a Lease. What it does is safe twice, so that a late holder harms
nobody: the journal's compare-and-set decides between two that act at once."""

from __future__ import annotations

import logging

from tidewheel.adapters.kubernetes_api import KubernetesApi, Object
from tidewheel.clock import SECOND_US, Clock, utc_text
from tidewheel.errors import Conflict, NotFound, Unavailable

LOG = logging.getLogger("tidewheel.controller")
API, KIND = "coordination.k8s.io/v1", "Lease"
VALID_US = 15 * SECOND_US
RENEW_US = 4 * SECOND_US


class Leadership:
    """``held`` before each round; the lease is renewed as it is asked."""

    def __init__(self, api: KubernetesApi, namespace: str, name: str, identity: str, clock: Clock) -> None:
        self._api, self._namespace, self._name, self._identity = api, namespace, name, identity
        self._clock = clock
        self._held_since_us: int | None = None  # monotonic time of the newest renewal
        self._seen: tuple[str, int] | None = None  # another's renewal and when it was seen

    def held(self) -> bool:
        """Whether this process may act now. An API server that does not answer leaves the lease valid to its end."""
        now_us = self._clock.monotonic_us()
        if self._held_since_us is not None and now_us - self._held_since_us < RENEW_US:
            return True
        try:
            self._renew(now_us)
        except (Conflict, Unavailable) as error:
            LOG.warning("event=lease_not_renewed error=%s", error)
        valid = self._held_since_us is not None and now_us - self._held_since_us < VALID_US
        if not valid:
            self._held_since_us = None
        return valid

    def release(self) -> None:
        """Let another one begin at once."""
        if self._held_since_us is None:
            return
        self._held_since_us = None
        try:
            lease = self._api.get(API, KIND, self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                self._api.replace(lease)
        except (Conflict, NotFound, Unavailable):
            return  # it runs out by itself

    def _renew(self, now_us: int) -> None:
        try:
            lease = self._api.get(API, KIND, self._namespace, self._name)
        except NotFound:
            self._api.create({"apiVersion": API, "kind": KIND,
                              "metadata": {"name": self._name, "namespace": self._namespace},
                              "spec": self._spec(0)})  # fmt: skip
            self._taken(now_us)
            return
        spec = lease["spec"]
        if spec.get("holderIdentity") not in ("", None, self._identity) and not self._is_over(spec, now_us):
            self._held_since_us = None
            return
        lease["spec"] = self._spec(int(spec.get("leaseTransitions", 0)), spec)
        self._api.replace(lease)
        self._taken(now_us)

    def _taken(self, now_us: int) -> None:
        if self._held_since_us is None:
            LOG.info("event=leading identity=%s", self._identity)
        self._held_since_us = now_us

    def _is_over(self, spec: Object, now_us: int) -> bool:
        """Whether the holder has not renewed for as long as its lease lasts, by this machine's clock alone."""
        mark = f"{spec.get('holderIdentity')} {spec.get('renewTime')}"
        if self._seen is None or self._seen[0] != mark:
            self._seen = (mark, now_us)
        return now_us - self._seen[1] > int(spec.get("leaseDurationSeconds", 15)) * SECOND_US

    def _spec(self, transitions: int, before: Object | None = None) -> Object:
        now = _micro_time(self._clock.now_us())
        same = before is not None and before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": VALID_US // SECOND_US,
            "acquireTime": before["acquireTime"] if before and same and "acquireTime" in before else now,
            "renewTime": now,
            "leaseTransitions": transitions if same else transitions + 1,
        }


def _micro_time(at_us: int) -> str:
    """Kubernetes' MicroTime: always six digits."""
    whole = utc_text(at_us // SECOND_US * SECOND_US).removesuffix("Z")
    return f"{whole}.{at_us % SECOND_US:06d}Z"
