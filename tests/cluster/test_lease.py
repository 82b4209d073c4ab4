"""One controller acts: the holder of the lease, by a real API server; a clock that is set by hand is each one's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from servers.kube import Kube
from tidewheel.adapters.kubernetes_api import KubernetesApi
from tidewheel.adapters.kubernetes_lease import RENEW_US, VALID_US, Leadership
from tidewheel.clock import FixedClock, SystemClock
from tidewheel.errors import Unavailable


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    name = f"lease-{uuid.uuid4().hex[:6]}"
    kube.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "tests")
    yield name
    kube.api.delete("v1", "Namespace", None, name)


@pytest.fixture
def pair(kube: Kube, namespace: str) -> tuple[tuple[Leadership, FixedClock], tuple[Leadership, FixedClock]]:
    name = f"lease-{uuid.uuid4().hex[:6]}"
    now_us = SystemClock().now_us()

    def one(identity: str) -> tuple[Leadership, FixedClock]:
        clock = FixedClock(now_us)
        return Leadership(kube.api, namespace, name, identity, clock), clock

    return one("a"), one("b")


def test_the_first_leads_and_the_second_stands_by(pair) -> None:
    (first, _), (second, _) = pair
    assert first.held()
    assert not second.held()
    assert first.held()


def test_the_second_takes_over_when_the_first_is_silent_for_as_long_as_its_lease(pair) -> None:
    (first, _), (second, clock) = pair
    assert first.held() and not second.held()
    clock.at_us += VALID_US - 1
    assert not second.held()
    clock.at_us += 2
    assert second.held()


def test_a_holder_that_renews_is_not_taken_over(pair) -> None:
    (first, mine), (second, clock) = pair
    assert first.held() and not second.held()
    for _ in range(6):
        mine.at_us += RENEW_US + 1
        clock.at_us += RENEW_US + 1
        assert first.held()
        assert not second.held()


def test_one_that_ends_lets_the_other_begin_at_once(pair) -> None:
    (first, _), (second, clock) = pair
    assert first.held() and not second.held()
    first.release()
    clock.at_us += 1
    assert second.held()
    assert not first.held()


def test_one_that_was_taken_over_learns_it_at_its_next_renewal(pair) -> None:
    (first, mine), (second, clock) = pair
    assert first.held() and not second.held()
    clock.at_us += VALID_US + 1
    assert second.held()
    mine.at_us += RENEW_US + 1
    assert not first.held()


def test_an_api_server_that_is_away_leaves_the_lease_valid_to_its_end(pair, monkeypatch) -> None:
    (first, clock), _ = pair
    assert first.held()

    def away(*_: object, **__: object) -> None:
        raise Unavailable("the API server does not answer")

    monkeypatch.setattr(KubernetesApi, "_call", away)
    clock.at_us += VALID_US - 1
    assert first.held()
    clock.at_us += 2
    assert not first.held()
