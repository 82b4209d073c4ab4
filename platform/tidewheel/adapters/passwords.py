"""Passwords come from the environment or from a file that it names, never from a URL or a file of ours."""

from __future__ import annotations

import os
from pathlib import Path

from tidewheel.errors import InputError


def password(server: str) -> str | None:
    """TIDEWHEEL_<server>_PASSWORD, or what the file TIDEWHEEL_<server>_PASSWORD_FILE says. Raises InputError."""
    name = f"TIDEWHEEL_{server}_PASSWORD"
    path = os.environ.get(f"{name}_FILE")
    if path is None:
        return os.environ.get(name)
    try:
        return Path(path).read_text().rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{name}_FILE: {path} cannot be read ({error.strerror})") from error
