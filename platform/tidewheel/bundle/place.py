"""Puts a bundle at its final path: whole and verified, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tidewheel.bundle.manifest import verify
from tidewheel.errors import ContractViolation, naming


def place(target: Path, digest: str, fill: Callable[[Path], object]) -> None:
    """Make ``target`` the bundle ``digest`` names; ``fill`` writes its files into an empty folder.

    A verified target is left as it is, a damaged one is replaced. Raises ContractViolation where what ``fill`` wrote
    is not that bundle; a crash at any point leaves a hidden folder that the next call sweeps.
    """
    if is_bundle(target, digest):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        with naming(target):
            fill(temporary)
            verify(temporary, digest)
            for path in temporary.iterdir():
                _sync(path)
        if target.exists():
            shutil.rmtree(target)
        try:
            temporary.rename(target)
        except OSError:
            verify(target, digest)  # another process placed the same bundle first
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_bundle(folder: Path, digest: str) -> bool:
    """Whether ``folder`` is there and is exactly what ``digest`` names."""
    try:
        verify(folder, digest)
    except ContractViolation:
        return False
    return True


@contextlib.contextmanager
def scratch(store: Path) -> Iterator[Path]:
    """An empty hidden folder in ``store`` to write a bundle in; those of killed processes are swept first."""
    store.mkdir(parents=True, exist_ok=True)
    _sweep(store / "candidate")
    made = store / f".candidate.{os.getpid()}.tmp"
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sweep(target: Path) -> None:
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid == str(os.getpid()) or not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _sync(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
