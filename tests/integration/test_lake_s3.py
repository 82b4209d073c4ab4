"""The prediction log in a bucket of a real S3 server, which dies and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from servers.model_server import Rig, bundles, rig, wait_for
from servers.s3 import BUCKET, CREDENTIALS, SECRET_KEY, S3Server, s3_server
from tidewheel.adapters.lake_parts import part_writer
from tidewheel.errors import InputError

__all__ = ["bundles", "rig"]  # fixtures
pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def logged(s3: S3Server) -> list[str]:
    paths = s3.files("team/predictions/tiny")
    return [one for path in paths for one in pq.read_table(path, filesystem=s3.client())["request_id"].to_pylist()]


def test_predictions_reach_the_bucket_once_each_though_it_was_away(rig: Rig, s3: S3Server) -> None:
    rig.deploy({"1": 1.0})
    server = rig.start(environment={**CREDENTIALS, "TIDEWHEEL_LAKE_URL": s3.url})
    asked = {rig.ask(number)["id"] for number in range(20)}
    wait_for("the log", lambda: set(logged(s3)) == asked)
    s3.stop()
    asked |= {rig.ask(number)["id"] for number in range(20)}
    wait_for("a failure", lambda: "ship_failed" in (rig.home.root / "server-0.log").read_text())
    s3.start()
    wait_for("the log", lambda: set(logged(s3)) == asked)
    asked |= {rig.ask(number)["id"] for number in range(20)}
    server.terminate()
    assert server.wait(timeout=60) == 0
    assert sorted(logged(s3)) == sorted(asked), "what was left is shipped at the end, nothing twice"
    assert SECRET_KEY not in (rig.home.root / "server-0.log").read_text()


def test_a_part_that_is_written_again_is_there_once(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    write = part_writer(s3.url, "predictions", "again")
    for _ in range(2):
        write("part-1.parquet", pa.table({"a": [1, 2]}))
    assert s3.files("team/predictions/again") == [f"{BUCKET}/team/predictions/again/part-1.parquet"]
    with s3.client().open_input_file(f"{BUCKET}/team/predictions/again/part-1.parquet") as file:
        assert pq.read_table(file)["a"].to_pylist() == [1, 2]


@pytest.mark.parametrize(
    "url", ["gs://bucket", "s3://", "s3://user:hunter2@bucket", "s3://bucket?secret_key=hunter2", "http://bucket"]
)
def test_a_lake_that_cannot_be_used_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(InputError, match="allowed: a folder, or s3://BUCKET") as error:
        part_writer(url)
    assert "hunter2" not in str(error.value)


def test_a_folder_is_a_lake_too(tmp_path: Path) -> None:
    part_writer(str(tmp_path / "lake"), "predictions", "tiny")("part-1.parquet", pa.table({"a": [1]}))
    assert pq.read_table(tmp_path / "lake" / "predictions" / "tiny" / "part-1.parquet")["a"].to_pylist() == [1]
    assert [path.name for path in (tmp_path / "lake").rglob("*.tmp")] == []
