"""Signatures of bundles: the OpenSSF Model Signing format in key mode, ECDSA on P-256.

``model.sig`` lies beside MANIFEST.json and is no part of the digest. It is a DSSE envelope over an in-toto statement
that lists SHA-256 and name of every file of the bundle, the manifest among them; ``model_signing verify key`` checks
the same file (github.com/sigstore/model-transparency). Nothing of a bundle is parsed before its signature is verified,
and nothing of the statement before the envelope's.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tidewheel.bundle.manifest import MANIFEST, SIGNATURE, FileEntry, read_plain, verify
from tidewheel.errors import ContractViolation, InputError
from tidewheel.whole_file import write_whole

MAX_SIGNATURE_BYTES = 1_000_000
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_SUBJECT = "bundle"  # a bundle has no name of its own


class SignatureRefused(ContractViolation):
    """A bundle that nobody trusted signed; ``reason`` is the finding's."""

    def __init__(self, reason: Literal["SignatureMissing", "SignatureInvalid"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PublicKey:
    """A key that may vouch for bundles. ``fingerprint`` is SHA-256 (hex) over its PEM, as signatures name it."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        self.pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.fingerprint = hashlib.sha256(self.pem).hexdigest()

    @classmethod
    def from_pem(cls, data: bytes, where: str) -> PublicKey:
        """Raises InputError."""
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(f"{where}: not a public key in PEM: {str(error).splitlines()[0][:200]}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise InputError(f"{where}: must be an ECDSA key on P-256 (got {type(key).__name__.lstrip('_')})")
        return cls(key)

    def accepts(self, signature: bytes, message: bytes) -> bool:
        try:
            self._key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """The private half."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def make(cls) -> SigningKey:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, data: bytes, where: str) -> SigningKey:
        """Raises InputError."""
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            said = str(error).splitlines()[0][:200]
            raise InputError(f"{where}: not a private key in PEM without a password: {said}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise InputError(f"{where}: must be an ECDSA key on P-256 (got {type(key).__name__.lstrip('_')})")
        return cls(key)

    @property
    def pem(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True)
class TrustedKeys:
    """Whose signatures count. ``where`` says for people where the keys were looked for."""

    keys: tuple[PublicKey, ...]
    where: str

    def named(self, fingerprint: str) -> PublicKey | None:
        return next((key for key in self.keys if key.fingerprint == fingerprint), None)


Trust = Callable[[], TrustedKeys]  # read anew for each bundle, so that a rotation needs no restart


def signature_of(folder: Path, digest: str, key: SigningKey) -> bytes:
    """The bytes of ``model.sig`` for a bundle. Raises ContractViolation where the folder is not that bundle."""
    resources = _resources(verify(folder, digest), digest)
    statement = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": _SUBJECT, "digest": {"sha256": _root(resources)}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [{"name": n, "algorithm": "sha256", "digest": d} for n, d in resources.items()],
        },
    }
    payload = json.dumps(statement, indent=1).encode()
    body = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public.fingerprint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(key.sign(_pae(payload))).decode(), "keyid": ""}],
        },
    }
    return json.dumps(body, indent=1).encode() + b"\n"


def sign_bundle(folder: Path, digest: str, key: SigningKey) -> bytes:
    """Write ``model.sig`` into a bundle and return its bytes. Raises ContractViolation."""
    data = signature_of(folder, digest, key)
    write_whole(folder / SIGNATURE, data)
    return data


def verify_trusted(folder: Path, digest: str, trusted: TrustedKeys) -> dict[str, FileEntry]:
    """Check that a folder is what ``digest`` names and that a trusted key signed it; its entries.

    Raises SignatureRefused, and ContractViolation as ``manifest.verify`` does.
    """
    entries = verify(folder, digest)
    try:
        data = read_plain(folder / SIGNATURE, MAX_SIGNATURE_BYTES)
    except FileNotFoundError as error:
        raise SignatureRefused("SignatureMissing", f"{folder}: has no {SIGNATURE}; {_SIGN_IT}") from error
    except OSError as error:
        raise SignatureRefused("SignatureInvalid", f"{folder}: {SIGNATURE} cannot be read: {error.strerror}") from error
    check_signature(data, entries, digest, trusted, str(folder))
    return entries


def check_signature(
    data: bytes, entries: Mapping[str, FileEntry], digest: str, trusted: TrustedKeys, where: str
) -> None:
    """Raises SignatureRefused unless ``data`` is a trusted key's signature over exactly these files."""
    try:
        body = json.loads(data)
        hint = body["verificationMaterial"]["publicKey"]["hint"]
        envelope = body["dsseEnvelope"]
        (signed,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(signed["sig"], validate=True)
        payload_type = envelope["payloadType"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _invalid(where, f"cannot be read: {type(error).__name__}") from error
    key = trusted.named(hint) if isinstance(hint, str) else None
    if key is None:
        known = ", ".join(one.fingerprint[:12] for one in trusted.keys) or "none"
        raise _invalid(
            where, f"was made with key {str(hint)[:12]!r}, trusted are {known} ({trusted.where}); {_SIGN_IT}"
        )
    if payload_type != _PAYLOAD_TYPE or not key.accepts(signature, _pae(payload)):
        raise _invalid(where, f"is not what key {key.fingerprint[:12]} signed")
    try:
        resources = _signed_resources(json.loads(payload))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _invalid(where, f"holds no statement of model signing 1.0: {error!r}") from error
    if resources != _resources(entries, digest):
        raise _invalid(where, "is about other files")


_SIGN_IT = "run 'tidewheel sign PROJECT' to vouch for what is registered"


def _invalid(where: str, said: str) -> SignatureRefused:
    return SignatureRefused("SignatureInvalid", f"{where}: {SIGNATURE} {said}")


def _resources(entries: Mapping[str, FileEntry], digest: str) -> dict[str, str]:
    """Name to SHA-256 of everything in the bundle's folder but the signature, in the order of names."""
    found = {MANIFEST: digest, **{name: entry.sha256 for name, entry in entries.items()}}
    return dict(sorted(found.items()))


def _signed_resources(statement: Any) -> dict[str, str]:
    if statement["_type"] != _STATEMENT_TYPE or statement["predicateType"] != _PREDICATE_TYPE:
        raise ValueError("another type of statement")
    listed = statement["predicate"]["resources"]
    resources = {str(one["name"]): str(one["digest"]) for one in listed if one["algorithm"] == "sha256"}
    (subject,) = statement["subject"]
    if len(resources) != len(listed) or subject["digest"]["sha256"] != _root(resources):
        raise ValueError("its digests do not add up")
    return resources


def _root(resources: Mapping[str, str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(value) for value in resources.values())).hexdigest()


def _pae(payload: bytes) -> bytes:
    """What DSSE signs (github.com/secure-systems-lab/dsse, protocol.md)."""
    return f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode() + payload
