"""A verdict is believed only where nobody but this user could have written it, and it is about these bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.serving.verdicts import Verdicts

DIGEST, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "verdicts"


def test_a_kept_verdict_is_known_to_the_next_server_and_no_other_digest_is(folder: Path):
    assert not Verdicts(folder).knows(DIGEST)
    Verdicts(folder).keep(DIGEST)
    assert Verdicts(folder).knows(DIGEST)
    assert not Verdicts(folder).knows(OTHER)
    assert [path.name for path in folder.iterdir()] == [DIGEST]


def test_a_verdict_that_was_renamed_for_another_digest_is_not_believed(folder: Path):
    Verdicts(folder).keep(DIGEST)
    (folder / DIGEST).rename(folder / OTHER)
    assert not Verdicts(folder).knows(OTHER)


def test_a_verdict_of_other_libraries_is_not_believed(folder: Path):
    Verdicts(folder).keep(DIGEST)
    path = folder / DIGEST
    path.write_bytes(path.read_bytes().replace(b"onnxruntime=1", b"onnxruntime=0"))
    assert not Verdicts(folder).knows(DIGEST)


@pytest.mark.parametrize("mode", [pytest.param(0o620, id="by the group"), pytest.param(0o602, id="by everybody")])
def test_a_verdict_is_not_believed_that_may_be_written(folder: Path, mode: int):
    Verdicts(folder).keep(DIGEST)
    (folder / DIGEST).chmod(mode)
    assert not Verdicts(folder).knows(DIGEST)


def test_a_folder_that_others_may_write_is_not_believed(folder: Path):
    Verdicts(folder).keep(DIGEST)
    folder.chmod(0o777)
    assert not Verdicts(folder).knows(DIGEST)


def test_links_are_not_followed(folder: Path, tmp_path: Path):
    Verdicts(folder).keep(DIGEST)
    (folder / DIGEST).rename(tmp_path / "elsewhere")
    (folder / DIGEST).symlink_to(tmp_path / "elsewhere")
    assert not Verdicts(folder).knows(DIGEST)


def test_a_disk_that_takes_no_verdict_is_no_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    Verdicts(tmp_path / "file" / "verdicts").keep(DIGEST)
