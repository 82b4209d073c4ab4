"""The object store: what lasts of a platform in a cluster. One bucket of any S3 server, by boto3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewheel.adapters.s3_url import S3Url, parse_s3_url
from tidewheel.errors import ContractViolation, InputError, NotFound, Unavailable
from tidewheel.whole_file import write_whole

VARIABLE = "TIDEWHEEL_OBJECT_STORE"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 3.0, 20.0, 3
_PAGE = 1000
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_DENIED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


@dataclass(frozen=True)
class StoredObject:
    """``key`` is below the store's prefix."""

    key: str
    size_bytes: int


def object_store_url() -> str | None:
    """What the environment names, None on one machine."""
    return os.environ.get(VARIABLE) or None


def below(url: str | None, folder: str) -> str | None:
    """The URL of a folder of the store at ``url``.

    >>> below("s3://bucket/team?endpoint=http://s3:8333", "lake")
    's3://bucket/team/lake?endpoint=http://s3:8333'
    """
    if url is None:
        return None
    place, mark, options = url.partition("?")
    return f"{place.rstrip('/')}/{folder}{mark}{options}"


class ObjectStore:
    """Keys are paths below the URL's prefix. Every method raises Unavailable where the store does not answer, and
    InputError where it lets nobody in with these credentials."""

    def __init__(self, url: str) -> None:
        import boto3.session
        from botocore.config import Config

        self._at: S3Url = parse_s3_url(url)
        self.name = "/".join(("s3:/", self._at.bucket, *([self._at.prefix] if self._at.prefix else ())))
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            s3={"addressing_style": "path" if self._at.endpoint else "auto"},
            # Servers other than AWS need not know the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # A session of its own: the shared one keeps the credentials that it saw first.
        self._client: Any = boto3.session.Session().client(
            "s3", endpoint_url=self._at.endpoint, region_name=self._at.region, config=config
        )

    def close(self) -> None:
        self._client.close()

    def make_bucket(self) -> None:
        """Where it is not there yet."""
        try:
            with self._translated(""):
                self._client.head_bucket(Bucket=self._at.bucket)
        except NotFound:
            with self._translated(""):
                self._client.create_bucket(Bucket=self._at.bucket)

    def put(self, key: str, data: bytes) -> None:
        """The object appears whole, or not at all; one that is there is replaced."""
        with self._translated(key):
            self._client.put_object(Bucket=self._at.bucket, Key=self._at.key(key), Body=data)

    def put_file(self, key: str, path: Path) -> None:
        """The same with a file's bytes, in several parts where it is large."""
        with self._translated(key):
            self._client.upload_file(str(path), self._at.bucket, self._at.key(key))

    def get(self, key: str, max_bytes: int) -> bytes:
        """Raises NotFound, and ContractViolation where the object is larger."""
        with self._translated(key):
            found = self._client.get_object(Bucket=self._at.bucket, Key=self._at.key(key))
            with found["Body"] as body:
                data: bytes = body.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ContractViolation(f"{self.name}/{key}: is larger than {max_bytes} bytes")
        return data

    def get_file(self, key: str, path: Path, max_bytes: int) -> None:
        """The object as a file that appears whole, or not at all. Raises as ``get`` does."""
        write_whole(path, self.get(key, max_bytes))

    def has(self, key: str) -> bool:
        try:
            with self._translated(key):
                self._client.head_object(Bucket=self._at.bucket, Key=self._at.key(key))
        except NotFound:
            return False
        return True

    def list(self, folder: str, after: str = "") -> Iterator[StoredObject]:
        """Objects below ``folder`` in order of their keys; only those behind ``after``, a key of that folder."""
        prefix = self._at.key(folder, "")
        cut = len(self._at.key("")) if self._at.prefix else 0
        token: dict[str, str] = {"StartAfter": self._at.key(after)} if after else {}
        while True:
            with self._translated(folder):
                page = self._client.list_objects_v2(
                    Bucket=self._at.bucket, Prefix=prefix, MaxKeys=_PAGE, **token
                )  # fmt: skip
            for one in page.get("Contents", ()):
                yield StoredObject(one["Key"][cut:], int(one["Size"]))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Deleting an object that is not there does nothing."""
        with self._translated(key):
            self._client.delete_object(Bucket=self._at.bucket, Key=self._at.key(key))

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except NoCredentialsError as error:
            raise InputError(f"{self.name}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _ABSENT:
                raise NotFound(f"{self.name}/{key}: no such object") from error
            if code in _DENIED:
                raise InputError(f"{self.name}: access is denied ({code}); check the credentials' rights") from error
            if code == "NoSuchBucket":
                raise InputError(f"{self.name}: no such bucket; make it first") from error
            raise Unavailable(f"{self.name}: the object store says {code}") from error
        except (BotoCoreError, Boto3Error, OSError) as error:
            raise Unavailable(f"{self.name}: the object store does not answer ({type(error).__name__})") from error


def open_object_store() -> ObjectStore | None:
    """The store that the environment names, None on one machine. Raises InputError for a URL that cannot be used."""
    url = object_store_url()
    if url is None:
        return None
    try:
        return ObjectStore(url)
    except ModuleNotFoundError as error:
        raise InputError(f"{VARIABLE}: {error.name} is not installed; install tidewheel[objects]") from error
