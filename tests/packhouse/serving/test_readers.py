"""Three readers, one promise: whatever of a signed release is not what was signed is refused by `verify`, by `fetch`
and by the model server alike, each with its reason in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import packhouse
from packhouse.digest import canonical_json
from packhouse.errors import Refused
from packhouse.release.lookup import find
from packhouse.release.manifest import MANIFEST, PROVENANCE, RECORD, REPORT_JSON, SIGNATURE
from packhouse.serving.release import open_release
from packhouse.serving.settings import Choice
from packhouse.store import FileStore
from packhouse.trust.dsse import make_keys
from packhouse.trust.signatures import Trusted
from packhouse.trust.verify import verify
from tests.packhouse.trust.test_signatures import by_key, signed
from tests.support.small_release import MODEL, Small, flip

Reader = Callable[[Small, Path], object]


def by_verify(small: Small, public: Path) -> object:
    return verify(find(FileStore(small.store), f"{MODEL}/{small.release}"), Trusted.read([public]))


def by_fetch(small: Small, public: Path) -> object:
    here = small.store.with_name("fetched")
    try:
        return packhouse.fetch(f"{MODEL}/{small.release}", here, store=str(small.store), trust=[public])
    finally:
        assert here.exists() or not list(here.parent.glob("fetched*"))
        for left in here.parent.glob(".fetched*"):
            shutil.rmtree(left)


def by_server(small: Small, public: Path) -> object:
    trusted = Trusted.read([public])
    return open_release(
        small.folder, expected=None, choice=Choice.ONNX, vnni=False, cuda=False, golden=True, trusted=trusted
    )


READERS: tuple[Reader, ...] = (by_verify, by_fetch, by_server)
NEEDED = {MANIFEST, RECORD, SIGNATURE, "model.onnx", "package.toml", "golden.safetensors"}
"""By the server, which is content with a part of a release."""
NAMES = ["golden.safetensors", "model.int8.ts", "model.onnx", "model.pt2", "model.ts", "package.toml"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def small(release: Small, keys: tuple[Path, Path], tmp_path: Path) -> Small:
    return signed(release, by_key(keys[0]), tmp_path / "store")


def accepted(small: Small, public: Path, *readers: Reader) -> list[str]:
    """Those of the readers that have nothing against it."""
    found: list[str] = []
    reasons: list[str] = []
    for reader in readers or READERS:
        try:
            reader(small, public)
            found.append(reader.__name__)
        except Refused as error:
            reasons.append(str(error))
    assert all(reason and "\n" not in reason for reason in reasons)
    return found


def leaves(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where a value stands that is no list and no object."""
    if isinstance(document, dict | list) and document:
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from leaves(value, (*path, key))
    else:
        yield path


def changed(document: Any, path: tuple[str | int, ...]) -> bytes:
    """The document with another value there, as like the one that stood there as can be."""
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    value = place[path[-1]]
    if isinstance(value, bool) or value is None:
        place[path[-1]] = not value
    elif isinstance(value, int | float):
        place[path[-1]] = value + 1
    elif isinstance(value, str) and value:
        place[path[-1]] = value[:-1] + ("0" if value[-1] != "0" else "1")
    else:
        place[path[-1]] = "x"
    return canonical_json(copy)


def test_each_reader_takes_what_was_signed(small, keys):
    assert len(accepted(small, keys[1])) == len(READERS)


@pytest.mark.parametrize("name", [MANIFEST, RECORD])
def test_no_field_of_a_document_can_be_another(small, keys, name):
    path = small.folder / name
    document = json.loads(path.read_bytes())
    told = {}
    for where in leaves(document):
        path.write_bytes(changed(document, where))
        if found := accepted(small, keys[1]):
            told["/".join(map(str, where))] = found
    assert not told
    assert len(list(leaves(document))) > (40 if name == MANIFEST else 6)


@pytest.mark.parametrize("name", [*NAMES, MANIFEST, RECORD, PROVENANCE, SIGNATURE])
def test_no_byte_of_any_file_can_be_another_and_none_can_be_missing(small, keys, name):
    flip(small.folder / name)
    looked = [reader for reader in READERS if reader is not by_server or name not in ("report.json",)]
    assert accepted(small, keys[1], *looked) == []
    (small.folder / name).unlink()
    needless = (
        {by_server} if name not in (MANIFEST, RECORD, SIGNATURE, "model.onnx", *NAMES[:1], *NAMES[-1:]) else set()
    )
    assert accepted(small, keys[1], *(reader for reader in READERS if reader not in needless)) == []


def test_no_two_files_can_have_each_others_names(small, keys):
    one, two = small.folder / "model.onnx", small.folder / "model.ts"
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    assert accepted(small, keys[1]) == []


def test_a_file_that_somebody_added_is_refused_where_it_lies_and_is_not_fetched(small, keys):
    (small.folder / "model.extra").write_bytes(b"x")
    assert accepted(small, keys[1]) == ["by_fetch"]
    assert not (small.store.with_name("fetched") / "model.extra").exists()


@pytest.mark.parametrize(
    "names", [[MANIFEST], [RECORD], [SIGNATURE], [MANIFEST, RECORD], [RECORD, SIGNATURE, PROVENANCE]]
)
def test_no_mix_of_two_releases_by_the_same_key_is_taken(small, other_release, keys, tmp_path, names):
    other = signed(other_release, by_key(keys[0]), tmp_path / "other")
    for name in names:
        shutil.copy(other.folder / name, small.folder / name)
    assert accepted(small, keys[1]) == []


def test_a_whole_other_release_under_this_ones_name_is_refused_where_it_is_asked_for_by_name(
    small,
    other_release,
    keys,
    tmp_path,
):
    other = signed(other_release, by_key(keys[0]), tmp_path / "other")
    shutil.rmtree(small.folder)
    shutil.copytree(other.folder, small.folder)
    assert accepted(small, keys[1], by_verify, by_fetch) == []


def test_another_key_and_none_are_refused(small, keys, tmp_path):
    assert accepted(small, make_keys(tmp_path / "other")[1]) == []
    (small.folder / SIGNATURE).unlink()
    assert accepted(small, keys[1]) == []


def test_what_was_measured_is_no_part_of_it(small, keys):
    (small.folder / REPORT_JSON).write_text('{"other": 1}\n')
    assert len(accepted(small, keys[1])) == len(READERS)
