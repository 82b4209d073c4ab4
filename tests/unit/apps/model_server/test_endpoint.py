"""API keys, time-outs from headers and the one table of faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.apps.model_server.endpoint import ApiKeys, Fault, MeshClients, Unauthenticated, fault_of, timeout_us_of
from tidewheel.errors import InputError, NotFound, TidewheelError, Unavailable
from tidewheel.serving.request import BadRequest, Overloaded, TooLarge


def test_any_key_of_the_file_is_known(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("old-key\n\n  new-key  \n")
    keys = ApiKeys.of(tmp_path / "keys")
    keys.check(b"Bearer old-key")
    keys.check(b"bearer  new-key")


@pytest.mark.parametrize("sent", [b"", b"Bearer", b"Bearer ", b"Bearer old", b"Basic old-key", b"old-key", b"\xff\xfe"])
def test_anything_else_is_refused(sent: bytes) -> None:
    with pytest.raises(Unauthenticated, match="send 'Authorization: Bearer KEY'"):
        ApiKeys([b"old-key"]).check(sent)


def test_a_file_without_a_key_lets_nobody_in_by_mistake(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(" \n")
    with pytest.raises(InputError, match="holds no API key; write one per line"):
        ApiKeys.of(tmp_path / "keys")
    with pytest.raises(FileNotFoundError):
        ApiKeys.of(tmp_path / "none")


def test_a_timeout_is_whole_milliseconds() -> None:
    assert timeout_us_of(b"25") == 25_000
    for wrong in (b"", b"0", b"-5", b"1.5", b"1e3", b"3600001", b"9" * 30, "٣".encode()):
        with pytest.raises(BadRequest, match="must be a whole number of 1 to 3600000"):
            timeout_us_of(wrong)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (BadRequest("x"), Fault(400, "INVALID_ARGUMENT")),
        (Unauthenticated("x"), Fault(401, "UNAUTHENTICATED")),
        (NotFound("x"), Fault(404, "NOT_FOUND")),
        (TooLarge("x"), Fault(413, "RESOURCE_EXHAUSTED")),
        (Overloaded("x", 3), Fault(503, "RESOURCE_EXHAUSTED", 3)),
        (Unavailable("x"), Fault(503, "UNAVAILABLE", 1)),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_every_fault_has_a_status_and_a_code(error: TidewheelError, fault: Fault) -> None:
    assert fault_of(error) == fault


NEAREST = b"By=spiffe://a/server;Hash=1;URI=spiffe://cluster.local/ns/shop/sa/checkout"


@pytest.mark.parametrize(
    ("header", "known"),
    [
        pytest.param(NEAREST, True, id="the nearest proxy vouches for it"),
        pytest.param(
            b"URI=spiffe://cluster.local/ns/shop/sa/checkout,By=x;URI=spiffe://other", False, id="another hop"
        ),
        pytest.param(NEAREST.replace(b"checkout", b"checkout2"), False, id="another client"),
        pytest.param(b"", False, id="nobody"),
        pytest.param(b"URI", False, id="nonsense"),
    ],
)
def test_a_client_is_known_by_what_the_nearest_proxy_says(tmp_path: Path, header: bytes, known: bool) -> None:
    path = tmp_path / "clients"
    path.write_text("spiffe://cluster.local/ns/shop/sa/checkout\n\nspiffe://cluster.local/ns/shop/sa/refunds\n")
    assert MeshClients.of(path).knows({MeshClients.HEADER: header} if header else {}) is known


def test_a_file_without_a_client_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text("\n")
    with pytest.raises(InputError, match="holds no client identity"):
        MeshClients.of(tmp_path / "clients")
