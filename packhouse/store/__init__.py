"""Stores: one interface, a folder or a bucket behind it, and wrappers that keep its promises."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from packhouse.errors import Refused, StoreRefusal
from packhouse.store.base import Adapter, Capabilities, Stat, Store
from packhouse.store.files import FileStore
from packhouse.store.guarded import Guarded, guard
from packhouse.store.probe import probe
from packhouse.store.retrying import Patience, Retrying

__all__ = [
    "Adapter",
    "Capabilities",
    "FileStore",
    "Guarded",
    "Patience",
    "Retrying",
    "Stat",
    "Store",
    "StoreRefusal",
    "guard",
    "open_store",
    "probe",
]


def open_store(url_or_path: str) -> Adapter:
    """`file:///abs/path`, a plain path, or `s3://bucket/prefix?endpoint=…&addressing=…&region=…`.

    Nothing is asked of the store yet. Law: open_store(store.url).url == store.url. Raises Refused on anything else.
    """
    scheme, found, _ = url_or_path.partition("://")
    if not found:
        return _folder(url_or_path, given=url_or_path)
    if scheme == "file":
        return _folder(_path_of(url_or_path), given=url_or_path)
    if scheme == "s3":
        from packhouse.store.s3 import S3Store
        from packhouse.store.s3_address import parse

        return S3Store(parse(url_or_path))
    # Only the scheme is repeated: the rest may hold a password.
    raise Refused(
        "PH-0299 no such kind of store", where=f"{scheme}://…", want="file:///path, a path, or s3://bucket/prefix"
    )


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment:
        raise Refused("PH-0298 a file store's URL has a path only", where="file://…", want="file:///abs/path")
    return unquote(parts.path)


def _folder(path: str, *, given: str) -> FileStore:
    if not path or "\0" in path:
        raise Refused("PH-0297 no path of a store", where=given, want="file:///path, a path, or s3://bucket/prefix")
    return FileStore(Path(path))
