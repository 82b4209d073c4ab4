"""Verdicts of children that parsed, by digest, so that a server that starts again need not parse again.

A verdict is believed only where it is a plain file of this user, in a folder of this user, that nobody else may write,
and holds exactly the bytes that would be written now: it is compared, never parsed. It says that these libraries parsed
this digest without harm. It replaces neither digest nor signature, which are verified at every load, so a forged one
gains nothing but the parsing of a bundle that a trusted key signed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FORMAT = 1  # raise it when the check learns to refuse more
_LIBRARIES = ("xgboost-cpu", "xgboost", "onnxruntime", "numpy")
_MAX_BYTES = 1000


class Verdicts:
    """Good verdicts in ``folder``; bad ones are not kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._libraries = " ".join(f"{name}={_installed(name)}" for name in _LIBRARIES)

    def knows(self, digest: str) -> bool:
        """Whether a bundle was parsed before, by the same libraries and the same check."""
        try:
            place = self._folder.lstat()
            descriptor = os.open(self._folder / digest, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                about = os.fstat(descriptor)
                return (
                    stat.S_ISDIR(place.st_mode)
                    and stat.S_ISREG(about.st_mode)
                    and _ours_alone(place)
                    and _ours_alone(about)
                    and file.read(_MAX_BYTES) == self._text(digest)
                )
        except OSError:
            return False

    def keep(self, digest: str) -> None:
        """Remember a good verdict; a disk that does not take it costs a parse at the next start."""
        temporary = self._folder / f".{digest}.{os.getpid()}.tmp"
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._text(digest))
            temporary.replace(self._folder / digest)

    def _text(self, digest: str) -> bytes:
        return f"parsed {digest} format={FORMAT} {self._libraries}\n".encode()


def _ours_alone(about: os.stat_result) -> bool:
    return about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
