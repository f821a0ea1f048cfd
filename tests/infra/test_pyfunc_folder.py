"""What MLflow gets: a folder without a pickle, with true and exact requirements, that says nothing of this machine, and
that MLflow's own command runs offline where nothing of packhouse can be imported."""

from __future__ import annotations

import json
import os
import pickletools
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml

from infra.pyfunc.folder import RELEASE, REQUIRED, Ids, write
from packhouse.digest import digest_file
from packhouse.manifest import GOLDEN, MANIFEST, RECORD
from packhouse.releases import at_prefix
from packhouse.replay import golden_cases
from packhouse.spec import SPEC_FILE
from packhouse.store import FileStore
from packhouse.verify import read_spec
from tests.packhouse.small_release import Small, build

NEEDED = (MANIFEST, RECORD, SPEC_FILE, GOLDEN, "model.onnx")
ALONE = """
import socket, sys
open("alone", "w").close()
for name in ("torch", "prefect", "packhouse", "infra", "tasks", "flows", "boto3"):
    sys.modules[name] = None
_connect = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError("offline")
    return _connect(self, address)
socket.socket.connect = connect
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return build(tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("work"), seed=0)


@pytest.fixture(scope="module")
def folder(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("pyfunc")
    (work / RELEASE).mkdir()
    for name in NEEDED:
        shutil.copy(small.folder / name, work / RELEASE / name)
    spec = read_spec(at_prefix(FileStore(small.folder), ""))
    case = golden_cases(small.folder / GOLDEN)[0]
    about = digest_file(small.folder / MANIFEST)
    write(work / "model", work / RELEASE, spec, small.manifest, case.inputs, Ids(), about)
    return work / "model"


def is_pickle(data: bytes) -> bool:
    """Whether all of it, from its first byte, is a pickle's program."""
    try:
        return sum(1 for _ in pickletools.genops(data)) > 1
    except Exception:  # pickletools has no error of its own
        return False


def test_no_file_is_a_pickle_or_holds_one(folder):
    assert is_pickle(b"\x80\x04]\x94.")
    for path in (each for each in folder.rglob("*") if each.is_file()):
        assert path.suffix not in (".pkl", ".pickle", ".pt", ".pth", ".joblib"), path
        assert not zipfile.is_zipfile(path), path
        assert not is_pickle(path.read_bytes()), path


def test_its_requirements_are_exact_and_true_and_the_same_in_each_file(folder):
    wanted = {f"{name}=={version(name)}" for name in REQUIRED}
    assert set((folder / "requirements.txt").read_text().split()) == wanted
    conda = yaml.safe_load((folder / "conda.yaml").read_text())["dependencies"]
    (pip,) = [each["pip"] for each in conda if isinstance(each, dict)]
    assert wanted <= set(pip)
    python = ".".join(map(str, sys.version_info[:3]))
    environment = yaml.safe_load((folder / "python_env.yaml").read_text())
    assert environment["python"] == python
    assert f"python={python}" in conda
    assert all("==" in each for each in pip)  # what builds an environment is chosen by MLflow


def test_what_mlmodel_names_is_there_and_nothing_says_where_it_was_made(folder, small):
    said = yaml.safe_load((folder / "MLmodel").read_text())
    flavor = said["flavors"]["python_function"]
    assert flavor["loader_module"] == "mlflow.pyfunc.loaders.code_model"
    assert (folder / flavor["model_code_path"]).is_file()
    assert (folder / flavor["artifacts"][RELEASE]["path"]).is_dir()
    for path in (each for each in folder.rglob("*") if each.is_file()):
        data = path.read_bytes()
        assert str(folder.parent).encode() not in data, path
        assert os.uname().nodename.encode() not in data, path
    there = {path.name: digest_file(path) for path in (folder / flavor["artifacts"][RELEASE]["path"]).iterdir()}
    assert there == {name: digest_file(small.folder / name) for name in NEEDED}
    assert "MLmodel" not in {artifact.name for artifact in small.manifest.artifacts}


def test_mlflows_own_command_answers_offline_without_packhouse(folder, small, tmp_path):
    case = golden_cases(small.folder / GOLDEN)[0]
    (tmp_path / "sitecustomize.py").write_text(ALONE)
    (tmp_path / "rows.json").write_text(json.dumps({"inputs": {k: v.tolist() for k, v in case.inputs.items()}}))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "--env-manager", "local", "-t", "json"]
    command += ["-m", str(folder), "-i", "rows.json", "-o", "answers.json"]
    given = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        command, cwd=tmp_path, env=given | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "alone").exists()
    answered = json.loads((tmp_path / "answers.json").read_text())["predictions"]
    rows = (
        answered["y"]
        if isinstance(answered, dict)
        else [each["y"] if isinstance(each, dict) else each for each in answered]
    )
    np.testing.assert_allclose(
        np.array(rows, np.float32).reshape(case.expected["y"].shape), case.expected["y"], rtol=1e-5, atol=1e-6
    )
