"""What a child that parses may not do: each is tried in a real fork."""

from __future__ import annotations

import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tidewheel.apps.model_parser import sandbox

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sandbox.filter_for(platform.machine()) is None, reason="needs Linux on x86-64 or arm64"
)
MEMORY_BYTES = 200_000_000
VICTIM = Path(f"/tmp/tidewheel-sandbox-{os.getpid()}")  # of the tries that would change a file


def in_sandbox(act: Callable[[], object], *, cpu_s: int = 5) -> str:
    """How a forked child ends that enters the sandbox and acts: done, the error's name, or a signal's."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            sandbox.enter(MEMORY_BYTES, cpu_s)
            act()
        except PermissionError:
            code = 1
        except MemoryError:
            code = 2
        except BaseException:
            code = 3
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return ("done", "PermissionError", "MemoryError", "another error")[status >> 8]


def test_reading_and_computing_work():
    assert in_sandbox(lambda: sum(Path(__file__).read_bytes())) == "done"


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(socket.socket, id="open a socket"),
        pytest.param(socket.socketpair, id="open a pair of sockets"),
        pytest.param(lambda: os.execv("/bin/true", ["true"]), id="run a program"),
        pytest.param(os.fork, id="fork"),
        pytest.param(lambda: os.kill(os.getppid(), 0), id="signal another process"),
        pytest.param(lambda: VICTIM.with_suffix(".new").write_text("x"), id="write a file"),
        pytest.param(lambda: os.truncate(VICTIM, 0), id="truncate a file"),
        pytest.param(VICTIM.unlink, id="remove a file"),
        pytest.param(lambda: VICTIM.rename(VICTIM.with_suffix(".new")), id="rename a file"),
        pytest.param(lambda: VICTIM.with_suffix(".folder").mkdir(), id="make a folder"),
        pytest.param(lambda: VICTIM.chmod(0o777), id="change a mode"),
    ],
)
def test_it_may_not(act: Callable[[], object]):
    VICTIM.write_text("as it was")
    try:
        assert in_sandbox(act) == "PermissionError"
        assert VICTIM.read_text() == "as it was"
    finally:
        VICTIM.unlink()


def test_memory_beyond_the_limit_is_not_given():
    assert in_sandbox(lambda: bytearray(MEMORY_BYTES // 2)) == "done"
    assert in_sandbox(lambda: bytearray(MEMORY_BYTES * 2)) == "MemoryError"


def test_a_child_that_computes_for_ever_is_killed():
    def for_ever() -> None:
        while True:
            pass

    assert in_sandbox(for_ever, cpu_s=1) in ("SIGXCPU", "SIGKILL")


def test_threads_still_start():
    import threading

    def act() -> None:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()

    assert in_sandbox(act) == "done"


def test_there_is_a_filter_for_both_machines_and_none_for_others():
    for machine in ("x86_64", "aarch64"):
        program = sandbox.filter_for(machine)
        assert program is not None
        assert len(program) % 8 == 0
    assert sandbox.filter_for("riscv64") is None
