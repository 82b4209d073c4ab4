"""The stream worker runs the features of a deployed bundle only where a trusted key signed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory.online_store import MemoryOnlineStore
from memory.signing import KEY
from memory.tiny import place_bundle
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.local_cluster import LocalCluster
from tidewheel.adapters.local_home import LocalHome
from tidewheel.apps.stream_worker import StreamWorker
from tidewheel.bundle.signature import sign_bundle
from tidewheel.clock import SECOND_US, FixedClock
from tidewheel.deployment.document import DeploymentDocument, Variant

pytestmark = pytest.mark.integration


def test_a_bundle_that_nobody_signed_gets_its_features_once_somebody_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, clock = LocalHome(tmp_path / "home"), FixedClock(1_000_000_000)
    digest = place_bundle(home.bundles, tmp_path / "scratch", key=None)
    variant = Variant("1", digest, {"approve": 0.0})
    LocalCluster(home).write_document(
        DeploymentDocument("tiny", 1, "customer_id", "s", "1", (variant,), {"1": 1.0}, (), ())
    )
    worker = StreamWorker(home, FileEventLog(home.event_log), MemoryOnlineStore(), clock)
    for _ in range(3):
        worker.step()
        clock.at_us += SECOND_US
    told = capsys.readouterr().out
    assert (told.count("code_refused"), "model.sig" in told, "state_kept" in told) == (1, True, False)
    sign_bundle(home.bundles / digest, digest, KEY)
    worker.step()
    assert "state_kept" in capsys.readouterr().out
