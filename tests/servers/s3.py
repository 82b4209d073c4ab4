"""A real S3 server (SeaweedFS) on loopback. TIDEWHEEL_WEED names its binary, else PATH and the cache are searched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow.fs import FileSelector, S3FileSystem

from servers.mlflow import free_port
from waiting import until

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-8731"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
BUCKET = "lake"


@dataclass
class S3Server:
    """A server with one bucket; ``stop`` and ``start`` keep its port and its data."""

    binary: str
    folder: Path
    ports: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/team?endpoint=http://127.0.0.1:{self.ports[0]}"

    def client(self) -> S3FileSystem:
        return S3FileSystem(
            access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_override=f"127.0.0.1:{self.ports[0]}", scheme="http",
            region="us-east-1", allow_bucket_creation=True, connect_timeout=2, request_timeout=5,
        )  # fmt: skip

    def start(self) -> None:
        identity = {"name": "tests", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                    "actions": ["Admin", "Read", "Write", "List"]}  # fmt: skip
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        s3, filer, master, volume, s3_grpc, filer_grpc, master_grpc, volume_grpc = self.ports
        command = [
            self.binary, "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-s3", f"-s3.port={s3}",
            f"-s3.config={self.folder / 's3.json'}", f"-filer.port={filer}", f"-master.port={master}",
            f"-volume.port={volume}", f"-s3.port.grpc={s3_grpc}", f"-filer.port.grpc={filer_grpc}",
            f"-master.port.grpc={master_grpc}", f"-volume.port.grpc={volume_grpc}",
            "-master.volumeSizeLimitMB=64", "-volume.max=8",
        ]  # fmt: skip
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        until(self._answers, limit_s=60)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "weed.log").read_text()[-2000:]
        try:
            self.client().create_dir(BUCKET)
            with self.client().open_output_stream(f"{BUCKET}/ready") as stream:
                stream.write(b"yes")
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=20)

    def files(self, folder: str) -> list[str]:
        """Paths of all objects below a folder of the bucket."""
        found = self.client().get_file_info(FileSelector(f"{BUCKET}/{folder}", recursive=True, allow_not_found=True))
        return sorted(one.path for one in found if one.is_file)


def weed() -> str:
    kept = Path.home() / ".cache" / "tidewheel" / "weed"
    found = os.environ.get("TIDEWHEEL_WEED") or shutil.which("weed") or (str(kept) if kept.is_file() else None)
    if found is None:
        pytest.skip("no S3 server: SeaweedFS's weed is neither named by TIDEWHEEL_WEED nor on PATH")
    return found


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    folder.mkdir(parents=True, exist_ok=True)
    server = S3Server(weed(), folder, tuple(free_port() for _ in range(8)))
    try:
        server.start()
        yield server
    finally:
        server.stop()
