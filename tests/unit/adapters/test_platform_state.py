"""The platform's file is believed whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.platform_state import PlatformState, ProcessState, read_platform, write_platform
from tidewheel.errors import NotFound

STATE = PlatformState(7, 1, "running", "http://127.0.0.1:1", {"mlflow": ProcessState(8, "running")}, {"p": "http://x"})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_platform(LocalHome(tmp_path), STATE)
    assert read_platform(LocalHome(tmp_path)) == STATE


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"{}", b'{"processes": {"mlflow": {"surprise": 1}}}', b"\xff"])
def test_a_damaged_file_says_what_to_run(tmp_path: Path, junk: bytes) -> None:
    file = LocalHome(tmp_path).state_file
    file.write_bytes(junk)
    with pytest.raises(
        NotFound, match=rf"^{re.escape(str(file))}: damaged .* run 'tidewheel down', then 'tidewheel up'"
    ):
        read_platform(LocalHome(tmp_path))


def test_no_file_means_that_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="the platform is not running; run 'tidewheel up' there"):
        read_platform(LocalHome(tmp_path))
