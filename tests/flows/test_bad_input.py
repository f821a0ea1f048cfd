"""Bad input: each kind has its own message and status, and nothing is released."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.__main__ import _release as release_sources
from flows.run_result import Status, exit_status
from infra.settings import settings
from infra.worker.context import WorkerContext, use
from packhouse.digest import digest_file
from packhouse.release.lookup import releases
from packhouse.store import open_store
from packhouse.weights.safetensors_codec import read_numpy, write_numpy
from tests.servers.place import small_disk

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

Change = Callable[[Path], None]


@pytest.fixture
def warm(home, monkeypatch) -> None:
    """`packhouse release` closes its sandbox, for its process ends. This process goes on: the next test needs the
    sandbox, which takes seconds to start."""
    monkeypatch.setattr(WorkerContext, "close", lambda self: None)


def edit(pattern: str, replacement: str) -> Change:
    def change(source: Path) -> None:
        spec = source / "package.toml"
        text, count = re.subn(pattern, replacement, spec.read_text(), count=1)
        assert count, pattern
        spec.write_text(text)

    return change


def rewrite(name: str, change: Callable[[dict[str, np.ndarray]], None], *, honest: bool = True) -> Change:
    """Changes tensors of a file, and writes its digest and size into the spec as an honest author would."""

    def apply(source: Path) -> None:
        path = source / name
        arrays = {key: array.copy() for key, array in read_numpy(path).items()}
        change(arrays)
        path.unlink()
        write_numpy(path, arrays)
        if honest:
            restate(source, path)

    return apply


def restate(source: Path, path: Path) -> None:
    spec = source / "package.toml"
    digest, size = digest_file(path).removeprefix("sha256:"), path.stat().st_size
    spec.write_text(
        re.sub(
            rf'(file = "{path.name}"\nsha256 = )"[0-9a-f]+"\nsize = \d+',
            rf'\1"{digest}"\nsize = {size}',
            spec.read_text(),
        )
    )


def replace(content: bytes) -> Change:
    def change(source: Path) -> None:
        path = source / "weights.safetensors"
        path.write_bytes(content)
        restate(source, path)

    return change


def truncate(source: Path) -> None:
    path = source / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def flip(source: Path) -> None:
    path = source / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def extra_key(arrays: dict[str, np.ndarray]) -> None:
    arrays["head.weight"] = np.zeros((2, 2), np.float32)


def missing_key(arrays: dict[str, np.ndarray]) -> None:
    del arrays["layers.0.bias"]


def nan(arrays: dict[str, np.ndarray]) -> None:
    arrays["layers.2.bias"][1] = np.nan


def wrong_width(arrays: dict[str, np.ndarray]) -> None:
    arrays["evaluation.x"] = arrays["evaluation.x"][:, :-1]


BAD: list[tuple[str, Change, str]] = [
    ("no spec", lambda source: (source / "package.toml").unlink(), "no package.toml here"),
    ("no weights", lambda source: (source / "weights.safetensors").unlink(), "weights.safetensors"),
    ("truncated weights", truncate, "weights.safetensors: size differs; got 3,003 bytes, want 3,008"),
    ("one bit of the weights", flip, "weights.safetensors: sha256 differs"),
    ("another digest in the spec", edit(r'sha256 = "[0-9a-f]{8}', 'sha256 = "00000000'), "sha256 differs"),
    ("unknown key", edit(r"\[model\]", "[model]\ncolour = 1"), "model.colour: unknown key"),
    ("not TOML", edit(r"\[model\]", "[model"), "not TOML"),
    ("number of 5,000 digits", edit(r"schema = 2", f"schema = {'1' * 5000}"), "not TOML that can be read"),
    ("architecture that nobody registers", edit(r"test\.linear", "test.nothing"), "not registered on this machine"),
    ("arguments that the architecture refuses", edit(r"hidden = 32", "width = 32"), "unexpected keyword argument"),
    ("missing key", rewrite("weights.safetensors", missing_key), "layers.0.bias"),
    ("extra key", rewrite("weights.safetensors", extra_key), "head.weight"),
    ("NaN in the weights", rewrite("weights.safetensors", nan), "got 1 NaN and 0 infinite of 4"),
    ("weights of another shape", edit(r"hidden = 32", "hidden = 31"), "shape"),
    (
        "samples of another shape",
        rewrite("samples.safetensors", wrong_width),
        "evaluation.x: shape differs from the spec",
    ),
    (
        "pickle for weights",
        replace(b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins."),
        "weights.safetensors",
    ),
]


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("change, reason", [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_refused_by_name_and_releases_nothing(home, staged, change, reason):
    source = staged("linear", arguments={"hidden": 32})
    change(Path(source.removeprefix("file://")))
    ends = release_sources([source], "latest")
    assert [end.status for end in ends] == [Status.REFUSED], ends
    assert reason in ends[0].reason
    assert "\n" not in ends[0].reason
    assert exit_status(ends) == 1
    assert list(releases(open_store(str(home / "store")))) == []


def test_a_store_that_does_not_answer_is_unavailable(home, staged):
    keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}
    store = "s3://models?endpoint=http://127.0.0.1:9"
    done = packhouse("release", staged("linear"), "--store", store, home=home, **keys)
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith("unavailable ")
    assert "127.0.0.1:9" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_channel_that_is_no_name_is_wrong_usage_and_releases_nothing(home, staged):
    done = packhouse("release", staged("linear"), "--channel", "../x", home=home)
    assert done.returncode == 64, done.stderr
    assert "is no channel" in done.stderr
    assert list(releases(open_store(str(home / "store")))) == []


def test_an_orchestrator_that_does_not_answer_is_unavailable(home, staged):
    nobody = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = packhouse("release", staged("linear"), home=home, **nobody)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "unavailable: Prefect's API at http://127.0.0.1:9/api" in done.stderr


def test_a_setting_that_is_wrong_is_wrong_usage(home, staged):
    done = packhouse("release", staged("linear"), home=home, PACKHOUSE_CHILDREN="many")
    assert done.returncode == 64, done.stderr
    assert "children" in done.stderr


@pytest.mark.usefixtures("warm")
def test_a_source_that_can_not_be_planned_does_not_stop_the_others(home, staged):
    ends = release_sources([str(home / "nowhere"), staged("linear")], "latest")
    assert [end.status for end in ends] == [Status.REFUSED, Status.RELEASED]


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("what", ["cache", "store"])
def test_a_full_disk_is_unavailable_and_the_next_run_completes(home, staged, tmp_path, monkeypatch, sandbox, what):
    with small_disk(tmp_path / "small", "16k") as disk:
        source = staged("linear")
        monkeypatch.setenv(f"PACKHOUSE_{what.upper()}", str(disk))
        done = packhouse("release", source, home=home)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "No space" in done.stdout or "no space" in done.stdout
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        settings.cache_clear()
        use(WorkerContext(settings(), sandbox))
        ends = release_sources([source], "latest")
        assert [end.status for end in ends] == [Status.RELEASED], ends
        assert exit_status(ends) == 0


def packhouse(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command itself, in a process of its own."""
    import sys

    return subprocess.run(
        [sys.executable, "-m", "packhouse", *arguments],
        env=os.environ | {"PACKHOUSE_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
