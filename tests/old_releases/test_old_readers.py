"""packhouse 0.1 and this version on one store: the older one refuses what it can not read in one line, and neither
damages what the other made. The older one is the code of 0.1.0, from the history of this repository."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from packhouse.digest import digest_bytes
from packhouse.release import channels
from packhouse.release.lookup import at_prefix, find, listing, read_channel
from packhouse.release.manifest import (
    MANIFEST,
    NEEDS,
    RECORD,
    Channel,
    Manifest,
    Record,
    channel_key,
    dump,
    load,
    release_key,
)
from packhouse.store import FileStore
from packhouse.trust.verify import verify

ROOT = Path(__file__).resolve().parents[2]
LAST_OF_0_1 = "7302c992bc604c66e13c80f2955e1d61185211b4"
KEPT = Path(__file__).resolve().parent / "0.1.0" / "churn"
MODEL = "churn"
LINE = "refused: record.json: is not a record: Input should be 1\n"

Old = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    """Runs Python in the tree of 0.1.0."""
    packed = subprocess.run(
        ["git", "archive", "--format=tar", LAST_OF_0_1, "packhouse"], cwd=ROOT, capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip(f"the code of 0.1.0 is not in this clone's history: {packed.stderr.decode().strip()}")
    tree, home = tmp_path_factory.mktemp("0.1.0"), tmp_path_factory.mktemp("home")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(tree, filter="data")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree), "PACKHOUSE_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    told = run("-c", "import packhouse; print(packhouse.__version__, packhouse.__file__)")
    assert told.stdout.split() == ["0.1.0", str(tree / "packhouse" / "__init__.py")], told.stderr
    return run


def committed_by_0_1(store: Path) -> str:
    """The kept release, put where it was made. Its id."""
    release = at_prefix(FileStore(KEPT), "").record.release
    shutil.copytree(KEPT, store / release_key(MODEL, release))
    return release


def committed_by_this_version(store: Path) -> str:
    """The same files as a release of schema 2. Its id."""
    manifest = load(Manifest, (KEPT / MANIFEST).read_bytes(), where=MANIFEST)
    inputs = manifest.inputs.model_copy(update={"environment": {"OMP_NUM_THREADS": "1"}})
    now = {"schema_version": 2, "needs": NEEDS, "inputs": inputs, "release": inputs.release_id}
    data = dump(manifest.model_copy(update=now))
    folder = store / release_key(MODEL, inputs.release_id)
    shutil.copytree(KEPT, folder, ignore=shutil.ignore_patterns(RECORD, "model.sig", "provenance.json"))
    (folder / MANIFEST).write_bytes(data)
    record = Record(model=MODEL, release=inputs.release_id, manifest=digest_bytes(data), manifest_size=len(data))
    (folder / RECORD).write_bytes(dump(record))
    return inputs.release_id


def promoted_by_this_version(store: Path, release: str) -> None:
    def decide(here: Channel | None) -> channels.Answer:
        return channels.after_release(here, release, staged_at=lambda: 0.0, again=False, guarded=False, by="0.2")

    channels.change(FileStore(store), MODEL, "latest", decide)


PROMOTE = """
import sys
from pathlib import Path
from packhouse import channels
from packhouse.store import FileStore
def decide(here):
    return channels.after_release(here, sys.argv[2], staged_at=lambda: 0.0, again=False, guarded=False, by="0.1")
channels.change(FileStore(Path(sys.argv[1])), "churn", "latest", decide)
"""
"""What a worker of 0.1 does to a channel once its release stands."""

VERIFY = """
import sys
from pathlib import Path
from packhouse import replay, verify
from packhouse.releases import find
from packhouse.store import FileStore
verify._replayed = lambda folder, where: replay.replay(folder)  # its own child would start what is installed
print(verify.verify(find(FileStore(Path(sys.argv[1])), sys.argv[2])).release)
"""


def test_a_reader_of_0_1_refuses_a_release_of_this_version_in_one_line(old, tmp_path):
    store = tmp_path / "store"
    release = committed_by_this_version(store)
    promoted_by_this_version(store, release)
    assert verify(find(FileStore(store), f"{MODEL}@latest")).release == release
    place = ("--store", str(store))
    for reference in (f"{MODEL}/{release}", f"{MODEL}@latest"):
        for command in (["verify", reference], ["fetch", reference, str(tmp_path / "here")]):
            done = old("-m", "packhouse", *command, *place)
            assert (done.returncode, done.stdout, done.stderr) == (1, "", LINE)
    assert not (tmp_path / "here").exists()
    listed = old("-m", "packhouse", "ls", *place)
    assert (listed.returncode, listed.stdout) == (0, f"{MODEL}/{release} latest#1\n"), listed.stderr


def test_two_workers_on_one_store_damage_nothing(old, tmp_path):
    store = tmp_path / "store"
    theirs, ours = committed_by_0_1(store), committed_by_this_version(store)
    assert theirs != ours, "each names its own releases"
    before = bytes_of(store)
    for turn, release in enumerate((theirs, ours, theirs, ours), start=1):
        if release == theirs:
            done = old("-c", PROMOTE, str(store), release)
            assert done.returncode == 0, done.stderr
        else:
            promoted_by_this_version(store, release)
        here = read_channel(FileStore(store), MODEL, "latest")
        assert (here.release, here.serial) == (release, turn)
    assert [(move.serial, move.release, move.by) for move in channels.history(here)] == [
        (4, ours, "0.2"),
        (3, theirs, "0.1"),
        (2, ours, "0.2"),
        (1, theirs, "0.1"),
    ]
    told = old("-m", "packhouse", "history", f"{MODEL}@latest", "--store", str(store))
    assert [line.split()[:2] for line in told.stdout.splitlines()] == [
        [f"#{move.serial}", move.release] for move in channels.history(here)
    ]
    back = old("-m", "packhouse", "rollback", f"{MODEL}@latest", "--by", "ann", "--store", str(store))
    assert (back.returncode, back.stdout) == (0, f"{MODEL}/{theirs} latest#5\n"), back.stderr
    assert bytes_of(store) == before
    assert [entry.release for entry in listing(FileStore(store)).releases] == sorted((theirs, ours))
    assert listing(FileStore(store)).strange == ()


def test_each_version_verifies_its_own_release_and_this_one_verifies_both(old, tmp_path):
    store = tmp_path / "store"
    theirs, ours = committed_by_0_1(store), committed_by_this_version(store)
    done = old("-c", VERIFY, str(store), f"{MODEL}/{theirs}")
    assert (done.returncode, done.stdout) == (0, f"{theirs}\n"), done.stderr
    other = old("-m", "packhouse", "verify", f"{MODEL}/{ours}", "--store", str(store))
    assert (other.returncode, other.stderr) == (1, LINE)
    for release in (theirs, ours):
        assert verify(find(FileStore(store), f"{MODEL}/{release}")).release == release


def test_the_channel_is_written_alike_by_both(old, tmp_path):
    """Its schema is 1 in both, so that a reader of 0.1 still follows it."""
    store = tmp_path / "store"
    release = committed_by_0_1(store)
    assert old("-c", PROMOTE, str(store), release).returncode == 0
    by_0_1 = json.loads((store / channel_key(MODEL, "latest")).read_bytes())
    (store / channel_key(MODEL, "latest")).unlink()
    promoted_by_this_version(store, release)
    by_this = json.loads((store / channel_key(MODEL, "latest")).read_bytes())
    assert by_0_1.keys() == by_this.keys()
    assert by_0_1["schema"] == by_this["schema"] == 1


def bytes_of(store: Path) -> dict[str, str]:
    """Of all releases: name -> digest."""
    files = [path for path in store.rglob("*") if path.is_file() and "releases" in path.parts]
    return {path.relative_to(store).as_posix(): digest_bytes(path.read_bytes()) for path in files}
