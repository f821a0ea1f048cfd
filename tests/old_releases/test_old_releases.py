"""Releases that earlier versions made still verify, are still signed, and are still refused where they were changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import packhouse
from packhouse.errors import PackhouseError, SignatureInvalid
from packhouse.release.lookup import at_prefix, read_channel
from packhouse.release.manifest import channel_key, release_key
from packhouse.store import FileStore
from packhouse.trust.signatures import Trusted
from packhouse.trust.signed_channels import pointed, standing
from packhouse.trust.verify import verify
from tests.support.small_release import flip

HERE = Path(__file__).resolve().parent
KEPT = sorted(path.parent for path in HERE.glob("*/*/record.json"))
FILES = [
    pytest.param(path, id=f"{path.parent.parent.name}-{path.name}") for kept in KEPT for path in sorted(kept.iterdir())
]


def trusted(kept: Path) -> Trusted:
    return Trusted.read([kept.parent / "signing.pub.pem"])


def test_this_version_or_one_before_it_is_kept():
    assert KEPT


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.parent.name)
def test_it_verifies_answers_as_it_did_and_is_signed(kept):
    proven = verify(at_prefix(FileStore(kept), ""), trusted(kept))
    assert proven.model == kept.name
    assert proven.signed_by.startswith("key ")
    assert "onnx" in proven.formats


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.parent.name)
def test_it_is_fetched_and_opened(kept, tmp_path):
    found = at_prefix(FileStore(kept), "")
    store = tmp_path / "store"
    shutil.copytree(kept, store / release_key(kept.name, found.record.release))
    fetched = packhouse.fetch(
        f"{kept.name}/{found.record.release}",
        tmp_path / "here",
        store=str(store),
        trust=[kept.parent / "signing.pub.pem"],
        floors=tmp_path,
    )
    assert packhouse.open_session(fetched.folder).get_outputs()


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.parent.name)
def test_its_signed_channel_still_leads_to_it(kept, tmp_path):
    """At the time when it was signed; today it has expired, as it should."""
    found = at_prefix(FileStore(kept), "")
    shutil.copytree(kept, tmp_path / release_key(kept.name, found.record.release))
    shutil.copytree(kept.parent / "channels", (tmp_path / channel_key(kept.name, "latest")).parent)
    pointer, _ = standing(FileStore(tmp_path), kept.name, "latest")
    assert pointer
    led = pointed(FileStore(tmp_path), kept.name, "latest", trusted(kept), now=pointer.signed_at)
    assert led.found.record == found.record
    assert pointer.here == read_channel(FileStore(tmp_path), kept.name, "latest")
    with pytest.raises(SignatureInvalid, match="expired"):
        pointed(FileStore(tmp_path), kept.name, "latest", trusted(kept), now=pointer.expires)


@pytest.mark.parametrize("path", FILES)
def test_one_changed_byte_is_refused(path, tmp_path):
    copy = Path(shutil.copytree(path.parent, tmp_path / "copy"))
    flip(copy / path.name)
    with pytest.raises(PackhouseError):
        verify(at_prefix(FileStore(copy), ""), trusted(path.parent))


@pytest.mark.parametrize("path", FILES)
def test_one_missing_file_is_refused(path, tmp_path):
    copy = Path(shutil.copytree(path.parent, tmp_path / "copy"))
    (copy / path.name).unlink()
    with pytest.raises(PackhouseError):
        verify(at_prefix(FileStore(copy), ""), trusted(path.parent))
