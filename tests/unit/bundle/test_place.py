from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.bundle.manifest import verify, write_manifest
from tidewheel.bundle.place import place, scratch
from tidewheel.errors import ContractViolation


def write(folder: Path, text: str = "a") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text(text)
    return write_manifest(folder)


def test_a_target_appears_verified(tmp_path: Path) -> None:
    digest = write(tmp_path / "source")
    place(tmp_path / "store" / digest, digest, lambda folder: write(folder) and None)
    verify(tmp_path / "store" / digest, digest)


def test_a_target_that_is_there_is_not_filled_again(tmp_path: Path) -> None:
    digest = write(tmp_path / "target")

    def fill(folder: Path) -> None:
        raise AssertionError("filled twice")

    place(tmp_path / "target", digest, fill)


def test_wrong_bytes_leave_nothing(tmp_path: Path) -> None:
    digest = write(tmp_path / "source")
    with pytest.raises(ContractViolation):
        place(tmp_path / "store" / "target", digest, lambda folder: write(folder, "b") and None)
    assert list((tmp_path / "store").iterdir()) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    digest = write(tmp_path / "source")
    left = tmp_path / "store" / ".target.999999999.tmp"
    left.mkdir(parents=True)
    place(tmp_path / "store" / "target", digest, lambda folder: write(folder) and None)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["target"]


def test_scratch_is_empty_and_goes_also_after_a_process_was_killed(tmp_path: Path) -> None:
    left = tmp_path / ".candidate.999999999.tmp"
    left.mkdir()
    (left / "half").write_bytes(b"")
    with scratch(tmp_path) as folder:
        assert list(folder.iterdir()) == []
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []
