"""Jobs from stdin, each in a forked child of its own; answers to stdout.

A job is ``{"job": "check" | "explain", "folder": ..., "digest": ..., ...}``, an answer ``{"ok": true, ...}`` or
``{"ok": false, "reason": ..., "message": ...}``. Whatever happens to a child is an answer.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tidewheel.apps.model_parser import sandbox
from tidewheel.apps.model_parser.check import check_bundle, contributions, read_booster
from tidewheel.bundle.files import MODEL_UBJ
from tidewheel.bundle.manifest import verify
from tidewheel.errors import TidewheelError

MAX_ANSWER_BYTES = 8_000_000
NICE = 10  # requests of the server beside come first


def main() -> int:
    """Serve until stdin ends. Libraries that print to stdout reach stderr."""
    os.nice(NICE)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for name in ("numpy", "onnxruntime", "xgboost"):
        importlib.import_module(name)
    answers.write(b'{"ready": true}\n')
    while line := sys.stdin.buffer.readline():
        answers.write(in_child(json.loads(line)) + b"\n")
    return 0


def in_child(job: dict[str, Any]) -> bytes:
    """Fork, let the child work within its limits, and tell how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(job, writing)
    os.close(writing)
    try:
        data, in_time = _read_all(reading, float(job["deadline_s"]))
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not in_time:
        return _refusal("LoadFailed", f"parsing took longer than {job['deadline_s']:g} s")
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit code {status >> 8}"
        return _refusal("LoadFailed", f"the child that parses ended by {how}")
    return json.dumps(answer).encode()


def _work(job: dict[str, Any], writing: int) -> None:
    """The child; does not return."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        sandbox.enter(int(job["memory_bytes"]), int(job["cpu_s"]))
        _write_all(writing, _answer(job))
    except MemoryError:
        _write_all(writing, _refusal("LoadFailed", "parsing needs more memory than a model may take"))
    except BaseException as error:  # whatever a parser raises is the answer
        _write_all(writing, _refusal("LoadFailed", f"{type(error).__name__}: {error}"))
    finally:
        os._exit(0)


def _answer(job: dict[str, Any]) -> bytes:
    folder, digest = Path(job["folder"]), str(job["digest"])
    try:
        if job["job"] == "explain":
            import numpy as np

            verify(folder, digest)
            rows = np.array(job["rows"], dtype=np.float32)  # null becomes NaN
            added = contributions(read_booster(folder / MODEL_UBJ), rows)
            return json.dumps({"ok": True, "contributions": added.tolist()}).encode()
        finding = check_bundle(folder, digest)
    except TidewheelError as error:
        return _refusal("BundleInvalid", str(error))
    return _refusal(finding.reason, finding.message) if finding else b'{"ok": true}'


def _refusal(reason: str, message: str) -> bytes:
    return json.dumps({"ok": False, "reason": reason, "message": message[:1000]}).encode()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read_all(descriptor: int, deadline_s: float) -> tuple[bytes, bool]:
    """What a child says until it closes, and whether that was in time; nothing where this process is to end."""
    until, found = time.monotonic() + deadline_s, bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(0, 0)  # only a hang-up: the server is gone
    while (left := until - time.monotonic()) > 0 and len(found) <= MAX_ANSWER_BYTES:
        for ready, _ in poll.poll(left * 1000):
            if ready == 0:
                return b"", False
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return bytes(found), True
            found += piece
    return b"", False


if __name__ == "__main__":
    sys.exit(main())
