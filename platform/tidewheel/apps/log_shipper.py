"""``python -m tidewheel.apps.log_shipper --spool FOLDER --lake URL --project NAME``: a model server's own child.

It encodes and uploads beside the server, so that neither a slow sink nor the work itself can touch a reply. It ends
when its stdin does, after what is closed has been shipped: when the server closes it, and when the server is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

from tidewheel.apps.log_lines import set_up_log
from tidewheel.errors import InputError
from tidewheel.serving.shipper import Shipper

EVERY_S = 0.25
ADOPT_EVERY = 40  # rounds
NICE = 10


class _NoPandas(MetaPathFinder):
    """pyarrow imports pandas at its first conversion where it is installed: a second and 60 MB for nothing."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("a shipper works without pandas", name=fullname)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tidewheel.apps.log_shipper", description="Ship a spool into the lake.")
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    given = parser.parse_args()
    set_up_log(given.log_format)
    sys.meta_path.insert(0, _NoPandas())
    from tidewheel.adapters.lake_parts import part_writer

    try:
        shipper = Shipper(given.spool, part_writer(given.lake, "predictions", given.project))
    except InputError as error:
        parser.exit(1, f"{error}\n")
    with contextlib.suppress(OSError):
        os.nice(NICE)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # a signal to the group is the server's to heed
    run(shipper, sys.stdin.fileno())
    return 0


def run(shipper: Shipper, stdin: int) -> None:
    """Ship until ``stdin`` ends; then once more."""
    rounds = 0
    while not rounds or not select.select([stdin], [], [], EVERY_S)[0]:
        before = (shipper.shipped, shipper.failures)
        if rounds % ADOPT_EVERY == 0:
            shipper.adopt_orphans()
        shipper.ship()
        if (shipper.shipped, shipper.failures) != before or not rounds:
            shipper.tell()
        rounds += 1
    shipper.ship()
    shipper.tell()


if __name__ == "__main__":
    sys.exit(main())
