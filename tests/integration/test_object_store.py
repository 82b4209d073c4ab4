"""What lasts in a cluster, in a bucket of a real S3 server: objects, bundles by digest, the lake's parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory.signing import KEY, trust
from servers.s3 import ACCESS_KEY, CREDENTIALS, SECRET_KEY, S3Server, s3_server
from tidewheel.adapters.bundle_shelf import fetch_bundle, put_bundle
from tidewheel.adapters.lake_mirror import LakeMirror
from tidewheel.adapters.object_store import ObjectStore
from tidewheel.adapters.s3_url import parse_s3_url
from tidewheel.bundle.manifest import MANIFEST, SIGNATURE, write_manifest
from tidewheel.bundle.signature import sign_bundle, verify_trusted
from tidewheel.errors import ContractViolation, InputError, NotFound, Unavailable

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store(s3: S3Server, request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    os.environ.update(CREDENTIALS)
    place, _, options = s3.url.partition("?")
    made = ObjectStore(f"{place}/{request.node.name.split('[')[0][:60]}?{options}")
    yield made
    made.close()


def made_bundle(folder: Path, text: str = "a = 1\n") -> str:
    folder.mkdir(parents=True)
    (folder / "features.py").write_text(text)
    (folder / "project.yaml").write_text("name: tiny\n")
    return write_manifest(folder)


# -- objects ----------------------------------------------------------------------------------------------------------


def test_an_object_is_replaced_whole_listed_in_order_and_gone_when_deleted(store: ObjectStore, tmp_path: Path) -> None:
    for key in ("lake/b", "lake/a", "lake/deep/c", "other/d"):
        store.put(key, key.encode())
    store.put("lake/a", b"newer")
    assert store.get("lake/a", 10) == b"newer"
    assert [one.key for one in store.list("lake")] == ["lake/a", "lake/b", "lake/deep/c"]
    assert [one.key for one in store.list("lake", "lake/a")] == ["lake/b", "lake/deep/c"]
    assert [one.size_bytes for one in store.list("lake")] == [5, 6, 11]
    store.delete("lake/a")
    store.delete("lake/a")
    assert not store.has("lake/a")
    with pytest.raises(NotFound, match="no such object"):
        store.get("lake/a", 10)


def test_an_object_that_is_larger_than_it_may_be_is_refused(store: ObjectStore) -> None:
    store.put("large", b"x" * 11)
    with pytest.raises(ContractViolation, match="larger than 10"):
        store.get("large", 10)


def test_a_bucket_is_made_once_and_again_without_harm(s3: S3Server) -> None:
    os.environ.update(CREDENTIALS)
    store = ObjectStore(s3.url.replace("s3://lake", "s3://fresh"))
    store.make_bucket()
    store.make_bucket()
    store.put("a", b"1")
    assert store.has("a")


def test_wrong_credentials_are_said_and_not_shown(s3: S3Server) -> None:
    os.environ.update({"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": "wrong-secret-1234"})
    with pytest.raises(InputError, match="access is denied") as refused:
        ObjectStore(s3.url).get("a", 10)
    assert "wrong-secret" not in str(refused.value) and SECRET_KEY not in str(refused.value)


def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    os.environ.update(CREDENTIALS)
    with pytest.raises(Unavailable, match="does not answer"):
        ObjectStore("s3://bucket?endpoint=http://127.0.0.1:9").get("a", 10)


@pytest.mark.parametrize(
    "url", ["bucket", "s3://", "https://bucket", "s3://user:secret@bucket", "s3://bucket?sse=1",
            "s3://bucket?endpoint=ftp://x"],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_s3_url(url)
    assert "secret" not in str(refused.value)


# -- bundles ----------------------------------------------------------------------------------------------------------


def test_a_bundle_comes_back_as_it_was_with_its_signature(store: ObjectStore, tmp_path: Path) -> None:
    digest = made_bundle(tmp_path / "made")
    sign_bundle(tmp_path / "made", digest, KEY)
    assert put_bundle(store, "projects", tmp_path / "made", digest)
    assert not put_bundle(store, "projects", tmp_path / "made", digest), "a second time nothing is new"
    fetch_bundle(store, "projects", digest, tmp_path / "here" / digest)
    verify_trusted(tmp_path / "here" / digest, digest, trust())


def test_a_bundle_that_was_half_sent_is_not_there_and_is_sent_again(store: ObjectStore, tmp_path: Path) -> None:
    digest = made_bundle(tmp_path / "made")
    put_bundle(store, "bundles", tmp_path / "made", digest)
    store.delete(f"bundles/{digest}/{MANIFEST}")  # it goes last
    with pytest.raises(NotFound):
        fetch_bundle(store, "bundles", digest, tmp_path / digest)
    assert put_bundle(store, "bundles", tmp_path / "made", digest)
    fetch_bundle(store, "bundles", digest, tmp_path / digest)


def test_changed_bytes_never_arrive(store: ObjectStore, tmp_path: Path) -> None:
    digest = made_bundle(tmp_path / "made")
    put_bundle(store, "bundles", tmp_path / "made", digest)
    store.put(f"bundles/{digest}/features.py", b"a = 2\n")
    with pytest.raises(ContractViolation):
        fetch_bundle(store, "bundles", digest, tmp_path / digest)
    assert not (tmp_path / digest).exists()


def test_a_newer_signature_is_taken_over_by_who_has_the_bundle_already(store: ObjectStore, tmp_path: Path) -> None:
    digest = made_bundle(tmp_path / "made")
    put_bundle(store, "bundles", tmp_path / "made", digest)
    fetch_bundle(store, "bundles", digest, tmp_path / digest)
    assert not (tmp_path / digest / SIGNATURE).exists()
    sign_bundle(tmp_path / "made", digest, KEY)
    put_bundle(store, "bundles", tmp_path / "made", digest)
    fetch_bundle(store, "bundles", digest, tmp_path / digest)
    verify_trusted(tmp_path / digest, digest, trust())


# -- the lake ---------------------------------------------------------------------------------------------------------


def test_parts_are_sent_once_and_fetched_once(store: ObjectStore, tmp_path: Path) -> None:
    writer, reader = LakeMirror(store, tmp_path / "writer"), LakeMirror(store, tmp_path / "reader")
    folder = tmp_path / "writer" / "payments"
    folder.mkdir(parents=True)
    for n in range(3):
        (folder / f"part-{n}.parquet").write_bytes(b"x" * (n + 1))
    (folder / ".part-3.parquet.tmp").write_bytes(b"half")
    assert (writer.send("payments"), writer.send("payments")) == (3, 0)
    assert [path.name for path in reader.fetch("payments")] == ["part-0.parquet", "part-1.parquet", "part-2.parquet"]
    assert reader.fetch("payments") == []
    assert (tmp_path / "reader" / "payments" / "part-2.parquet").read_bytes() == b"xxx"
    assert reader.send("payments") == 0, "what was fetched is not sent back"


def test_only_parts_behind_a_name_are_fetched_where_one_is_given(store: ObjectStore, tmp_path: Path) -> None:
    for n in range(4):
        store.put(f"lake/predictions/tiny/part-{n}.parquet", b"x")
    mirror = LakeMirror(store, tmp_path)
    assert [path.name for path in mirror.fetch("predictions/tiny", "part-1.parquet")] == [
        "part-2.parquet",
        "part-3.parquet",
    ]


def test_what_nobody_of_ours_wrote_is_left_alone(store: ObjectStore, tmp_path: Path) -> None:
    store.put("lake/payments/.hidden", b"x")
    assert LakeMirror(store, tmp_path / "lake").fetch("payments") == []
