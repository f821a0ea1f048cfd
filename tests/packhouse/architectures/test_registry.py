"""The registry: only what an operator installed, and nothing imported before it is needed."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from packhouse.architectures import registry
from packhouse.architectures.code_digest import code_digest, module_digests
from packhouse.digest import DIGEST
from packhouse.errors import ArchitectureUnknown

ROOT = Path(__file__).resolve().parents[3]


def test_a_registered_architecture_is_built_in_eval_mode():
    module = registry.build("test.linear", {"hidden": 8})
    assert isinstance(module, torch.nn.Module)
    assert not module.training


def test_an_unknown_name_is_refused_with_those_that_are_known():
    with pytest.raises(ArchitectureUnknown) as caught:
        registry.find("os:system")
    assert "architecture 'os:system': not registered on this machine" in str(caught.value)
    assert "test.linear" in str(caught.value)


@pytest.mark.parametrize("arguments", [{"width": 3}, {"hidden": "many"}, {"_target_": "os.system"}, {"hidden": -1}])
def test_arguments_that_the_builder_does_not_take_are_refused(arguments):
    with pytest.raises(ArchitectureUnknown, match=r"architecture 'test\.linear': can not be built: "):
        registry.build("test.linear", arguments)


def points(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    made = tuple(importlib.metadata.EntryPoint("m", value, registry.GROUP) for value in values)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: made)


def test_a_name_that_two_packages_register_is_refused(monkeypatch):
    points(monkeypatch, "one:Model", "two:Model")
    with pytest.raises(ArchitectureUnknown, match="registered twice"):
        registry.find("m")


@pytest.mark.parametrize("value", ["types:SimpleNamespace", "json:nothing", "no_such_package_at_all:Model"])
def test_an_entry_point_that_is_no_model_is_refused(monkeypatch, value):
    points(monkeypatch, value)
    with pytest.raises(ArchitectureUnknown, match="can not be built"):
        registry.build("m", {})


def test_a_fingerprint_imports_nothing_of_the_package():
    program = (
        "import sys; from packhouse.architectures.registry import fingerprint; fingerprint('test.linear')\n"
        "assert not {'packhouse_test_architectures', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_fingerprint_says_who_made_it():
    found = registry.fingerprint("test.linear")
    assert found["name"] == "test.linear"
    assert found["distribution"] == "packhouse-test-architectures"
    assert DIGEST.fullmatch(found["code"])


def test_any_change_of_a_package_s_sources_changes_its_fingerprint(tmp_path, monkeypatch):
    package = tmp_path / "some_models"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py"):
        (package / name).write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = [registry.source_digest("some_models")]
    (package / "notes.txt").write_text("not code\n")
    assert registry.source_digest("some_models") == seen[0]
    (package / "inner" / "__init__.py").write_text("x = 2\n")
    seen.append(registry.source_digest("some_models"))
    (package / "inner" / "more.py").write_text("")
    seen.append(registry.source_digest("some_models"))
    (package / "inner" / "more.py").rename(package / "inner" / "else.py")
    seen.append(registry.source_digest("some_models"))
    assert len(set(seen)) == len(seen)


def test_a_package_that_is_not_there_is_refused():
    with pytest.raises(ArchitectureUnknown, match="can not be found"):
        registry.source_digest("no_such_package_at_all")


def test_a_builder_may_fail_in_any_way(monkeypatch):
    def fails(**_: object) -> None:
        raise RuntimeError("line one\nline two")

    broken = types.SimpleNamespace(name="m", load=lambda: fails)
    monkeypatch.setattr(registry, "find", lambda name: broken)
    with pytest.raises(ArchitectureUnknown) as caught:
        registry.build("m", {})
    assert str(caught.value) == "architecture 'm': can not be built: RuntimeError: line one line two (PH-0104)"


def test_what_is_not_the_builders_own_does_not_release_its_models_anew():
    """packhouse itself is among a release's inputs by its own code digest; a newer `rich` makes no byte."""
    found = registry.fingerprint("program")
    assert not {"rich", "typer"} & found["requires"].keys()
    modules = module_digests(
        ROOT, ["packhouse.architectures.exported_program"], packages={"packhouse"}, ends={"packhouse"}
    )
    assert {"packhouse.architectures.exported_program", "packhouse.formats.torch_archive"} <= modules.keys()
    assert found["code"] == code_digest(modules)


def test_a_comment_in_an_installed_package_counts(tmp_path, monkeypatch):
    """TorchScript reads some comments, and the package is not ours to know."""
    (tmp_path / "some_models.py").write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = registry.source_digest("some_models")
    (tmp_path / "some_models.py").write_text("def f(x):\n    # type: (int) -> int\n    return x\n")
    assert registry.source_digest("some_models") != before
