"""Objects too large for one request: uploads and copies in parts, aborted whole where anything fails."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NotRequired, TypedDict

from packhouse.digest import verified
from packhouse.store.body import Body

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef


class Condition(TypedDict):
    """The headers of a conditional write, at most one of them."""

    IfMatch: NotRequired[str]
    IfNoneMatch: NotRequired[str]


def upload_in_parts(
    s3: S3Client, bucket: str, name: str, source: Body, *, digest: str, part_bytes: int, condition: Condition
) -> None:
    """The server compares each part's sha256; the whole is compared here, before it gets its name.

    Raises DigestMismatch, and botocore's errors.
    """
    stream = verified(source.chunks(), digest=digest, size=source.size, where=name)
    with _upload(s3, bucket, name) as (upload_id, parts):
        for number, part in enumerate(_regrouped(stream, part_bytes), start=1):
            checksum = base64.b64encode(hashlib.sha256(part).digest()).decode()
            sent = s3.upload_part(
                Bucket=bucket,
                Key=name,
                UploadId=upload_id,
                PartNumber=number,
                Body=part,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
            )
            parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum})
        s3.complete_multipart_upload(
            Bucket=bucket, Key=name, UploadId=upload_id, MultipartUpload={"Parts": parts}, **condition
        )


def copy_in_parts(
    s3: S3Client, bucket: str, source: str, target: str, *, size: int, version: str, part_bytes: int
) -> None:
    """All parts come from the one `version` of the source. Raises botocore's errors."""
    with _upload(s3, bucket, target) as (upload_id, parts):
        for number, first in enumerate(range(0, size, part_bytes), start=1):
            copied = s3.upload_part_copy(
                Bucket=bucket,
                Key=target,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": bucket, "Key": source},
                CopySourceRange=f"bytes={first}-{min(first + part_bytes, size) - 1}",
                CopySourceIfMatch=version,
            )
            result = copied["CopyPartResult"]
            part: CompletedPartTypeDef = {"PartNumber": number, "ETag": result["ETag"]}
            if "ChecksumSHA256" in result:
                part["ChecksumSHA256"] = result["ChecksumSHA256"]
            parts.append(part)
        s3.complete_multipart_upload(Bucket=bucket, Key=target, UploadId=upload_id, MultipartUpload={"Parts": parts})


@contextmanager
def _upload(s3: S3Client, bucket: str, name: str) -> Iterator[tuple[str, list[CompletedPartTypeDef]]]:
    """An upload, and the list of its parts to be filled. Aborted on any failure, since unfinished parts cost space."""
    started = s3.create_multipart_upload(Bucket=bucket, Key=name, ChecksumAlgorithm="SHA256")
    upload_id = started["UploadId"]
    try:
        yield upload_id, []
    except BaseException as failure:
        _attempt(lambda: s3.abort_multipart_upload(Bucket=bucket, Key=name, UploadId=upload_id), failure)
        raise


def _attempt(abort: Callable[[], object], failure: BaseException) -> None:
    """Aborts; what goes wrong with that is noted on the failure that is on its way, and does not replace it."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        abort()
    except (BotoCoreError, ClientError) as error:
        failure.add_note(f"the unfinished upload could not be aborted: {type(error).__name__}")


def _regrouped(stream: Iterator[bytes], part_bytes: int) -> Iterator[bytes]:
    """The same bytes in parts of `part_bytes`, the last one smaller."""
    part = bytearray()
    for chunk in stream:
        part += chunk
        while len(part) >= part_bytes:
            yield bytes(part[:part_bytes])
            del part[:part_bytes]
    if part:
        yield bytes(part)
