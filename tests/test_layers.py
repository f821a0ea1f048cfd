"""The architecture, as a test: who may import whom, and who may not."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from packhouse.architectures.code_digest import imported_names, parsed

ROOT = Path(__file__).resolve().parent.parent
OURS = ("packhouse", "infra", "tasks", "flows")
"""From the ground up: each imports itself and those before it."""
ORDER = {
    "packhouse": (
        "errors", "digest", "artifact", "atomic_write", "exit_status", "store", "formats", "spec", "weights",
        "architectures", "release", "parity", "trust", "report", "training", "consume", "serving", "cli", "__main__",
    ),
    "infra": ("sandbox", "settings", "registry", "images", "mlflow", "worker", "deploy"),
    "tasks": (
        "_support", "jobs", "fetch", "decisions", "export", "signing", "images", "register_mlflow", "night", "cuda",
        "plan", "reference_outputs", "validate_weights", "quantise", "judge", "pack", "measure", "report", "publish",
        "make", "package", "commit", "commit_and_promote",
    ),
}  # fmt: skip
"""What lies in each, from the ground up: a sub-package or a module imports itself and those before it."""
MOST = {"packhouse": 20, "infra": 8, "tasks": 25}
"""Entries of a folder, without `__init__.py`: more show no design."""
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
    """Dotted names of modules, and `package.name` of what is taken from a package."""
    return set(imported_names(parsed(path.read_bytes()), ""))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def edges(*layers: str) -> dict[str, set[str]]:
    """Our modules -> those of ours that they import, also inside functions."""
    known = {name_of(path): path for layer in layers for path in modules(layer)}
    found = {}
    for name, path in known.items():
        given = imported(path)
        packages = {each.rpartition(".")[0] for each in given if each in known}
        found[name] = {each for each in given if each in known and each not in packages} - {name}
    return found


def place(name: str) -> tuple[int, int]:
    """Where a module stands in the order: its layer, and its place there. The package itself stands at the ground."""
    layer, _, rest = name.partition(".")
    inside = rest.partition(".")[0]
    return OURS.index(layer), ORDER[layer].index(inside) if inside and layer in ORDER else -1


def test_imports_go_downwards_only():
    wrong = {
        f"{name} imports {other}"
        for name, others in edges(*OURS).items()
        for other in others
        if "." in name and place(other) > place(name)
    }
    assert not wrong


def test_every_sub_package_has_its_place_in_the_order():
    for layer, order in ORDER.items():
        there = {
            path.stem for path in (ROOT / layer).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
        }
        assert there - {"__init__"} == set(order), layer


def test_no_modules_import_each_other_in_a_circle():
    try:
        list(TopologicalSorter(edges(*OURS)).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_plan_knows_no_later_step_of_the_pipeline():
    own = {other for other in edges(*OURS)["tasks.plan"] if other.startswith("tasks.")}
    assert own == {"tasks._support.pipeline_task", "tasks._support.states"}


def test_only_what_verifies_imports_verify():
    """Reading a manifest needs none of it."""
    users = {name for name, others in edges(*OURS).items() if "packhouse.trust.verify" in others}
    assert users == {"packhouse.cli.verify", "tasks.night.audit"}


@pytest.mark.parametrize("layer", MOST)
def test_a_folder_shows_few_entries(layer):
    listed = subprocess.run(["git", "ls-files", layer], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    entries = {line.split("/")[1] for line in listed.splitlines()} - {"__init__.py"}
    assert len(entries) <= MOST[layer], sorted(entries)


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
