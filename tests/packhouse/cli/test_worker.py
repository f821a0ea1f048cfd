"""Where the command finds the worker's code, and what it needs for it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from packhouse.cli import worker
from packhouse.errors import NotInstalled, Refused
from tests.support.environments import ROOT


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACKHOUSE_WORKER", raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


def code(folder: Path) -> Path:
    """A worker's code, as far as it is looked at."""
    for name in ("flows/__main__.py", "infra/sandbox/client.py"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    return folder


def test_a_clone_has_it_beside_packhouse():
    assert worker.worker_root() == ROOT


def test_a_wheel_carries_it_inside_and_a_foreign_flows_beside_packhouse_is_not_taken(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "packhouse"
    monkeypatch.setattr(worker, "PACKAGE", package)
    (tmp_path / "site-packages" / "flows").mkdir(parents=True)
    (tmp_path / "site-packages" / "flows" / "__main__.py").touch()
    code(Path.cwd())
    carried = code(package / "_worker")
    assert worker.worker_root() == carried


def test_the_environment_comes_first_and_is_meant_from_the_current_folder(monkeypatch):
    named = code(Path.cwd() / "named")
    monkeypatch.setenv("PACKHOUSE_WORKER", "named")
    assert worker.worker_root() == named
    assert worker.worker_root().is_absolute()


def test_without_any_code_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "PACKAGE", tmp_path / "site-packages" / "packhouse")
    with pytest.raises(Refused, match="worker's code is not here") as caught:
        worker.worker_root()
    assert "PACKHOUSE_WORKER" in caught.value.next


@pytest.mark.parametrize(
    "gone, got",
    [
        (["onnxruntime"], "not installed: onnxruntime"),
        (["boto3", "docker", "mlflow", "onnx", "torch"], "not installed: boto3, docker, mlflow and 2 more"),
    ],
)
def test_packages_of_an_extra_that_are_missing_are_named(monkeypatch, gone, got):
    def version(name: str) -> str:
        if name in gone:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(worker.importlib.metadata, "version", version)
    with pytest.raises(NotInstalled) as caught:
        worker.insist_on("worker")
    assert (caught.value.got, caught.value.exit_status) == (got, 64)


def test_an_extra_whose_packages_are_all_there_is_no_error():
    worker.insist_on("serving")
