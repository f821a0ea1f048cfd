"""What S3 servers answer, in packhouse's words. Only codes and states are repeated, never a server's own text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from packhouse.errors import (
    DigestMismatch,
    NotFound,
    PackhouseError,
    Refused,
    StoreFull,
    StoreRefusal,
    StoreUnavailable,
)
from packhouse.store.s3_address import CREDENTIALS_COME_FROM

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

_ABSENT = {"NoSuchKey", "NotFound", "404", "NoSuchVersion"}
_DENIED = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AccountProblem",
    "AllAccessDisabled",
    "RequestTimeTooSkewed",
}
_FULL = {"QuotaExceeded", "InsufficientCapacity", "InsufficientStorage", "XMinioStorageFull"}
_OTHER_BYTES = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
_BROKEN_OFF = {"RequestTimeout", "IncompleteBody", "OperationAborted", "SlowDown", "TooManyRequests"}
_CREDENTIAL_ERRORS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "NoAuthTokenError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "SSOTokenLoadError",
}
_CALLER_ERRORS = {"ParamValidationError", "InvalidS3AddressingStyleError", "InvalidRegionError"}


class ConditionFailedError(Exception):
    """412, or 404 to If-Match: the object is not what the condition says.

    retried: an earlier try of this call had no answer; it may have been carried out.
    """

    def __init__(self, *, retried: bool) -> None:
        super().__init__()
        self.retried = retried


class BusyError(Exception):
    """409: another write of the same object was going on. Nothing was written: ask again."""


class UploadGoneError(Exception):
    """The multipart upload is not there any more: it was aborted, or it was completed by a try without an answer."""


@contextmanager
def s3_errors(where: str, *, bucket: str) -> Iterator[None]:
    """Nothing of botocore's leaves: only packhouse's errors."""
    try:
        with s3_answers(where, bucket=bucket):
            yield
    except (ConditionFailedError, BusyError, UploadGoneError) as error:
        raise StoreUnavailable("PH-0332 another write came in between", where=where) from error


@contextmanager
def s3_answers(where: str, *, bucket: str) -> Iterator[None]:
    """As s3_errors, but lets the three answers above through, for those who know what to do with them."""
    import urllib3.exceptions
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _answered(error, where, bucket) from error
    except BotoCoreError as error:
        raise _unanswered(error, where) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise StoreUnavailable(f"PH-0331 the connection broke ({type(error).__name__})", where=where) from error


def _answered(error: ClientError, where: str, bucket: str) -> Exception:
    code = error.response.get("Error", {}).get("Code", "")
    meta = error.response.get("ResponseMetadata", {})
    status = meta.get("HTTPStatusCode", 0)
    if status == 412 or code == "PreconditionFailed":
        return ConditionFailedError(retried=meta.get("RetryAttempts", 0) > 0)
    if status == 409:
        return BusyError()
    if code == "NoSuchUpload":
        return UploadGoneError()
    return _named(code, status, where, bucket)


def _named(code: str, status: int, where: str, bucket: str) -> PackhouseError:
    got = f"{code} ({status})"
    if code == "NoSuchBucket":
        return NotFound("PH-0310 no such bucket", where=bucket, next="make the bucket, or correct the store's URL")
    if code in _ABSENT:
        return NotFound("PH-0304 no such object", where=where)
    if code in _DENIED or (status in {401, 403} and code not in _FULL):
        hint = f"credentials come from {CREDENTIALS_COME_FROM}"
        if code == "RequestTimeTooSkewed":
            hint = "set this machine's clock"
        return StoreRefusal("PH-0326 the store refuses us", where=where, got=got, next=hint)
    if code in _FULL or status == 507:
        return StoreFull("PH-0327 the store is full", where=where, got=got)
    if code in _OTHER_BYTES:
        return DigestMismatch("PH-0328 the store received other bytes than declared", where=where, got=got)
    if code == "NotImplemented" or status == 501:
        return Refused("PH-0329 the store cannot do this", where=where, got=got, next="see docs/stores.md")
    if status >= 500 or code in _BROKEN_OFF or status == 429:
        return StoreUnavailable("PH-0330 the store is not able to answer now", where=where, got=got)
    return StoreRefusal("PH-0325 the store does not take this request", where=where, got=got)


def _unanswered(error: BotoCoreError, where: str) -> PackhouseError:
    name = type(error).__name__
    if name in _CREDENTIAL_ERRORS:
        next_step = f"credentials come from {CREDENTIALS_COME_FROM}"
        return StoreRefusal("PH-0323 no credentials for the store", where=where, got=name, next=next_step)
    if name in _CALLER_ERRORS:
        return Refused("PH-0324 not a request that S3 knows", where=where, got=name)
    address = urlsplit(str(error.kwargs.get("endpoint_url", "")))
    at = f" at {address.hostname}:{address.port or address.scheme}" if address.hostname else ""
    return StoreUnavailable("PH-0322 the store does not answer", where=where, got=f"{name}{at}")
