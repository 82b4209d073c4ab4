from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tidewheel.bundle.manifest import MANIFEST, FileEntry, manifest_bytes, verify, write_manifest
from tidewheel.errors import ContractViolation, InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    made.mkdir()
    (made / "a.txt").write_bytes(b"a")
    (made / "b.bin").write_bytes(b"bb")
    return made


def test_equal_files_have_equal_digests_and_the_manifest_is_canonical(folder: Path) -> None:
    first = write_manifest(folder)
    assert write_manifest(folder) == first
    assert (folder / MANIFEST).read_bytes() == (
        b'{"files":{"a.txt":{"sha256":"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","size":1},'
        b'"b.bin":{"sha256":"3b64db95cb55c763391c707108489ae18b4112d783300de38e033b4c98c3deaf","size":2}},"format":1}\n'
    )


def test_a_folder_as_written_verifies(folder: Path) -> None:
    digest = write_manifest(folder)
    assert sorted(verify(folder, digest)) == ["a.txt", "b.bin"]


def _change(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"x")


def _remove(folder: Path) -> None:
    (folder / "a.txt").unlink()


def _add(folder: Path) -> None:
    (folder / "evil.py").write_bytes(b"")


def _link(folder: Path) -> None:
    (folder.parent / "outside").write_bytes(b"a")
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(folder.parent / "outside")


def _nest(folder: Path) -> None:
    (folder / "sub").mkdir()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(_change, "a.txt was changed", id="a changed file"),
        pytest.param(_remove, "a.txt is missing", id="a missing file"),
        pytest.param(_add, "evil.py does not belong there", id="an extra file"),
        pytest.param(_link, "a.txt is not a plain file", id="a link, even to equal bytes"),
        pytest.param(_nest, "sub does not belong there", id="a folder inside"),
    ],
)
def test_a_bundle_is_refused_for(folder: Path, damage: Callable[[Path], None], says: str) -> None:
    digest = write_manifest(folder)
    damage(folder)
    with pytest.raises(ContractViolation) as raised:
        verify(folder, digest)
    assert str(raised.value) == f"{folder}: not the bundle {digest[:12]}: {says}"


def test_every_fault_is_told_at_once(folder: Path) -> None:
    digest = write_manifest(folder)
    _change(folder)
    _add(folder)
    with pytest.raises(ContractViolation, match=r"evil\.py does not belong there; a\.txt was changed"):
        verify(folder, digest)


def test_a_manifest_made_again_over_changed_files_has_another_digest(folder: Path) -> None:
    digest = write_manifest(folder)
    _change(folder)
    write_manifest(folder)
    with pytest.raises(ContractViolation, match=f"but {digest[:12]} was registered"):
        verify(folder, digest)


def test_a_manifest_that_is_a_link_is_not_followed(folder: Path) -> None:
    digest = write_manifest(folder)
    (folder / MANIFEST).rename(folder.parent / "elsewhere")
    (folder / MANIFEST).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(ContractViolation, match="no readable MANIFEST"):
        verify(folder, digest)


def test_a_manifest_cannot_name_a_file_outside(folder: Path) -> None:
    from tidewheel.bundle.manifest import digest_of

    data = manifest_bytes({"../outside": FileEntry("0" * 64, 1)})
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(ContractViolation, match=r"names a file that may not be in a bundle \(got '\.\./outside'\)"):
        verify(folder, digest_of(data))


def test_text_that_is_no_digest_is_refused(folder: Path) -> None:
    write_manifest(folder)
    with pytest.raises(ContractViolation, match=r"not a digest \(got 'latest'\)"):
        verify(folder, "latest")


def test_a_link_is_not_bundled(folder: Path) -> None:
    (folder / "c").symlink_to(folder / "a.txt")
    with pytest.raises(InputError, match="not a plain file"):
        write_manifest(folder)
