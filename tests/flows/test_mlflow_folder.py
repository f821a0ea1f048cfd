"""The folder that MLflow gets, without a server: nothing pickled, true pins, and MLflow's own programs answer with it
where neither packhouse nor torch nor a network is."""

from __future__ import annotations

import json
import os
import pickletools
import subprocess
import sys
import urllib.request
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml

from infra.mlflow.pyfunc import loader
from infra.mlflow.pyfunc.folder import REQUIRED, Ids, frame
from infra.worker.context import worker_context
from packhouse.digest import digest_bytes
from packhouse.formats.runtime import as_text
from packhouse.parity.replay import compare, golden_cases
from packhouse.release.lookup import find, read_manifest
from packhouse.release.manifest import GOLDEN, RECORD
from packhouse.spec.model import Format, parse
from tasks.register_mlflow import pyfunc
from tests.servers.place import answers, free_ports, running, wait_until
from tests.support.churn import churn

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

ALONE = """
import os, sys
for name in ("torch", "prefect", "packhouse", "infra", "tasks", "flows"):
    sys.modules[name] = None
def heard(event, arguments):
    away = event in ("socket.connect", "socket.getaddrinfo") and "127.0.0.1" not in str(arguments)
    if away or event == "pickle.find_class":
        with open(os.environ["HEARD"], "a") as log:
            log.write(f"{event} {arguments}\\n")
        raise OSError(f"{event}: not here")
sys.addaudithook(heard)
"""
"""A sitecustomize, so of every Python that is started. An audit hook: what swallows its error is still written down."""


class Made:
    """A release of a table with text, as a folder for MLflow."""

    def __init__(self, place: Path, made_in: Path) -> None:
        self.place, self.made_in = place, made_in
        self.found = find(worker_context().store, "churn@latest")
        self.manifest = read_manifest(self.found, self.found.record)
        self.folder = self.again("m-1")
        inside = self.folder / "artifacts" / "release"
        self.spec = parse((inside / "package.toml").read_bytes())
        self.cases = [case for case in golden_cases(inside / GOLDEN) if case.real]

    def again(self, model: str) -> Path:
        below = self.place / model
        below.mkdir()
        return pyfunc(self.found, below, Ids(model, f"mlflow-artifacts:/0/models/{model}/artifacts"))

    def files(self, folder: Path | None = None) -> dict[str, bytes]:
        top = folder or self.folder
        return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}

    def table(self, case) -> str:
        """The inputs of a golden case in the JSON that MLflow takes."""
        columns, _ = loader.tables(self.spec.model_dump(mode="json"), self.manifest.text)
        rows = frame(columns, as_text(case.inputs, self.manifest.text))
        return json.dumps({"dataframe_split": rows.to_dict(orient="split", index=False)})

    def check(self, case, said: str) -> None:
        """The answer is held to what `packhouse verify` holds the release to."""
        rows = json.loads(said)["predictions"]
        (output,) = self.spec.outputs
        answer = np.array([[row[f"{output.name}[{place}]"] for place in range(len(row))] for row in rows], np.float32)
        (made,) = [each for each in self.manifest.formats if each.format is Format.ONNX]
        assert compare([case], [{output.name: answer}], made.tolerance).refusal == ""


@pytest.fixture
def made(released, released_models, tmp_path) -> Made:
    """With torch's formats, of which MLflow gets none."""
    kind = {"name": "churn", "by": churn, "formats": {"onnx-int8": "off", "torchscript-int8": "off"}}
    released(**kind)
    return Made(tmp_path, released_models.original(**kind).root)


@pytest.fixture
def alone(made, tmp_path, monkeypatch) -> Path:
    """Programs that are started run without packhouse, torch, a pickle or a network. What they tried is in the file."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "sitecustomize.py").write_text(ALONE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "alone"))
    monkeypatch.setenv("HEARD", str(tmp_path / "heard"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "heard"


def is_pickle(data: bytes) -> bool:
    """A whole one, of any protocol, from the first byte."""
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(data))
    except (ValueError, UnicodeDecodeError, IndexError):
        return False


def test_the_folder_holds_no_pickle_true_pins_its_whole_code_and_no_path_of_this_machine(made):
    files = made.files()
    endings = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
    assert not [name for name, data in files.items() if name.endswith(endings) or is_pickle(data)]
    assert not [name for name in files if zipfile.is_zipfile(made.folder / name)], "torch's files are such"

    pins = [f"{name}=={version(name)}" for name in REQUIRED]
    assert files["requirements.txt"].decode().split() == pins
    conda = yaml.safe_load(files["conda.yaml"])["dependencies"]
    python = ".".join(map(str, sys.version_info[:3]))
    assert conda[0] == f"python={python}"
    assert conda[-1] == {"pip": pins}
    environment = yaml.safe_load(files["python_env.yaml"])
    assert environment["python"] == python
    assert environment["dependencies"] == ["-r requirements.txt"]
    builders = [line.partition("==") for line in environment["build_dependencies"]]
    assert [(name, pin) for name, _, pin in builders] == [(name, version(name)) for name, _, _ in builders]

    flavor = yaml.safe_load(files["MLmodel"])["flavors"]["python_function"]
    assert files[flavor["model_code_path"]] == Path(loader.__file__).read_bytes()
    local = [
        str(made.place),
        str(made.made_in),
        str(Path.home()),
        sys.prefix,
        str(Path(loader.__file__).parents[2]),
        "file:///",
    ]
    added = {name: data for name, data in files.items() if not name.startswith("artifacts/release/")}
    assert not [(name, path) for name, data in added.items() for path in local if path.encode() in data]


def test_what_mlflow_adds_is_no_part_of_the_release_and_its_ids_are_in_one_file(made):
    digests = {artifact.name: artifact.digest for artifact in made.manifest.artifacts}
    files, prefix = made.files(), "artifacts/release/"
    inside = {name.removeprefix(prefix): data for name, data in files.items() if name.startswith(prefix)}
    assert digest_bytes(inside.pop("manifest.json")) == made.found.record.manifest
    assert inside.pop(RECORD) == made.found.record_bytes
    assert {name: digest_bytes(data) for name, data in inside.items()} == {name: digests[name] for name in inside}
    added = {name for name in files if not name.startswith(prefix)}
    assert not added & digests.keys()
    other = made.files(made.again("m-2"))
    assert {name for name in files if files[name] != other[name]} == {"MLmodel"}
    assert other.keys() == files.keys()


def test_mlflows_own_programs_answer_the_golden_cases_without_packhouse_torch_pickle_or_network(made, alone, tmp_path):
    load = "import sys, mlflow; print(type(mlflow.pyfunc.load_model(sys.argv[1])).__name__)"
    command = [sys.executable, "-c", load, str(made.folder)]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout == "PyFuncModel\n"

    case, rows = made.cases[0], tmp_path / "rows.json"
    rows.write_text(made.table(case))
    models = [sys.executable, "-m", "mlflow", "models"]
    common = ["-m", str(made.folder), "--env-manager", "local"]
    command = [*models, "predict", *common, "-i", str(rows), "-t", "json", "-o", str(tmp_path / "answer.json")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made.check(case, (tmp_path / "answer.json").read_text())

    (port,) = free_ports(1)
    url, command = f"http://127.0.0.1:{port}", [*models, "serve", *common, "-h", "127.0.0.1", "-p", str(port)]
    with running(command, log=tmp_path / "serve.log") as server:
        wait_until(lambda: answers(f"{url}/ping"), what="mlflow models serve", server=server, timeout_s=180)
        for case in made.cases:
            body = urllib.request.Request(f"{url}/invocations", made.table(case).encode())
            body.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(body, timeout=60) as answer:
                made.check(case, answer.read().decode())
    assert not alone.exists(), alone.read_text()
