"""One key pair per test process, and homes that trust it."""

from __future__ import annotations

from pathlib import Path

from tidewheel.bundle.signature import SigningKey, TrustedKeys

KEY = SigningKey.make()


def trust() -> TrustedKeys:
    """Whoever holds KEY."""
    return TrustedKeys((KEY.public,), "in the test")


def trust_in(home: Path) -> Path:
    """A home whose processes trust KEY and sign with it."""
    folder = home / "keys" / "trusted"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.pem").write_bytes(KEY.public.pem)
    (home / "keys" / "signing.pem").write_bytes(KEY.pem)
    return home
