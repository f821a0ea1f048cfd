"""Release ids: what can change a byte of a release changes its id, and nothing else does."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.worker.release_inputs import DECIDING, NOT_COUNTED, ROOT, counted, fixed_environment
from packhouse.architectures.code_digest import code_digest, imported_names, parsed

PROJECT = ("bench", "flows", "infra", "packhouse", "tasks")
OURS = ("flows", "infra", "packhouse", "tasks")

SPEC = f"""\
schema = 1
[model]
name = "churn"
[architecture]
name = "{{architecture}}"
[axes]
batch = {{{{ min = 1, max = 64 }}}}
[[inputs]]
name = "x"
dtype = "float32"
shape = ["batch", 3]
[[outputs]]
name = "y"
shape = ["batch", 2]
[weights]
file = "{{weights}}"
sha256 = "{"a" * 64}"
size = 1234
[samples]
file = "samples.safetensors"
sha256 = "{"b" * 64}"
size = 99
"""
SPECS = (
    SPEC.format(architecture="test.linear", weights="weights.safetensors"),
    SPEC.format(architecture="transformers", weights="weights.safetensors"),
    SPEC.format(architecture="program", weights="weights.pt2"),
)
"""For an installed package's architecture, and for both of packhouse's own."""

IDS = """
import json, sys
from infra.worker.release_inputs import release_inputs
from packhouse.spec.model import parse

print(json.dumps([release_inputs(parse(spec.encode()), "sha256:" + "0" * 64).release_id for spec in sys.argv[1:]]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's own Python files."""
    for package in PROJECT:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def release_ids(root: Path) -> list[str]:
    """As a fresh process computes them whose code lies under `root`."""
    done = subprocess.run([sys.executable, "-c", IDS, *SPECS], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ids: list[str] = json.loads(done.stdout)
    return ids


def digest(root: Path) -> str:
    return code_digest(counted(root))


def source(root: Path, name: str) -> Path:
    """The file of a module, by its dotted name."""
    place = root.joinpath(*name.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def modules(root: Path, *packages: str) -> dict[str, Path]:
    paths = {path for package in packages for path in (root / package).rglob("*.py")}
    named = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def with_comments(text: str) -> str:
    """The same code, with a comment before each statement, and a docstring in each place that may have one."""
    tree, lines = ast.parse(text), text.splitlines(keepends=True)
    added: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and lines[node.lineno - 1][: node.col_offset].isspace() | (node.col_offset == 0):
            added[node.lineno] = " " * node.col_offset + "# a comment\n"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node) is None:
            first = min([node.body[0].lineno, *(d.lineno for d in getattr(node.body[0], "decorator_list", []))])
            if first in added and first > node.lineno:
                added[first] = " " * node.body[0].col_offset + '"""A docstring."""\n' + added[first]
    inside = "".join(added.get(number, "") + line for number, line in enumerate(lines, 1))
    docstring = ast.get_docstring(tree)
    return "# the first line\n" + ('"""A module."""\n' if docstring is None else "") + inside + "# the last line"


def without_bodies(text: str) -> str:
    """The same names, and other code in every function."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = ast.parse("raise AssertionError('changed')").body
    return ast.unparse(tree)


def test_a_comment_or_a_docstring_in_any_file_changes_no_id(project):
    before = release_ids(project)
    for path in modules(project, *PROJECT).values():
        text = path.read_text()
        changed = with_comments(text)
        assert text.strip() == "" or changed.count("\n") > text.count("\n") + 1
        path.write_text(changed)
    assert release_ids(project) == before
    assert digest(project) == digest(ROOT)


AREAS = {
    "trust": r"packhouse\.trust\.\w+|infra\.worker\.signer",
    "channels": r"packhouse\.release\.(channels|lookup)|tasks\.(commit|signing\.\w+|images\.tag_image)",
    "report": r"packhouse\.report\.\w+|tasks\.report",
    "cli": r"packhouse\.(cli\.\w+|exit_status|__main__)",
    "store": r"packhouse\.store(\..*)?|tasks\.(publish|fetch)",
    "serving": r"packhouse\.serving(\..*)?|infra\.images\.canary.*",
    "consumers": r"packhouse\.(consume\.\w+|formats\.processors)",
    "training": r"packhouse\.training\.\w+",
    "registries": r"infra\.(registry|mlflow|images)\..*|tasks\.(images\.(build|attach).*|register_mlflow)",
    "flows": r"flows(\..*)?",
    "sandbox": r"infra\.sandbox\.(client|child|server|lockdown|landlock|seccomp)",
}
"""Where bytes are carried, signed, shown or used."""


@pytest.mark.parametrize("area", AREAS)
def test_other_functions_where_no_byte_passes_through_change_no_id(project, area):
    before = digest(project)
    changed = {name: path for name, path in modules(project, *OURS).items() if re.fullmatch(AREAS[area], name)}
    assert len(changed) > 2
    for path in changed.values():
        path.write_text(without_bodies(path.read_text()))
    assert digest(project) == before
    assert not changed.keys() & counted().keys()


def test_another_colour_changes_no_id(project):
    page = project / "packhouse" / "report" / "html.py"
    text = page.read_text()
    page.write_text(text.replace("#2a6fdb", "#2a6fdc").replace("Ink(2)", "Ink(1)"))
    assert page.read_text() != text
    assert digest(project) == digest(ROOT)


@pytest.mark.parametrize(
    "module, old, new",
    [
        ("packhouse.parity.judge", '"float32": 1e-5', '"float32": 2e-5'),
        ("packhouse.parity.rounding", "QUIET_SCALE = 2.0", "QUIET_SCALE = 2.1"),
        ("packhouse.parity.probes", "LARGE = 100.0", "LARGE = 1000.0"),
        ("packhouse.parity.replay", "INT8_MARGIN_DB = 6.0", "INT8_MARGIN_DB = 6.5"),
        ("packhouse.release.sbom", '"specVersion": "1.6"', '"specVersion": "1.7"'),
        ("packhouse.release.parts", "MAX_DOCUMENT_BYTES = 16", "MAX_DOCUMENT_BYTES = 17"),
        ("tasks.jobs.export_onnx", "dynamo=True", "dynamo=False"),
        ("tasks.jobs.parity_cuda", '"use_tf32": "0"', '"use_tf32": "1"'),
        ("tasks.measure", "speed < least", "speed <= least"),
        ("tasks.export", '"next": ""', '"next": "x"'),
    ],
)
def test_another_constant_in_a_judge_a_probe_or_an_exporter_changes_the_id(project, module, old, new):
    path = source(project, module)
    assert old in path.read_text(), f"{module} no longer has {old}"
    path.write_text(path.read_text().replace(old, new, 1))
    assert digest(project) != digest(ROOT)


def test_a_release_s_id_follows_the_code(project):
    before = release_ids(project)
    path = project / "packhouse" / "parity" / "replay.py"
    path.write_text(path.read_text().replace("INT8_MARGIN_DB = 6.0", "INT8_MARGIN_DB = 6.5"))
    assert not set(before) & set(release_ids(project))


def test_the_code_of_packhouse_s_own_builder_counts_for_its_models_alone(project):
    before = release_ids(project)
    path = project / "packhouse" / "architectures" / "transformers.py"
    path.write_text(path.read_text().replace('CONFIG_FILE = "config.json"', 'CONFIG_FILE = "config.jso"'))
    linear, pretrained, program = release_ids(project)
    assert (linear, program) == (before[0], before[2])
    assert pretrained != before[1]


def own_modules_after_importing(root: Path, names: list[str]) -> set[str]:
    """All of our modules that a fresh interpreter has, once it has imported these."""
    program = (
        f"import importlib, json, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in sys.modules if name.split('.')[0] in {OURS!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def not_counted(root: Path, jobs: list[str]) -> set[str]:
    """What the jobs import, and no id knows of."""
    return own_modules_after_importing(root, jobs) - counted(root).keys() - NOT_COUNTED


def test_all_that_jobs_import_is_counted():
    assert not_counted(ROOT, list(modules(ROOT, "tasks/jobs"))) == set()


def test_a_job_that_imports_what_is_not_counted_would_be_seen(project):
    path = project / "tasks" / "jobs" / "golden.py"
    path.write_text(path.read_text() + "\nfrom infra.sandbox.request import Limits\n")
    assert not_counted(project, ["tasks.jobs.golden"]) == {"infra", "infra.sandbox", "infra.sandbox.request"}


def test_nothing_that_counts_imports_by_a_name_that_the_source_does_not_show():
    """Else the walk over the sources would miss a module. An entry point's `load` is the architecture's own digest."""
    dynamic = {"import_module", "__import__", "run_module", "run_path", "exec", "eval", "__doc__", "getsource"}
    for name in counted():
        tree = parsed(source(ROOT, name).read_bytes())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr != "eval"}
        assert not names & dynamic, name


def test_importing_packhouse_runs_none_of_our_code_and_nothing_that_counts_takes_a_public_name_from_it():
    assert own_modules_after_importing(ROOT, ["packhouse"]) == {"packhouse"}
    known = modules(ROOT, "packhouse").keys()
    for name in counted():
        taken = set(imported_names(parsed(source(ROOT, name).read_bytes()), "packhouse"))
        public = {each for each in taken if each.count(".") == 1 and each.startswith("packhouse.")}
        assert not public - known - {"packhouse.__version__"}, name  # it only refuses a spec that needs a later one


def test_what_decides_imports_what_counts_or_what_is_named_as_not_counting():
    for name in (f"tasks.{each}" for each in DECIDING):
        known = modules(ROOT, "packhouse", "tasks").keys()
        taken = set(imported_names(parsed(source(ROOT, name).read_bytes()), "tasks")) & known
        assert taken <= counted().keys() | NOT_COUNTED | {"packhouse"}, name


def interpreter(version: str) -> str:
    """One of this version, which may have none of our libraries."""
    shims = [Path.home() / ".pyenv" / "versions"]
    found = [shutil.which(f"python{version}"), *(str(p) for s in shims for p in s.glob(f"{version}.*/bin/python3"))]
    for path in filter(None, found):
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.startswith(f"Python {version}."):
            return path
    pytest.skip(f"no Python {version} on this machine: the digest was not compared with its own")


ASKED = """
import json, sys
sys.path.insert(0, sys.argv[1])
from packhouse.architectures.code_digest import module_digests
starts, packages, ends = json.loads(sys.argv[2])
print(json.dumps(dict(module_digests(__import__("pathlib").Path(sys.argv[1]), starts, packages=packages, ends=ends))))
"""


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_versions_of_python_agree_about_every_module(version):
    every = sorted(modules(ROOT, *OURS))
    asked = json.dumps([every, list(OURS), []])
    done = subprocess.run(
        [interpreter(version), "-I", "-B", "-c", ASKED, str(ROOT), asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert counted().items() <= found.items()


def test_a_job_sees_the_environment_that_the_id_names(sandbox, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    me = sandbox.run("tests.support.sandbox_jobs:about_me", {}, workdir=tmp_path).document["environment"]
    threads = sandbox.run("tests.support.sandbox_jobs:warmth", {}, workdir=tmp_path).document["torch_threads"]
    seen = me | {"torch.num_threads": str(threads)}
    fixed = fixed_environment()
    assert {name: seen[name] for name in fixed} == fixed
    assert not [value for value in fixed.values() if "/" in value]
    passed_on = {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH"}
    assert me.keys() - fixed.keys() - passed_on == {"HOME", "PYTHONPATH", "TMPDIR"}
