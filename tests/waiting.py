"""Wait for what real processes do, with a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def until(true: Callable[[], bool], limit_s: float = 60) -> None:
    """Look until ``true`` says so; fails after ``limit_s``."""
    deadline, pause = time.monotonic() + limit_s, threading.Event()
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        pause.wait(0.05)
