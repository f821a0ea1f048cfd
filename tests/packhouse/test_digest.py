"""Digests and canonical JSON: equal documents have equal names, and other bytes never pass."""

from __future__ import annotations

import hashlib
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.digest import DIGEST, canonical_json, chunks, digest_bytes, digest_file, short, verified
from packhouse.errors import DigestMismatch

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
documents = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=20
)


@given(documents)
def test_canonical_json_reads_back_as_the_same_document(document):
    assert json.loads(canonical_json(document)) == document


@given(st.dictionaries(text, plain, max_size=6), st.randoms())
def test_equal_documents_have_equal_bytes_in_any_order(document, order):
    shuffled = list(document.items())
    order.shuffle(shuffled)
    assert canonical_json(dict(shuffled)) == canonical_json(document)


def test_canonical_json_is_written_one_way_only():
    assert canonical_json({"b": [1, 2.5, None], "a": "é\n"}) == '{"a":"é\\n","b":[1,2.5,null]}\n'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "\ud800"])
def test_what_json_has_not_is_refused(value):
    with pytest.raises(ValueError):
        canonical_json({"x": [value]})


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_other_types_are_refused(value):
    with pytest.raises(TypeError):
        canonical_json({"x": value})


def test_a_digest_is_named_as_in_oci(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    named = f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
    assert digest_bytes(b"abc") == digest_file(tmp_path / "x") == named
    assert DIGEST.fullmatch(named)
    assert short(named) == "ba7816bf8f01"


def taken(data: bytes, *, digest: str, size: int, chunk: int = 3) -> bytes:
    return b"".join(verified(chunks(io.BytesIO(data), chunk), digest=digest, size=size, where="w.pt"))


@given(st.binary(max_size=50), st.integers(1, 60))
def test_the_named_bytes_pass_whole(data, chunk):
    assert taken(data, digest=digest_bytes(data), size=len(data), chunk=chunk) == data


@given(st.binary(min_size=1, max_size=50), st.data())
def test_one_changed_bit_is_found(data, draw):
    position = draw.draw(st.integers(0, len(data) * 8 - 1))
    other = bytearray(data)
    other[position // 8] ^= 1 << position % 8
    with pytest.raises(DigestMismatch, match=r"w\.pt: sha256 differs"):
        taken(bytes(other), digest=digest_bytes(data), size=len(data))


def test_a_short_stream_is_found():
    with pytest.raises(DigestMismatch, match=r"size differs; got 3 bytes, want 4"):
        taken(b"abc", digest=digest_bytes(b"abcd"), size=4)


def test_an_endless_stream_is_cut_off_before_more_than_the_named_size_is_taken():
    given_out = 0

    def endless():
        nonlocal given_out
        for _ in range(1000):
            given_out += 4
            yield b"abcd"

    with pytest.raises(DigestMismatch, match="more bytes than named"):
        list(verified(endless(), digest=digest_bytes(b""), size=10, where="w.pt"))
    assert given_out == 12
