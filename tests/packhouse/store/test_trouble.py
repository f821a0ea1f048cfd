"""A world that is bad: wrong credentials, silence, broken streams, full disks, killed writers."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace

import pytest

from packhouse.digest import digest_bytes
from packhouse.errors import NotFound, StoreFull, StoreUnavailable, Unavailable
from packhouse.store import StoreRefusal
from packhouse.store.s3 import S3Store
from packhouse.store.s3_address import S3Address
from packhouse.store.s3_errors import s3_errors
from tests.support.rude_store import breaking_off, refusing, silent
from tests.support.store_places import BUCKET, QUICK, S3Place, signed_in

ONE_TRY = replace(QUICK, attempts=1, connect_timeout_s=1, read_timeout_s=1)


def opened(endpoint, limits=ONE_TRY, bucket=BUCKET):
    with signed_in("someone", "a-very-secret-word"):
        return S3Store(S3Address(bucket, "p", endpoint=endpoint), limits)


def every_call(store):
    body, digest = b"body", digest_bytes(b"body")
    return [
        lambda: store.stat("k"),
        lambda: store.read("k", digest=digest, size=4),
        lambda: store.get("k", limit=10),
        lambda: store.put("k", body, digest=digest),
        lambda: store.put_if_absent("k", body, digest=digest),
        lambda: store.swap("k", body, expected=None),
        lambda: store.copy("k", "l"),
        lambda: store.delete("k"),
        lambda: list(store.list()),
    ]


def test_wrong_credentials_are_named_with_where_they_come_from(s3_place: S3Place):
    if s3_place.name == "moto":
        pytest.skip("moto accepts any secret")
    user = s3_place.endpoint.access_key
    for access_key, secret_key in ((user, "a-very-secret-word"), ("nobody", "a-very-secret-word")):
        with signed_in(access_key, secret_key):
            store = S3Store(S3Address(BUCKET, "p", endpoint=s3_place.endpoint.url), QUICK)
        for call in every_call(store):
            with pytest.raises(StoreRefusal, match="AWS_ACCESS_KEY_ID") as caught:
                call()
            assert "a-very-secret-word" not in str(caught.value)


def test_no_credentials_at_all_are_named():
    with signed_in("", ""):
        store = S3Store(S3Address(BUCKET, endpoint=refusing()), ONE_TRY)
        with pytest.raises(StoreRefusal, match="no credentials"):
            store.stat("k")


def test_a_bucket_that_is_not_there_is_named(s3_place: S3Place):
    store = s3_place.open("p", bucket="no-such-bucket")
    for call in [*every_call(store)[:7], every_call(store)[8]]:
        with pytest.raises(NotFound, match=r"no-such-bucket: no such bucket.*make the bucket"):
            call()


def test_an_endpoint_where_nobody_listens_is_unavailable():
    for call in every_call(opened(refusing())):
        with pytest.raises(StoreUnavailable, match="does not answer"):
            call()


@pytest.mark.quiet
def test_an_endpoint_that_never_answers_is_unavailable_in_time():
    with silent() as endpoint:
        store = opened(endpoint, replace(ONE_TRY, read_timeout_s=0.3))
        for call in every_call(store):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="does not answer"):
                call()
            assert time.monotonic() - began < 3


def test_a_stream_that_breaks_off_is_unavailable_and_not_taken_for_the_end():
    head = b'HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\nETag: "x"\r\n\r\n'
    with breaking_off(head, b"x" * 2_000_000) as endpoint:
        stream = opened(endpoint).read("k", digest=digest_bytes(b"x" * 3_000_000), size=3_000_000)
        taken: list[bytes] = []
        with pytest.raises(StoreUnavailable):
            taken.extend(stream)
        assert 0 < sum(map(len, taken)) <= 2_000_000
        with pytest.raises(StoreUnavailable):
            opened(endpoint).get("k", limit=3_000_000)


@pytest.mark.parametrize(
    "status, code, kind",
    [
        (503, "SlowDown", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (429, "TooManyRequests", StoreUnavailable),
        (403, "AccessDenied", StoreRefusal),
        (403, "RequestTimeTooSkewed", StoreRefusal),
        (403, "QuotaExceeded", StoreFull),
        (507, "InsufficientCapacity", StoreFull),
        (400, "InvalidRequest", StoreRefusal),
        (409, "OperationAborted", StoreUnavailable),
    ],
)
def test_an_error_answer_has_its_name(status, code, kind):
    body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
    head = f"HTTP/1.1 {status} Error\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with breaking_off(head, body) as endpoint, pytest.raises(Unavailable) as caught:
        opened(endpoint).get("k", limit=10)
    assert type(caught.value) is kind


def test_a_servers_own_words_are_not_repeated():
    body = b"<Error><Code>SlowDown</Code><Message>GET /?X-Amz-Signature=abcdef</Message></Error>"
    head = f"HTTP/1.1 503 Error\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with breaking_off(head, body) as endpoint, pytest.raises(StoreUnavailable) as caught:
        opened(endpoint).get("k", limit=10)
    assert "Signature" not in str(caught.value)


def test_a_connection_error_below_boto3_has_its_name():
    with pytest.raises(StoreUnavailable, match="s3://b/k"), s3_errors("s3://b/k", bucket="b"):
        raise ConnectionResetError


def test_a_killed_writer_leaves_nothing_that_anybody_sees(place, adapter, killed_writer):
    killed_writer(adapter.url, place.environment())
    assert list(adapter.list()) == []
    assert adapter.stat("large") is None
    body = secrets.token_bytes(10)
    assert adapter.put_if_absent("large", body, digest=digest_bytes(body))
