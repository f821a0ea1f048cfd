"""boto3's client, set so that it sends what we mean to any S3 server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packhouse.digest import MiB
from packhouse.errors import NotInstalled
from packhouse.store.s3_address import S3Address
from packhouse.store.s3_errors import s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

GiB = 1024 * MiB
MIN_PART_BYTES = 5 * MiB
MAX_PARTS = 10_000


@dataclass(frozen=True)
class S3Limits:
    """attempts: tries of one call by boto3 itself, the first included.

    single_put_bytes: larger bodies go up in parts (S3 takes no more than 5 GiB at once, and only a body that went up
    at once has one sha256 that the server compares). single_copy_bytes: larger objects are copied in parts, so that
    no request takes longer than the server may be silent. part_bytes: at least 5 MiB; one part is held in memory.
    """

    connect_timeout_s: float = 5
    read_timeout_s: float = 60
    attempts: int = 4
    connections: int = 32
    single_put_bytes: int = 5 * GiB
    single_copy_bytes: int = 1 * GiB
    part_bytes: int = 64 * MiB

    def __post_init__(self) -> None:
        if self.part_bytes < MIN_PART_BYTES:
            raise ValueError(f"part_bytes is {self.part_bytes}, S3 wants at least {MIN_PART_BYTES}")

    def part_size(self, size: int) -> int:
        """Bytes a part, so that an object of `size` bytes has no more parts than S3 allows."""
        return max(self.part_bytes, -(-size // MAX_PARTS))


def connect(address: S3Address, limits: S3Limits) -> S3Client:
    """Raises NotInstalled where boto3 is missing, StoreRefusal where a named profile is."""
    try:
        import boto3.session
        from botocore.config import Config
    except ImportError as error:
        raise NotInstalled(
            "PH-0321 s3:// needs boto3", where=address.url, next="pip install 'packhouse[s3]'"
        ) from error
    config = Config(
        # Without these two, newer clients send trailers that some servers store inside the object or refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # On http, signing the payload costs another pass of sha256; the declared digest already covers the body.
        s3={"addressing_style": address.style, "payload_signing_enabled": False},
        retries={"mode": "standard", "total_max_attempts": limits.attempts},
        connect_timeout=limits.connect_timeout_s,
        read_timeout=limits.read_timeout_s,
        max_pool_connections=limits.connections,
    )
    with s3_errors(address.url, bucket=address.bucket):
        session = boto3.session.Session()
        region = address.region or session.region_name or "us-east-1"
        return session.client("s3", region_name=region, endpoint_url=address.endpoint or None, config=config)
