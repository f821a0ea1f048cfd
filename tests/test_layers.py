"""The architecture, as a test: who may import whom, and who may not."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("packhouse", "infra", "tasks", "flows")
ALLOWED = {
    "packhouse": {"packhouse"},
    "infra": {"infra", "packhouse"},
    "tasks": {"tasks", "infra", "packhouse"},
    "flows": {"flows", "tasks", "infra", "packhouse"},
}
FORBIDDEN = {
    "packhouse": {"prefect", "mlflow", "docker"},
    "infra": {"prefect"},
    "flows": {"torch", "onnx", "onnxruntime"},
}
"""Modules that a layer must not name at all."""
PROGRAMS = (ROOT / "infra" / "deploy",)
"""Run by an operator, imported by nobody."""


def modules(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


@pytest.mark.parametrize("layer", OURS)
def test_a_layer_imports_only_itself_and_the_layers_below(layer):
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(layer)
        for name in imported(path)
        if name.split(".")[0] in OURS and name.split(".")[0] not in ALLOWED[layer]
    }
    assert not wrong


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_does_not_know_what_is_not_its_business(layer):
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(layer)
        for name in imported(path)
        if name.split(".")[0] in FORBIDDEN[layer] and not any(program in path.parents for program in PROGRAMS)
    }
    assert not wrong
    programs = {".".join(program.relative_to(ROOT).parts) for program in PROGRAMS}
    inside = {path: name for path in modules(layer) for name in imported(path) if name.startswith(tuple(programs))}
    assert all(any(program in path.parents for program in PROGRAMS) for path in inside), inside


def test_what_runs_in_the_sandbox_knows_no_orchestrator_and_the_worker_no_torch():
    jobs = {name for path in modules("tasks/jobs") for name in imported(path)}
    assert not {name for name in jobs if name.split(".")[0] in ("prefect", "infra", "flows", "boto3")}
    jobs_folder = ROOT / "tasks" / "jobs"
    stages = [path for path in modules("tasks") if jobs_folder not in path.parents]
    parents = {name for path in stages for name in imported(path)}
    assert not {name for name in parents if name.split(".")[0] in ("torch", "onnx", "onnxruntime", "safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["release", "nightly", "audit", "watch", "parity_cuda", "sign"])
def test_a_run_begins_without_what_few_runs_need(flow):
    """Each run is a process of its own, which pays for all that it imports."""
    heavy = ("mlflow", "pandas", "torch", "onnx", "onnxruntime", "model_signing")
    program = f"import flows.{flow}, sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_nobody_imports_a_module_that_unpickles():
    allowed = {ROOT / "packhouse" / "weights" / "file_kind.py"}  # walks opcodes, never loads
    for layer in OURS:
        for path in modules(layer):
            if path not in allowed:
                names = {name.split(".")[0] for name in imported(path)}
                assert not names & {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}, path


def test_importing_packhouse_brings_in_no_orchestrator_and_no_framework():
    script = """
import sys, packhouse
heavy = {"prefect", "torch", "mlflow", "docker", "boto3", "onnx", "onnxruntime", "flows", "tasks", "infra"}
found = heavy & {name.split(".")[0] for name in sys.modules}
sys.exit(f"{found}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_packhouse_only():
    script = """
import tomllib, sys, setuptools
config = tomllib.load(open("pyproject.toml", "rb"))
found = setuptools.find_packages(include=config["tool"]["setuptools"]["packages"]["find"]["include"])
tops = {name.split(".")[0] for name in found}
sys.exit(0 if tops == {"packhouse"} else f"{tops}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_project_names_no_machine_and_no_workplace():
    for path in ROOT.rglob("*"):
        hidden = any(part.startswith(".") and part != ".ci" for part in path.relative_to(ROOT).parts)
        if path.suffix in (".py", ".md", ".toml", ".txt", ".yaml") and not hidden:
            assert "/wor" + "k/" not in path.read_text(errors="replace"), path
