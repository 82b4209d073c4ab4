"""``python -m tidewheel.apps.bundle_fetcher --home DIR --digest HEX``: a model server's own child.

It brings one bundle from the object store into the home and ends, so that the S3 client's memory goes with it and a
store that stalls holds up nothing but this child. Exit codes: 0 it is there, 1 it cannot be had (stderr says why).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tidewheel.adapters.bundle_shelf import fetch_bundle
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.object_store import open_object_store
from tidewheel.errors import NotFound, TidewheelError, Unavailable

TIMEOUT_S = 120.0


def bring(home: LocalHome, digest: str) -> None:
    """Run the child for a bundle that is not here. Raises Unavailable with what it said."""
    command = [sys.executable, "-m", "tidewheel.apps.bundle_fetcher", "--home", str(home.root), "--digest", digest]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"bundle {digest[:12]}: not here after {TIMEOUT_S:g} s; is the object store slow?") from None
    if done.returncode:
        raise Unavailable(f"bundle {digest[:12]}: {done.stderr.strip().splitlines()[-1] if done.stderr else 'no word'}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tidewheel.apps.bundle_fetcher", description="Bring a bundle here.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--digest", required=True)
    given = parser.parse_args()
    try:
        store = open_object_store()
        if store is None:
            raise NotFound("no object store is named by TIDEWHEEL_OBJECT_STORE")
        fetch_bundle(store, "bundles", given.digest, LocalHome(given.home).bundles / given.digest)
    except (TidewheelError, OSError) as error:
        parser.exit(1, f"{error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
