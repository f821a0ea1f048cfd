"""What names a store, and what does not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.errors import Refused
from packhouse.store import FileStore, open_store
from packhouse.store.s3_address import S3Address, parse

WORD = st.from_regex(r"[a-z][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True)


def test_a_path_and_a_file_url_name_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = f"file://{tmp_path}/my%20store"
    for given_url in (url, f"{tmp_path}/my store", "my store", "./my store/"):
        store = open_store(given_url)
        assert isinstance(store, FileStore)
        assert store.url == url


def test_an_s3_url_is_opened_with_its_options():
    url = "s3://bucket/a/b?endpoint=http://127.0.0.1:9000&addressing=virtual&region=eu-central-1"
    assert open_store(url).url == url


@given(WORD, st.sampled_from(["", "a", "a/b.c"]), st.sampled_from(["", "http://h:1", "https://[::1]:9/x"]), WORD)
def test_an_address_is_read_back_from_its_url(bucket, prefix, endpoint, region):
    address = S3Address(bucket, prefix, endpoint, "auto", region)
    assert parse(address.url) == address


def test_ones_own_endpoint_is_spoken_to_by_path_unless_told_otherwise():
    assert parse("s3://bucket").style == "auto"
    assert parse("s3://bucket?endpoint=http://minio:9000").style == "path"
    assert parse("s3://bucket?endpoint=http://minio:9000&addressing=auto").style == "auto"


@pytest.mark.parametrize("url", ["gs://bucket/x", "http://host/x", "S4://x", "://x", "az://user:password@x"])
def test_another_kind_of_store_is_refused_with_the_kinds_there_are(url):
    with pytest.raises(Refused, match=r"file:///path, a path, or s3://bucket/prefix") as caught:
        open_store(url)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://user:hunter2@bucket/prefix",
        "s3://bucket?endpoint=http://user:hunter2@host:1",
        "s3://bucket?secret=hunter2",
        "s3://bucket?endpoint=http://host/?key=hunter2",
        "s3://bucket?endpoint=hunter2",
        "s3://bucket?region=hunter2/x",
        "s3://bucket?addressing=hunter2",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(Refused) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file://host/path",
        "file:///path?x=1",
        "s3://",
        "s3:///prefix",
        "s3://b",
        "s3://bucket/a//b",
        "s3://bucket/../x",
        "s3://bucket/a b",
        "s3://bucket/x#y",
        "s3://bucket?region=a&region=b",
        "s3://bucket?addressing=",
    ],
)
def test_what_names_no_store_is_refused(url):
    if url.endswith("addressing="):
        assert open_store(url).url == "s3://bucket"
        return
    with pytest.raises(Refused):
        open_store(url)


def test_boto3_is_imported_for_s3_only():
    code = "import sys; from packhouse.store import open_store; open_store('/x'); sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_missing_boto3_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(Refused, match=r"pip install 'packhouse\[s3\]'"):
        open_store("s3://bucket")
