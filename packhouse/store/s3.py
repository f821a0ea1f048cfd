"""A store in a bucket, on AWS or any server that speaks S3 well enough: the probe tells."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from packhouse.digest import CHUNK, digest_bytes, short, verified
from packhouse.errors import Contention, DigestMismatch, LimitExceeded, NotFound, StoreUnavailable
from packhouse.store.base import Stat, checked_key, checked_prefix, holds_bytes, is_key
from packhouse.store.body import Body, opened
from packhouse.store.s3_address import S3Address
from packhouse.store.s3_client import S3Limits, connect
from packhouse.store.s3_errors import BusyError, ConditionFailedError, UploadGoneError, s3_answers, s3_errors
from packhouse.store.s3_parts import Condition, copy_in_parts, upload_in_parts

if TYPE_CHECKING:
    from botocore.response import StreamingBody

_BUSY_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""After a 409, the longest pause before each new try."""
_ALWAYS: Condition = {}


class S3Store:
    """Bodies that are bytes are compared with their digest here; files are compared by the server (docs/stores.md),
    or by `guard` where the probe found that the server does not."""

    def __init__(self, address: S3Address, limits: S3Limits | None = None) -> None:
        self._address = address
        self._limits = limits or S3Limits()
        self._bucket = address.bucket
        self._s3 = connect(address, self._limits)
        self._bucket_seen = False

    @property
    def url(self) -> str:
        return self._address.url

    def stat(self, key: str) -> Stat | None:
        try:
            with self._errors(key):
                found = self._s3.head_object(Bucket=self._bucket, Key=self._name(key))
        except NotFound:
            self._require_bucket()
            return None
        return Stat(key, found["ContentLength"], found["ETag"], found["LastModified"].timestamp())

    def read(self, key: str, *, digest: str, size: int) -> Iterator[bytes]:
        with self._errors(key):
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._name(key))
        if (found := answer["ContentLength"]) != size:
            answer["Body"].close()
            raise DigestMismatch(
                "PH-0128 size differs", where=self._where(key), got=f"{found:,} bytes", want=f"{size:,}"
            )
        return verified(self._chunks(answer["Body"], key), digest=digest, size=size, where=self._where(key))

    def get(self, key: str, *, limit: int) -> tuple[bytes, str]:
        where = self._where(key)
        with self._errors(key):
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._name(key))
        if (found := answer["ContentLength"]) > limit:
            answer["Body"].close()
            raise LimitExceeded("PH-0305 document is too large", where=where, got=f"{found:,} bytes", want=f"{limit:,}")
        return b"".join(self._chunks(answer["Body"], key)), answer["ETag"]

    def put(self, key: str, body: bytes | Path, *, digest: str) -> None:
        with opened(_checked(body, digest, self._where(key))) as source, self._errors(key):
            try:
                self._write(key, source, digest, _ALWAYS)
            except UploadGoneError:
                if not holds_bytes(self, key, digest=digest, size=source.size):
                    raise

    def put_declared(self, key: str, body: bytes, *, digest: str) -> None:
        with opened(body) as source, self._errors(key):
            self._write(key, source, digest, _ALWAYS)

    def put_if_absent(self, key: str, body: bytes | Path, *, digest: str) -> bool:
        if self.stat(key):  # spares the upload; the condition decides
            return False
        with opened(_checked(body, digest, self._where(key))) as source:
            return self._conditional(key, source, digest, {"IfNoneMatch": "*"})

    def swap(self, key: str, body: bytes, *, expected: str | None) -> bool:
        condition: Condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        try:
            with opened(body) as source:
                return self._conditional(key, source, digest_bytes(body), condition)
        except NotFound:
            self._require_bucket()
            return False  # there was an expected version, now there is nothing

    def copy(self, source: str, target: str) -> None:
        whole = self._require(source)
        name, new_name = self._name(source), self._name(target)
        with self._errors(source):
            if whole.size > self._limits.single_copy_bytes:
                part_bytes = self._limits.part_size(whole.size)
                copy_in_parts(
                    self._s3,
                    self._bucket,
                    name,
                    new_name,
                    size=whole.size,
                    version=whole.version,
                    part_bytes=part_bytes,
                )
            else:
                self._s3.copy_object(
                    Bucket=self._bucket, Key=new_name, CopySource={"Bucket": self._bucket, "Key": name}
                )

    def delete(self, key: str) -> None:
        with self._errors(key):
            self._s3.delete_object(Bucket=self._bucket, Key=self._name(key))

    def list(self, prefix: str = "") -> Iterator[Stat]:
        checked_prefix(prefix)
        return self._listed(self._under(prefix))

    def _listed(self, beginning: str) -> Iterator[Stat]:
        with self._errors(""):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=beginning)
            for page in pages:
                for found in page.get("Contents", []):
                    key = found["Key"].removeprefix(self._under(""))
                    if is_key(key):
                        yield Stat(key, found["Size"], found["ETag"], found["LastModified"].timestamp())

    def _write(self, key: str, source: Body, digest: str, condition: Condition) -> None:
        name = self._name(key)
        with s3_answers(self._where(key), bucket=self._bucket):
            if source.size > self._limits.single_put_bytes:
                part_bytes = self._limits.part_size(source.size)
                upload_in_parts(
                    self._s3, self._bucket, name, source, digest=digest, part_bytes=part_bytes, condition=condition
                )
            else:
                # Both checksum fields, always: one server stores anything where the algorithm is not named.
                self._s3.put_object(
                    Bucket=self._bucket,
                    Key=name,
                    Body=source.file,
                    ContentLength=source.size,
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode(),
                    **condition,
                )

    def _conditional(self, key: str, source: Body, digest: str, condition: Condition) -> bool:
        for longest_wait_s in (*_BUSY_WAITS_S, 0):
            source.file.seek(0)
            try:
                self._write(key, source, digest, condition)
            except ConditionFailedError as failed:
                return failed.retried and holds_bytes(self, key, digest=digest, size=source.size)
            except UploadGoneError as gone:
                if holds_bytes(self, key, digest=digest, size=source.size):
                    return True
                raise StoreUnavailable("PH-0312 the upload was thrown away", where=self._where(key)) from gone
            except BusyError:
                time.sleep(random.uniform(0, longest_wait_s))  # noqa: S311
            else:
                return True
        raise Contention("PH-0311 the store kept saying that the object is being written", where=self._where(key))

    def _require(self, key: str) -> Stat:
        if found := self.stat(key):
            return found
        raise NotFound("PH-0304 no such object", where=self._where(key))

    def _require_bucket(self) -> None:
        """Raises NotFound where the bucket is missing: HEAD says 404 for that and for a missing object alike."""
        if self._bucket_seen:
            return
        try:
            with self._errors(""):
                self._s3.head_bucket(Bucket=self._bucket)
        except NotFound as error:
            next_step = "make the bucket, or correct the store's URL"
            raise NotFound("PH-0310 no such bucket", where=self._bucket, next=next_step) from error
        self._bucket_seen = True

    def _chunks(self, body: StreamingBody, key: str) -> Iterator[bytes]:
        try:
            chunks = body.iter_chunks(CHUNK)
            while True:
                with self._errors(key):
                    chunk = next(chunks, b"")
                if not chunk:
                    return
                yield chunk
        finally:
            body.close()

    def _errors(self, key: str) -> AbstractContextManager[None]:
        return s3_errors(self._where(key), bucket=self._bucket)

    def _under(self, key: str) -> str:
        return f"{self._address.prefix}/{key}" if self._address.prefix else key

    def _name(self, key: str) -> str:
        return self._under(checked_key(key))

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._under(key)}"


def _checked(body: bytes | Path, digest: str, where: str) -> bytes | Path:
    if isinstance(body, bytes) and (got := digest_bytes(body)) != digest:
        raise DigestMismatch("PH-0129 sha256 differs", where=where, got=short(got), want=short(digest))
    return body
