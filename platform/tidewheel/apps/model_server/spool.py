"""A server's spool at work: synced and closed at intervals by a thread, shipped by a child process."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

from tidewheel.apps.log_lines import LogFormat
from tidewheel.clock import SECOND_US, Clock
from tidewheel.serving.prediction_log import PredictionLog
from tidewheel.serving.shipper_files import STATUS, LoggedColumns, ShipperStatus, read_status, write_columns

LOG = logging.getLogger("tidewheel.model_server")
SYNC_EVERY_S = 0.1
SYNCS_PER_ROTATION = 5
RESTART_AFTER_US = (SECOND_US // 2, 30 * SECOND_US)  # at first, and at most


class Spool:
    """``start`` once, ``stop`` once; the rest at any time, from the event loop."""

    def __init__(self, log: PredictionLog, lake: str, project: str, log_format: LogFormat, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._command = [
            sys.executable, "-m", "tidewheel.apps.log_shipper", "--spool", str(log.folder), "--lake", lake,
            "--project", project, "--log-format", log_format,
        ]  # fmt: skip
        self._columns: LoggedColumns | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._start_at_us, self._pause_us = 0, RESTART_AFTER_US[0]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._earlier = ShipperStatus()  # of children that ended
        (log.folder / STATUS).unlink(missing_ok=True)  # a predecessor's

    def start(self) -> None:
        self._thread.start()

    def tell_columns(self, columns: LoggedColumns) -> None:
        """What requests have now; nothing is shipped before it is known."""
        if columns != self._columns:
            self._columns = columns
            write_columns(self._log.folder, columns)

    def status(self) -> ShipperStatus:
        """Since this server started."""
        now, earlier = read_status(self._log.folder), self._earlier
        return ShipperStatus(
            earlier.shipped + now.shipped,
            earlier.failures + now.failures,
            earlier.torn_bytes + now.torn_bytes,
            now.error,
        )

    def stop(self, grace_s: float) -> None:
        """Close the spool and let the child ship what is left, for ``grace_s`` at most; the rest stays on disk."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)
        self._log.close()
        if self._columns is not None and (self._child is None or self._child.poll() is not None):
            self._child = self._start_child()
        if self._child is None:
            return
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            LOG.warning("event=unshipped bytes=%d folder=%s", self._log.waiting_bytes, self._log.folder)

    def _run(self) -> None:
        rounds = 0
        while not self._stop.wait(SYNC_EVERY_S):
            try:
                self._log.sync()
                rounds += 1
                if rounds % SYNCS_PER_ROTATION == 0:
                    self._log.rotate()
                    self._keep_child()
            except OSError as error:  # a full or failing disk: writes count what they lose
                LOG.warning("event=spool_failing error=%s", error)

    def _keep_child(self) -> None:
        """Have a shipper run, once there is something that it can ship."""
        if self._columns is None:
            return
        now_us = self._clock.monotonic_us()
        if self._child is not None and self._child.poll() is None:
            if now_us - self._start_at_us > 2 * RESTART_AFTER_US[1]:
                self._pause_us = RESTART_AFTER_US[0]
            return
        if self._child is not None:
            LOG.warning("event=shipper_ended code=%d", self._child.returncode)
            self._earlier, self._child = self.status(), None
            (self._log.folder / STATUS).unlink(missing_ok=True)
            self._start_at_us = now_us + self._pause_us
            self._pause_us = min(2 * self._pause_us, RESTART_AFTER_US[1])
        if now_us >= self._start_at_us:
            self._start_at_us = now_us
            self._child = self._start_child()

    def _start_child(self) -> subprocess.Popen[bytes]:
        """It ends when its stdin is closed."""
        return subprocess.Popen(self._command, stdin=subprocess.PIPE)
