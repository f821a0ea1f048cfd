"""The wheel: what it holds, that releases are named as in a clone, and what it says where an extra is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from infra.images.builders import server_code
from tests.infra.worker.test_release_inputs import SPECS
from tests.support.environments import OFFLINE, ROOT, copy_clone, pip, tracked

pytestmark = pytest.mark.slow
WORKER = "packhouse/_worker/"
CARRIED = (
    "prefect.yaml",
    "flows",
    "tasks",
    "infra",
    "examples/demo.py",
    "examples/train.py",
    "examples/pyproject.toml",
)
METADATA = {f"{WORKER}examples/packhouse_examples.egg-info/{name}" for name in ("PKG-INFO", "entry_points.txt")}

IDS = """
import json, sys
import packhouse
from infra.images.builders import server_code
from infra.worker.release_inputs import release_inputs
from packhouse.spec.model import parse

ids = [release_inputs(parse(spec.encode()), "sha256:" + "0" * 64).release_id for spec in sys.argv[1:]]
print(json.dumps({"at": packhouse.__file__, "ids": ids, "server": server_code()}))
"""


def names(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_packhouse_and_the_workers_code_and_no_other_file(wheel):
    worker = {f"{WORKER}{name}" for name in tracked(*CARRIED, "examples/packhouse_examples")}
    assert names(wheel) == {*tracked("packhouse"), *worker, *METADATA}


def test_it_tells_type_checkers_that_it_has_types(wheel):
    assert "packhouse/py.typed" in names(wheel)


def test_a_source_distribution_makes_the_same_wheel(wheel, tmp_path):
    copy_clone(tmp_path / "clone")
    build = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "clone", check=True, capture_output=True)
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path / "dist"), str(unpacked))
    (made,) = (tmp_path / "dist").glob("*.whl")
    with ZipFile(made) as ours, ZipFile(wheel) as theirs:
        assert {name: ours.read(name) for name in names(made)} == {name: theirs.read(name) for name in names(wheel)}


def test_an_old_build_folder_leaves_nothing_in_the_wheel(wheel, tmp_path):
    copy_clone(tmp_path / "clone")
    gone = tmp_path / "clone" / "build" / "lib" / WORKER / "tasks" / "gone.py"
    gone.parent.mkdir(parents=True)
    gone.write_text("")
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path / "dist"), str(tmp_path / "clone"))
    (made,) = (tmp_path / "dist").glob("*.whl")
    assert names(made) == names(wheel)


def test_an_editable_install_takes_the_workers_code_from_the_clone(tmp_path):
    clone, venv = tmp_path / "clone", tmp_path / "venv"
    copy_clone(clone)
    before = {path.relative_to(clone) for path in clone.rglob("*.py")}
    target = ["--python", str(venv / "bin" / "python")]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    environment = os.environ | OFFLINE | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "pip", *target, "install", "--quiet", "--no-deps", "--editable", str(clone)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.relative_to(clone) for path in clone.rglob("*.py")} == before


def seen(python: Path, *path: Path, cwd: Path) -> dict[str, object]:
    """Release ids and the server's digest, as a process computes them that finds its code on `path`."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": os.pathsep.join(map(str, path))}
    specs = [SPECS[0].replace("test.linear", "examples.tabular"), SPECS[2]]
    command = [str(python), "-P", "-c", IDS, *specs]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_release_has_the_same_id_from_the_wheel_as_from_a_clone(installed, tmp_path):
    python, examples = installed.folder / "bin" / "python", installed.packages / WORKER / "examples"
    wheel = seen(python, installed.packages / WORKER, examples, cwd=tmp_path)
    clone = seen(python, ROOT, examples, cwd=tmp_path)
    assert wheel.pop("at") == str(installed.packages / "packhouse" / "__init__.py")
    assert clone.pop("at") == str(ROOT / "packhouse" / "__init__.py")
    assert wheel == clone
    assert wheel["server"] == server_code()


@pytest.mark.parametrize(
    "arguments, extra",
    [
        (["release", "sources/churn"], "worker"),
        (["demo"], "worker"),
        (["sign", "churn@latest"], "worker"),
        (["deploy", "--kind", "process"], "worker"),
        (["serve", "churn"], "serving"),
        (["keys", "keys"], "trust"),
        (["ls", "--store", "s3://models/releases"], "s3"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else each,
)
def test_a_command_whose_extra_is_missing_is_wrong_usage_and_says_what_to_install(bare, tmp_path, arguments, extra):
    done = bare.run("packhouse", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("refused: ")
    assert f"pip install 'packhouse[{extra}]'" in line
    assert list(tmp_path.iterdir()) == []


def test_in_a_clone_too_a_missing_extra_is_wrong_usage(bare):
    done = bare.run("packhouse", "release", "sources/churn", cwd=ROOT, PACKHOUSE_WORKER=str(ROOT))
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.endswith("pip install 'packhouse[worker]' (PH-0681)\n")


def test_whether_a_channel_can_be_signed_here_is_known_before_it_moves(bare, tmp_path):
    key = tmp_path / "signing.pem"
    key.write_text("not read before the extra is asked for")
    asked = "from packhouse.cli.sign import signing_here; signing_here()"
    done = bare.run("python", "-c", asked, cwd=tmp_path, PACKHOUSE_SIGNING_KEY=str(key))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "packhouse.errors.NotInstalled: this command needs the extra 'worker'"
    )
