"""Signing on the line: no channel points at a release that was to be signed and is not, whoever was killed when; and a
signer apart, whose key no other worker has."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.ends import Status
from flows.release import released as release
from flows.sign import sign as sign_flow
from infra.sandbox import Sandbox
from infra.settings import settings
from infra.workshop import Workshop, use, workshop
from packhouse.dsse import make_keys
from packhouse.errors import NotFound, SignatureInvalid, Stopping
from packhouse.manifest import SIGNATURE, channel_key, release_key
from packhouse.releases import find, read_channel
from packhouse.signatures import Trusted
from packhouse.store import open_store
from packhouse.verify import verify
from tasks import sign as tasks_sign
from tests.flows.cluster import deploy, pool, worker
from tests.flows.test_bad_input import packhouse

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path / "keys")


@pytest.fixture
def configured(home: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> Callable[..., None]:
    """This worker, with these settings from now on."""

    def configure(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"PACKHOUSE_{name.upper()}", str(value))
        settings.cache_clear()
        use(Workshop(settings(), sandbox))

    return configure


def by_whom(model: str, public: Path) -> str:
    return verify(find(workshop().store, f"{model}@latest"), Trusted.read([public])).signed_by


def test_a_release_is_signed_before_its_channel_moves_and_once(home, staged, configured, keys):
    configured(signing_key=keys[0])
    source = staged("linear")
    (end,) = release([source])
    assert end.status is Status.RELEASED
    assert by_whom("linear", keys[1]).startswith("key ")
    path = home / "store" / release_key("linear", end.release) / SIGNATURE
    first = path.read_bytes()
    assert release([source])[0].status is Status.UNCHANGED
    assert path.read_bytes() == first


def test_without_its_key_nothing_is_released_and_the_next_run_completes_it(home, staged, configured, keys, tmp_path):
    gone = tmp_path / "gone.pem"
    configured(signing_key=gone)
    source = staged("linear")
    (end,) = release([source])
    assert end.status is Status.UNAVAILABLE
    assert "PACKHOUSE_SIGNING_KEY: is not there" in end.reason
    with pytest.raises(NotFound):
        read_channel(workshop().store, "linear", "latest")
    gone.write_bytes(keys[0].read_bytes())
    assert release([source])[0].release
    assert by_whom("linear", keys[1])


def test_a_run_that_was_killed_before_it_signed_is_completed(staged, configured, keys, monkeypatch):
    """The record stands, and the signature and the channel do not: what a kill leaves between them."""
    configured(signing_key=keys[0])
    source = staged("linear")

    def killed(*_: object) -> str:
        raise Stopping("the worker was killed")

    with monkeypatch.context() as broken:
        broken.setattr(tasks_sign, "sign_release", killed)
        assert release([source])[0].status is Status.UNAVAILABLE
    with pytest.raises(NotFound):
        read_channel(workshop().store, "linear", "latest")
    release([source])
    assert by_whom("linear", keys[1])


def test_bytes_that_are_not_the_manifests_are_not_signed(home, staged, configured, keys):
    (end,) = release([staged("linear")])
    configured(signing_key=keys[0])
    folder = home / "store" / release_key("linear", end.release)
    (folder / "model.onnx").write_bytes(b"other bytes")
    done = packhouse("sign", f"linear/{end.release}", home=home, PACKHOUSE_SIGNING_KEY=str(keys[0]))
    assert done.returncode == 1
    assert done.stderr.startswith("refused: ")
    assert "model.onnx" in done.stderr
    assert not (folder / SIGNATURE).exists()


def test_what_was_released_before_there_was_a_key_is_signed_by_a_command(home, staged, keys):
    (end,) = release([staged("linear")])
    with pytest.raises(SignatureInvalid, match="is not signed"):
        by_whom("linear", keys[1])
    done = packhouse("sign", "linear@latest", home=home, PACKHOUSE_SIGNING_KEY=str(keys[0]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("signed linear@latest: ")
    told = packhouse("verify", f"linear/{end.release}", "--trust", str(keys[1]), home=home)
    assert told.returncode == 0, told.stderr
    assert " signed by key " in told.stdout
    other = make_keys(home / "other")[1]
    refused = packhouse("verify", "linear@latest", home=home, PACKHOUSE_TRUST=str(other))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is not signed by anybody who is trusted here" in refused.stderr


def test_the_command_signs_what_is_unchanged_and_was_not_signed(home, staged, keys):
    """Also what a run left that was killed between its record and its signature: no channel moves without one."""
    source = staged("linear")
    (end,) = release([source])
    (home / "store" / channel_key("linear", "latest")).unlink()
    gone = packhouse("release", source, home=home, PACKHOUSE_SIGNING_KEY=str(home / "gone.pem"))
    assert gone.returncode == 2, gone.stdout
    with pytest.raises(NotFound):
        read_channel(open_store(str(home / "store")), "linear", "latest")
    done = packhouse("release", source, home=home, PACKHOUSE_SIGNING_KEY=str(keys[0]))
    assert done.stdout == f"released linear/{end.release} latest#1\n", done.stderr
    assert by_whom("linear", keys[1]).startswith("key ")


def test_a_signer_apart_signs_with_a_key_that_no_other_worker_has(home, staged, configured, keys, tmp_path):
    """The pool's worker has the key in its environment; this one, which runs the model, has only the pool's name."""
    signers = pool(f"sign-{os.getpid()}-{time.monotonic_ns()}")
    deploy(sign_flow, signers)
    configured(sign_pool=signers)
    with worker(signers, {"PACKHOUSE_SIGNING_KEY": str(keys[0]), "PACKHOUSE_SIGN_POOL": ""}, tmp_path / "signer.log"):
        (end,) = release([staged("linear")])
    assert end.status is Status.RELEASED, (end, (tmp_path / "signer.log").read_text())
    assert by_whom("linear", keys[1]).startswith("key ")


def test_a_signer_that_is_away_leaves_the_channel_where_it_was(home, staged, configured):
    signers = pool(f"sign-{os.getpid()}-{time.monotonic_ns()}")
    deploy(sign_flow, signers)
    configured(sign_pool=signers, sign_wait_s=1)
    (end,) = release([staged("linear")])
    assert end.status is Status.UNAVAILABLE
    with pytest.raises(NotFound):
        read_channel(open_store(str(home / "store")), "linear", "latest")


def test_the_worker_module_that_signs_says_what_it_did_on_stdout_alone(home, staged, keys):
    release([staged("linear")])
    command = [sys.executable, "-m", "tasks.sign", "linear@latest"]
    environment = os.environ | {"PACKHOUSE_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("unavailable: PACKHOUSE_SIGNING_KEY: has no key to sign with")
