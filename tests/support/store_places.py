"""The stores that the one suite runs on, and what each of them is expected to keep."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

from packhouse.store import Adapter, Capabilities, FileStore
from packhouse.store.s3 import S3Store
from packhouse.store.s3_address import S3Address
from packhouse.store.s3_client import S3Limits
from tests.servers.place import Endpoint

BUCKET = f"packhouse-tests-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
"""Of this process: several of them may share a server."""
ALL = Capabilities(put_if_absent=True, put_if_absent_atomic=True, swap=True, sha256_checked=True)
EXPECTED = {
    "files": ALL,
    "ceph": ALL,
    "swift": replace(ALL, put_if_absent_atomic=False, swap=False),
    "moto": replace(ALL, sha256_checked=False),
}
QUICK = S3Limits(connect_timeout_s=2, read_timeout_s=20, attempts=3)


class Place(Protocol):
    name: str

    def fresh(self) -> Adapter:
        """A new, empty store."""
        ...

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to open such a store by its URL."""
        ...


@dataclass(frozen=True)
class FilesPlace:
    under: Path
    name: str = "files"

    def fresh(self) -> FileStore:
        return FileStore(self.under / secrets.token_hex(6))

    def environment(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class S3Place:
    name: str
    endpoint: Endpoint

    def fresh(self, limits: S3Limits = QUICK) -> S3Store:
        return self.open(f"tests/{secrets.token_hex(6)}", limits=limits)

    def open(self, prefix: str, *, bucket: str = BUCKET, through: str = "", limits: S3Limits = QUICK) -> S3Store:
        """through: another endpoint, in front of the server."""
        with patch.dict(os.environ, self.environment()):
            return S3Store(S3Address(bucket, prefix, endpoint=through or self.endpoint.url), limits)

    def environment(self) -> dict[str, str]:
        return credentials(self.endpoint.access_key, self.endpoint.secret_key)

    def make_bucket(self) -> None:
        self.client().create_bucket(Bucket=BUCKET)

    def client(self) -> Any:
        """boto3's own client, for what a store would never do."""
        import boto3.session

        session = boto3.session.Session(self.endpoint.access_key, self.endpoint.secret_key, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.endpoint.url)


def credentials(access_key: str, secret_key: str) -> dict[str, str]:
    """The environment of a user with these credentials and no others."""
    return {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def signed_in(access_key: str, secret_key: str) -> Iterator[None]:
    with patch.dict(os.environ, credentials(access_key, secret_key)):
        yield
