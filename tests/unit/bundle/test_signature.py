"""A bundle counts only with the signature of a trusted key over exactly its files."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidewheel.bundle.manifest import SIGNATURE, write_manifest
from tidewheel.bundle.signature import (
    PublicKey,
    SignatureRefused,
    SigningKey,
    TrustedKeys,
    sign_bundle,
    signature_of,
    verify_trusted,
)
from tidewheel.errors import ContractViolation, InputError

KEY, OTHER = SigningKey.make(), SigningKey.make()


def trusting(*keys: SigningKey) -> TrustedKeys:
    return TrustedKeys(tuple(key.public for key in keys), "in the test")


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.ubj").write_bytes(b"trees")
    (folder / "plan.json").write_bytes(b"{}")
    digest = write_manifest(folder)
    sign_bundle(folder, digest, KEY)
    return folder, digest


def stock(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "model_signing"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_signed_bundle_is_verified_and_its_digest_is_as_it_was(signed: tuple[Path, str]):
    folder, digest = signed
    assert sorted(verify_trusted(folder, digest, trusting(OTHER, KEY))) == ["model.ubj", "plan.json"]
    assert write_manifest(folder) == digest


def test_the_stock_command_verifies_our_signature_and_sees_a_changed_byte(signed: tuple[Path, str], tmp_path: Path):
    folder, _ = signed
    public = tmp_path / "public.pem"
    public.write_bytes(KEY.public.pem)
    asked = ("verify", "key", str(folder), "--signature", str(folder / SIGNATURE), "--public_key", str(public))
    done = stock(*asked)
    assert (done.returncode, "Verification succeeded" in done.stdout + done.stderr) == (0, True), done.stderr
    (folder / "model.ubj").write_bytes(b"threes")
    assert stock(*asked).returncode != 0


def test_we_verify_what_the_stock_command_signs(signed: tuple[Path, str], tmp_path: Path):
    folder, digest = signed
    (folder / SIGNATURE).unlink()
    private = tmp_path / "private.pem"
    private.write_bytes(KEY.pem)
    done = stock("sign", "key", str(folder), "--private_key", str(private), "--signature", str(folder / SIGNATURE))
    assert done.returncode == 0, done.stderr
    verify_trusted(folder, digest, trusting(KEY))
    with pytest.raises(SignatureRefused):
        verify_trusted(folder, digest, trusting(OTHER))


def test_a_bundle_without_a_signature_is_refused_and_says_what_to_run(signed: tuple[Path, str]):
    (signed[0] / SIGNATURE).unlink()
    with pytest.raises(SignatureRefused, match=r"has no model\.sig; run 'tidewheel sign PROJECT'") as refused:
        verify_trusted(*signed, trusting(KEY))
    assert refused.value.reason == "SignatureMissing"


def test_another_key_does_not_count(signed: tuple[Path, str]):
    with pytest.raises(SignatureRefused, match=rf"was made with key '{KEY.public.fingerprint[:12]}', trusted are"):
        verify_trusted(*signed, trusting(OTHER))
    with pytest.raises(SignatureRefused, match="trusted are none") as refused:
        verify_trusted(*signed, trusting())
    assert refused.value.reason == "SignatureInvalid"


def test_keys_are_rotated_by_trusting_both_signing_anew_and_dropping_the_old(signed: tuple[Path, str]):
    folder, digest = signed
    verify_trusted(folder, digest, trusting(KEY, OTHER))
    sign_bundle(folder, digest, OTHER)
    verify_trusted(folder, digest, trusting(KEY, OTHER))
    verify_trusted(folder, digest, trusting(OTHER))
    with pytest.raises(SignatureRefused):
        verify_trusted(folder, digest, trusting(KEY))


def test_the_signature_of_another_bundle_does_not_count(signed: tuple[Path, str], tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(signed[0], other)
    (other / "plan.json").write_bytes(b"[]")
    digest = write_manifest(other)
    with pytest.raises(SignatureRefused, match=r"model\.sig is about other files"):
        verify_trusted(other, digest, trusting(KEY))


def test_changed_files_are_found_before_the_signature_is_read(signed: tuple[Path, str]):
    (signed[0] / "plan.json").write_bytes(b"[]")
    (signed[0] / SIGNATURE).write_bytes(b"not even JSON")
    with pytest.raises(ContractViolation, match=r"plan\.json was changed"):
        verify_trusted(*signed, trusting(KEY))


def _with(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        body = json.loads(data)
        change(body)
        return json.dumps(body).encode()

    return changed


def _hint_of_other(body: dict[str, Any]) -> None:
    body["verificationMaterial"]["publicKey"]["hint"] = OTHER.public.fingerprint


def _payload(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def changed(body: dict[str, Any]) -> None:
        envelope = body["dsseEnvelope"]
        envelope["payload"] = base64.b64encode(change(base64.b64decode(envelope["payload"]))).decode()

    return _with(changed)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[: len(data) // 2], id="torn"),
        pytest.param(lambda data: b"[" * 200_000, id="a bomb of depth"),
        pytest.param(lambda data: b'{"a": 1}' + b" " * 1_000_000, id="too large"),
        pytest.param(_with(lambda body: body.pop("dsseEnvelope")), id="no envelope"),
        pytest.param(_with(lambda body: body["dsseEnvelope"].update(signatures=[])), id="no signature inside"),
        pytest.param(_with(lambda body: body["dsseEnvelope"].update(payloadType="text/plain")), id="another type"),
        pytest.param(_with(_hint_of_other), id="the name of another trusted key"),
        pytest.param(_payload(lambda data: data + b" "), id="one more space in the statement"),
        pytest.param(_payload(lambda data: data.replace(b"plan.json", b"plan.jsox")), id="another file's name"),
        pytest.param(_with(lambda body: body["verificationMaterial"]["publicKey"].update(hint=7)), id="a number"),
    ],
)  # fmt: skip
def test_a_signature_is_refused_that_is(signed: tuple[Path, str], change: Callable[[bytes], bytes]):
    path = signed[0] / SIGNATURE
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises((SignatureRefused, ContractViolation)):
        verify_trusted(*signed, trusting(KEY, OTHER))


def test_a_signature_that_is_a_link_is_refused(signed: tuple[Path, str], tmp_path: Path):
    path = signed[0] / SIGNATURE
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ContractViolation):
        verify_trusted(*signed, trusting(KEY))


def test_a_folder_that_is_not_its_digest_is_not_signed(signed: tuple[Path, str]):
    (signed[0] / "plan.json").write_bytes(b"[]")
    with pytest.raises(ContractViolation, match=r"plan\.json was changed"):
        signature_of(*signed, KEY)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"hello", "x.pem: not a public key in PEM", id="text"),
        pytest.param(KEY.pem, "x.pem: not a public key in PEM", id="a private key"),
    ],
)
def test_a_public_key_is_refused_that_is(data: bytes, says: str):
    with pytest.raises(InputError, match=says):
        PublicKey.from_pem(data, "x.pem")


def test_only_keys_on_p_256_sign():
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InputError, match=r"x\.pem: must be an ECDSA key on P-256 \(got Ed25519PrivateKey\)"):
        SigningKey.from_pem(pem, "x.pem")
