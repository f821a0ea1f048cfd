"""What a user relies on, of the whole command: equal bytes, whole or invisible, no pickle, proof from bytes alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.nightly import nightly
from flows.release import release as release_flow
from flows.release import release_model
from flows.release import released as release
from packhouse.manifest import MANIFEST
from packhouse.releases import find, releases
from packhouse.store import open_store
from packhouse.verify import verify
from tests.flows.test_bad_input import packhouse

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

ALWAYS_PAYS = {"int8_speed": 0.01}
"""Whether INT8 is slower hangs on a clock; here it does not, so that nothing but bytes is compared."""


def manifests(home: Path) -> dict[str, bytes]:
    store = open_store(str(home / "store"))
    return {
        entry.model: (home / "store" / entry.model / "releases" / entry.release / MANIFEST).read_bytes()
        for entry in releases(store)
    }


@pytest.mark.parametrize("encoder", [{}], ids=["every format"], indirect=True)
def test_the_same_inputs_give_the_same_bytes_in_another_process_folder_and_hash_seed(tmp_path, staged, encoder):
    sources = [
        staged("linear", gates=ALWAYS_PAYS, every_format=True),
        staged("branch", gates=ALWAYS_PAYS, every_format=True),
        staged("tied", gates=ALWAYS_PAYS, every_format=True),
        staged("dict-output", gates=ALWAYS_PAYS, outputs=["one", "two"], every_format=True),
        encoder,
    ]
    one, two = tmp_path / "one", tmp_path / "two" / "deeper"
    first = packhouse("release", *sources, home=one, PYTHONHASHSEED="1")
    moved = [Path(shutil.copytree(source.removeprefix("file://"), two / Path(source).name)) for source in sources]
    second = packhouse("release", *map(str, moved), home=two, PYTHONHASHSEED="77", TZ="Asia/Tokyo", LC_ALL="C")
    assert (first.returncode, second.returncode) == (0, 0), first.stdout + second.stdout
    assert manifests(one) == manifests(two)
    assert len(manifests(one)) == len(sources)


MOMENTS = [
    "gate ...",
    "make onnx ...",
    "make torchscript: ",
    "upload model.ts ...",
    "upload model.ts: ",
    "publish ...",
    "commit ...",
    "promote to latest ...",
]


def test_a_run_killed_at_any_moment_leaves_no_half_release_and_the_next_run_completes(tmp_path, staged):
    source = staged("linear", gates=ALWAYS_PAYS, every_format=True)
    for moment in MOMENTS:
        home = tmp_path / "home"
        killed_at(source, home, moment)
        assert_whole_or_invisible(home)
    done = packhouse("release", source, home=home)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    untouched = tmp_path / "untouched"
    packhouse("release", source, home=untouched)
    assert manifests(home) == manifests(untouched)
    assert verify(find(open_store(str(home / "store")), "linear@latest")).formats


def killed_at(source: str, home: Path, moment: str) -> None:
    """Starts a release and kills all of it, without warning, when it says that it has come to `moment`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "packhouse", "release", source],
        env=os.environ | {"PACKHOUSE_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    try:
        seen = next((line for line in process.stderr if moment in line), None)
        assert seen or moment not in MOMENTS[:6], f"never came to {moment!r}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


def assert_whole_or_invisible(home: Path) -> None:
    store = open_store(str(home / "store"))
    for entry in releases(store):
        verify(find(store, f"{entry.model}/{entry.release}"))


def test_nothing_on_the_way_is_pickled(home, staged, monkeypatch, tmp_path):
    """The reader of a pickle resolves classes, which Python announces; the writer here is made to fail."""
    resolved: list[object] = []
    watching = [True]
    sys.addaudithook(
        lambda event, arguments: watching[0] and event == "pickle.find_class" and resolved.append(arguments)
    )
    monkeypatch.setattr("cloudpickle.dumps", forbidden)
    monkeypatch.setattr("cloudpickle.dump", forbidden)
    try:
        (end,) = release([staged("linear", every_format=True)])
    finally:
        watching[0] = False
    assert end.release, end.reason
    assert resolved == []
    for stored in Path(os.environ["PREFECT_HOME"]).rglob("storage/*"):
        json.loads(stored.read_bytes())  # the exception of a flow that failed in another test


def test_flows_store_nothing_and_what_prefect_stores_all_the_same_is_json():
    for flow in (release_flow, release_model, nightly):
        assert flow.persist_result is False
        assert flow.result_serializer == "json"


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("something is pickled")


def test_a_release_verifies_from_the_store_and_from_a_plain_copy_by_the_command(home, staged, tmp_path):
    release([staged("linear", every_format=True)])
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


def test_ls_and_show_tell_what_there_is(home, staged):
    assert packhouse("ls", home=home).returncode == 3
    (end,) = release([staged("linear", every_format=True)])
    listed = packhouse("ls", home=home)
    assert listed.stdout == f"linear/{end.release} latest#1\n"
    shown = packhouse("show", "linear@latest", home=home)
    assert shown.returncode == 0, shown.stderr
    assert all(format in shown.stdout for format in ("onnx", "torchscript", "program", "torchscript-int8"))
    assert packhouse("show", "linear@production", home=home).returncode == 1
    assert packhouse("verify", home=home).returncode == 64
