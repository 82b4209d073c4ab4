"""Where keys are looked for, and who may read the one that signs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.signing_keys import (
    SIGNING_VARIABLE,
    TRUSTED_VARIABLE,
    ensure_keys,
    signing_key,
    trust_of,
    trusted_keys,
)
from tidewheel.bundle.signature import SigningKey
from tidewheel.errors import InputError


@pytest.fixture
def home(tmp_path: Path) -> LocalHome:
    os.environ.pop(TRUSTED_VARIABLE, None)
    os.environ.pop(SIGNING_VARIABLE, None)
    return LocalHome(tmp_path / "home")


def prints(home: LocalHome) -> set[str]:
    return {key.fingerprint for key in trusted_keys(home).keys}


def test_a_home_makes_its_keys_once_and_only_its_owner_reads_the_private_one(home: LocalHome):
    assert prints(home) == set()
    ensure_keys(home)
    made = signing_key(home)
    ensure_keys(home)
    assert signing_key(home).public.fingerprint == made.public.fingerprint
    assert prints(home) == {made.public.fingerprint}
    assert ((home.keys / "signing.pem").stat().st_mode & 0o777, home.keys.stat().st_mode & 0o077) == (0o600, 0)
    assert sorted(path.name for path in home.keys.iterdir()) == ["signing.pem", "trusted"]


def test_a_new_key_in_a_home_is_trusted_beside_the_old_until_that_is_removed(home: LocalHome):
    ensure_keys(home)
    old, trust = signing_key(home).public.fingerprint, trust_of(home)
    (home.keys / "signing.pem").rename(home.keys / "old.pem")
    new = signing_key(home).public.fingerprint
    assert old != new
    assert {key.fingerprint for key in trust().keys} == {old, new}
    (home.keys / "trusted" / f"{old[:16]}.pem").unlink()
    assert {key.fingerprint for key in trust().keys} == {new}


def test_keys_that_the_environment_names_count_alone(home: LocalHome, tmp_path: Path):
    ensure_keys(home)
    first, second = SigningKey.make(), SigningKey.make()
    (tmp_path / "more").mkdir()
    (tmp_path / "one.pem").write_bytes(first.public.pem)
    (tmp_path / "more" / "two.pem").write_bytes(second.public.pem)
    os.environ[TRUSTED_VARIABLE] = f"{tmp_path / 'one.pem'}{os.pathsep}{tmp_path / 'more'}"
    assert prints(home) == {first.public.fingerprint, second.public.fingerprint}
    with pytest.raises(InputError, match="give --signing-key FILE or set TIDEWHEEL_SIGNING_KEY_FILE"):
        signing_key(home)
    (tmp_path / "private.pem").write_bytes(first.pem)
    assert signing_key(home, tmp_path / "private.pem").public.fingerprint == first.public.fingerprint
    os.environ[SIGNING_VARIABLE] = str(tmp_path / "private.pem")
    assert signing_key(home).public.fingerprint == first.public.fingerprint


def test_a_key_that_is_named_but_not_there_is_an_error(home: LocalHome, tmp_path: Path):
    os.environ[TRUSTED_VARIABLE] = str(tmp_path / "absent.pem")
    with pytest.raises(InputError, match=r"absent\.pem: the key cannot be read: No such file"):
        trusted_keys(home)
