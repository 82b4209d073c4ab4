"""Where keys are: named by the environment or an option, else in the home, where the first need makes them.

On one machine ``keys/signing.pem`` (0600) signs and every file in ``keys/trusted`` is trusted. Elsewhere
TIDEWHEEL_SIGNING_KEY_FILE names the private key and TIDEWHEEL_TRUSTED_KEYS the public ones: files or folders of
``*.pem``, separated as PATH is; then the home's keys do not count.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.bundle.signature import PublicKey, SigningKey, Trust, TrustedKeys
from tidewheel.errors import InputError
from tidewheel.whole_file import write_whole

TRUSTED_VARIABLE = "TIDEWHEEL_TRUSTED_KEYS"
SIGNING_VARIABLE = "TIDEWHEEL_SIGNING_KEY_FILE"
MAX_KEY_BYTES = 100_000


def ensure_keys(home: LocalHome) -> None:
    """Make a key pair in the home where it has none and nobody named keys; whoever holds the pair is trusted."""
    if os.environ.get(TRUSTED_VARIABLE) or os.environ.get(SIGNING_VARIABLE):
        return
    path = home.keys / "signing.pem"
    if not path.exists():
        _write_private(path, SigningKey.make().pem)
    public = SigningKey.from_pem(_read(path), str(path)).public
    trusted = home.keys / "trusted" / f"{public.fingerprint[:16]}.pem"
    if not trusted.exists():
        write_whole(trusted, public.pem)


def signing_key(home: LocalHome, given: Path | None = None) -> SigningKey:
    """The key to sign with: ``given``, the environment's, or the home's, made where there is none.

    Raises InputError where keys are named by the environment but not the one that signs.
    """
    path = given or (Path(named) if (named := os.environ.get(SIGNING_VARIABLE)) else None)
    if path is None:
        if os.environ.get(TRUSTED_VARIABLE):
            raise InputError(
                f"{TRUSTED_VARIABLE} names who is trusted, but nothing names the key that signs; "
                f"give --signing-key FILE or set {SIGNING_VARIABLE}"
            )
        ensure_keys(home)
        path = home.keys / "signing.pem"
    return SigningKey.from_pem(_read(path), str(path))


def trust_of(home: LocalHome) -> Trust:
    """Reads the trusted keys when asked, so that a key that was added or removed counts from the next bundle on."""
    return lambda: trusted_keys(home)


def trusted_keys(home: LocalHome) -> TrustedKeys:
    """Raises InputError for a named file that is no public key; a home without keys trusts nobody."""
    named = os.environ.get(TRUSTED_VARIABLE, "")
    places = [Path(part) for part in named.split(os.pathsep) if part] or [home.keys / "trusted"]
    files: list[Path] = []
    for place in places:
        files += sorted(place.glob("*.pem")) if place.is_dir() or not named else [place]
    keys = {key.fingerprint: key for path in files for key in (PublicKey.from_pem(_read(path), str(path)),)}
    where = f"by {TRUSTED_VARIABLE}" if named else f"in {places[0]}"
    return TrustedKeys(tuple(keys.values()), where)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise InputError(f"{path}: the key cannot be read: {error.strerror}") from error


def _write_private(path: Path, data: bytes) -> None:
    """Readable by its owner alone from its first byte on; of two processes that make one, the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
