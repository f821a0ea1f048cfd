"""What a user relies on, of the whole command: equal bytes, whole or invisible, no pickle, proof from bytes alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from flows.nightly import nightly
from flows.release import release as release_flow
from flows.release import release_model
from flows.release import released as release
from flows.run_result import End, Status
from infra.sandbox.client import Sandbox
from packhouse.release.lookup import find, read_manifest, releases
from packhouse.release.manifest import MANIFEST
from packhouse.store import open_store
from packhouse.trust.verify import verify
from tests.conftest import at_home, stager
from tests.flows.test_bad_input import packhouse

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

ALWAYS_PAYS = {"int8_worth": 0}
"""Whether INT8 is slower hangs on a clock; here it does not, so that nothing but bytes is compared."""


def manifests(home: Path) -> dict[str, bytes]:
    store = open_store(str(home / "store"))
    return {
        entry.model: (home / "store" / entry.model / "releases" / entry.release / MANIFEST).read_bytes()
        for entry in releases(store)
    }


@pytest.mark.parametrize("encoder", [{}], ids=["every format"], indirect=True)
def test_the_same_inputs_give_the_same_bytes_in_another_process_folder_and_hash_seed(
    tmp_path, staged, encoder, sandbox, monkeypatch
):
    sources = [
        staged("linear", gates=ALWAYS_PAYS, every_format=True),
        staged("branch", gates=ALWAYS_PAYS, every_format=True),
        staged("tied", gates=ALWAYS_PAYS, every_format=True),
        staged("dict-output", gates=ALWAYS_PAYS, outputs=["one", "two"], every_format=True),
        encoder,
    ]
    one, two = tmp_path / "one", tmp_path / "two" / "deeper"
    with at_home(one, monkeypatch, sandbox):
        ends = release(sources)
    assert [end.status for end in ends] == [Status.RELEASED] * len(sources), ends
    moved = [Path(shutil.copytree(source.removeprefix("file://"), two / Path(source).name)) for source in sources]
    second = packhouse("release", *map(str, moved), home=two, PYTHONHASHSEED="77", TZ="Asia/Tokyo", LC_ALL="C")
    assert second.returncode == 0, second.stdout
    assert manifests(one) == manifests(two)
    assert len(manifests(one)) == len(sources)


MOMENTS = [
    "validate weights ...",
    "make onnx ...",
    "make torchscript: ",
    "upload model.ts ...",
    "upload model.ts: ",
    "publish ...",
    "commit ...",
    "promote to latest ...",
]
CERTAIN = {*MOMENTS[:6]}
"""The others are so short that a run may be past them before its words are read."""

TWO_FORMATS = {"program": "off", "onnx-int8": "off", "torchscript-int8": "off"}


@pytest.fixture(scope="module")
def unkilled(api, tmp_path_factory) -> Unkilled:
    """One run that stands still at each moment, while all that is on the disk is copied: what a kill would leave."""
    folder = tmp_path_factory.mktemp("unkilled")
    source = stager(folder / "sources")("linear", gates=ALWAYS_PAYS, formats=TWO_FORMATS)
    copies: dict[str, Path] = {}
    with begun(source, folder / "home") as process:
        assert process.stderr
        for line in process.stderr:
            for moment in (each for each in MOMENTS if each in line and each not in copies):
                copies[moment] = folder / f"copy-{len(copies)}"
                with standing_still(process):
                    shutil.copytree(folder / "home", copies[moment], symlinks=True)
        assert process.wait() == 0
    assert copies.keys() >= CERTAIN
    return Unkilled(source, copies, manifests(folder / "home"))


@dataclass(frozen=True)
class Unkilled:
    source: str
    copies: dict[str, Path]
    manifests: dict[str, bytes]


def test_a_run_killed_at_any_moment_leaves_no_half_release_and_the_next_run_completes(unkilled, sandbox, tmp_path):
    for number, home in enumerate(unkilled.copies.values()):
        assert_whole_or_invisible(home)
        assert_completes(home, unkilled, sandbox, tmp_path / str(number))


def test_a_run_that_is_really_killed_leaves_no_half_release_and_the_next_run_completes(unkilled, sandbox, tmp_path):
    home = tmp_path / "home"
    with begun(unkilled.source, home) as process:
        assert process.stderr
        assert any("upload model.ts: " in line for line in process.stderr)
    assert_whole_or_invisible(home)
    assert_completes(home, unkilled, sandbox, tmp_path / "saved")
    assert verify(find(open_store(str(home / "store")), "linear@latest")).formats


def assert_completes(home: Path, unkilled: Unkilled, sandbox: Sandbox, folder: Path) -> None:
    """The next run leaves the very bytes of a run that nobody killed."""
    with pytest.MonkeyPatch.context() as patch, at_home(home, patch, sandbox):
        (end,) = release([unkilled.source])
    assert end.status.good, end
    assert manifests(home) == unkilled.manifests
    found = find(open_store(str(home / "store")), "linear@latest")
    folder.mkdir()
    for artifact in read_manifest(found, found.record).artifacts:
        found.save(artifact, folder / artifact.name)  # which compares its digest


@contextmanager
def begun(source: str, home: Path) -> Iterator[subprocess.Popen[str]]:
    """A release by the command. Killed without warning with all of its group at the end, where it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "packhouse", "release", source],
        env=os.environ | {"PACKHOUSE_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stderr
        process.stderr.close()


@contextmanager
def standing_still(process: subprocess.Popen[str]) -> Iterator[None]:
    """The process, and all that it started, do nothing meanwhile."""
    stopped = stop(psutil.Process(process.pid))
    try:
        yield
    finally:
        for each in stopped:
            each.resume()


def stop(process: psutil.Process) -> list[psutil.Process]:
    """A process first, so that it starts no more, and then its children. Those that were stopped."""
    try:
        process.suspend()
    except psutil.NoSuchProcess:  # it ended before
        return []
    return [process, *(stopped for child in process.children() for stopped in stop(child))]


def assert_whole_or_invisible(home: Path) -> None:
    store = open_store(str(home / "store"))
    for entry in releases(store):
        verify(find(store, f"{entry.model}/{entry.release}"))


@dataclass(frozen=True)
class Watched:
    """A release of every format. resolved: the classes that were looked up for a pickle meanwhile."""

    home: Path
    end: End
    resolved: list[object]


@pytest.fixture(scope="module")
def watched(api, sandbox, tmp_path_factory) -> Watched:
    """The reader of a pickle resolves classes, which Python announces; the writer here is made to fail."""
    folder = tmp_path_factory.mktemp("watched")
    source = stager(folder / "sources")("linear", every_format=True)
    resolved: list[object] = []
    watching = [True]
    sys.addaudithook(
        lambda event, arguments: watching[0] and event == "pickle.find_class" and resolved.append(arguments)
    )
    with pytest.MonkeyPatch.context() as patch, at_home(folder / "home", patch, sandbox) as home:
        patch.setattr("cloudpickle.dumps", forbidden)
        patch.setattr("cloudpickle.dump", forbidden)
        try:
            (end,) = release([source])
        finally:
            watching[0] = False
    return Watched(home, end, resolved)


def test_nothing_on_the_way_is_pickled(watched):
    assert watched.end.release, watched.end.reason
    assert watched.resolved == []
    for stored in Path(os.environ["PREFECT_HOME"]).rglob("storage/*"):
        json.loads(stored.read_bytes())  # the exception of a flow that failed in another test


def test_flows_store_nothing_and_what_prefect_stores_all_the_same_is_json():
    for flow in (release_flow, release_model, nightly):
        assert flow.persist_result is False
        assert flow.result_serializer == "json"


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("something is pickled")


def test_a_release_verifies_from_the_store_and_from_a_plain_copy_by_the_command(watched, tmp_path):
    home = watched.home
    done = packhouse("verify", "linear@latest", home=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("verified linear/")
    copy = tmp_path / "copy"
    (folder,) = (home / "store" / "linear" / "releases").iterdir()
    shutil.copytree(folder, copy)
    assert packhouse("verify", str(copy), home=tmp_path / "elsewhere").returncode == 0
    weights = copy / "weights.safetensors"
    weights.chmod(0o600)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    done = packhouse("verify", str(copy), home=tmp_path / "elsewhere")
    assert done.returncode == 1
    assert "weights.safetensors: sha256 differs" in done.stderr


def test_ls_and_show_tell_what_there_is(watched, tmp_path):
    home = watched.home
    assert packhouse("ls", home=tmp_path / "empty").returncode == 3
    listed = packhouse("ls", home=home)
    assert listed.stdout == f"linear/{watched.end.release} latest#1\n"
    shown = packhouse("show", "linear@latest", home=home)
    assert shown.returncode == 0, shown.stderr
    assert all(format in shown.stdout for format in ("onnx", "torchscript", "program", "torchscript-int8"))
    assert packhouse("show", "linear@production", home=home).returncode == 1
    assert packhouse("verify", home=home).returncode == 64
