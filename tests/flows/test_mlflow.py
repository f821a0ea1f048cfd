"""A release in a real MLflow: one version, an alias that follows the channel, and answers without a pickle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from flows.__main__ import _without_work
from flows.audit import audit
from flows.nightly import nightly
from flows.release import released as release
from flows.run_result import Status
from infra.mlflow.models import MODEL, RELEASE
from infra.mlflow.pyfunc.folder import ROWS
from infra.mlflow.tracking import SOURCE
from infra.settings import settings
from packhouse.errors import Unavailable
from packhouse.formats.processors import has_vnni
from packhouse.parity.judge import Case
from packhouse.parity.replay import compare, golden_cases
from packhouse.release.lookup import find, read_manifest
from packhouse.release.manifest import GOLDEN, Processors, Release
from packhouse.spec.model import Format
from packhouse.store import open_store
from tasks.register_mlflow import registered
from tests.servers.place import free_ports
from tests.support.churn import churn
from tests.support.encoder import staged_encoder
from tests.support.staged import ONNX_ONLY

pytestmark = [pytest.mark.flow, pytest.mark.server, pytest.mark.usefixtures("api")]


@pytest.fixture
def mlflow_of_ours(home, mlflow_server, monkeypatch):
    monkeypatch.setenv("PACKHOUSE_MLFLOW_URI", mlflow_server)
    settings.cache_clear()
    from mlflow import MlflowClient

    yield MlflowClient(mlflow_server)
    settings.cache_clear()


@pytest.fixture
def load_model(mlflow_server, monkeypatch):
    """MLflow's function, which takes no server's URL."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    from mlflow.pyfunc import load_model

    return load_model


@contextmanager
def register_all() -> Iterator[None]:
    """From here on the worker registers every release, with [mlflow] in its spec or without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKHOUSE_MLFLOW_REGISTER", "true")
        settings.cache_clear()
        yield
    settings.cache_clear()


LOAD = """
import json, sys
pickles = []
sys.addaudithook(lambda event, _: pickles.append(event) if event.startswith("pickle.") else None)
import mlflow, numpy as np, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = pd.DataFrame(json.loads(sys.argv[2]))
answer = model.predict(rows)
print(json.dumps({"pickles": len(pickles), "frame": isinstance(answer, pd.DataFrame), "columns": list(answer.columns),
                  "values": answer.to_numpy().tolist(), "packhouse": "packhouse" in sys.modules}))
"""


def test_a_release_becomes_one_version_whose_alias_follows_and_which_answers_a_table_without_a_pickle(
    mlflow_of_ours, mlflow_server, staged, home, tmp_path
):
    source = churn(staged, "churn-table", mlflow="churn-table")
    run = mlflow_of_ours.create_run("0", tags={SOURCE: source}).info.run_id
    (end,) = release([source])
    assert end.status is Status.RELEASED, end.reason
    version = mlflow_of_ours.get_model_version_by_alias("churn-table", "channel-latest")
    assert version.tags[RELEASE] == f"churn-table/{end.release}"
    assert version.run_id == run
    assert mlflow_of_ours.get_run(run).data.tags[RELEASE] == f"churn-table/{end.release}"

    assert release([source])[0].status is Status.UNCHANGED
    assert release([source], "production")[0].status is Status.RELEASED
    assert len(mlflow_of_ours.search_model_versions("name='churn-table'")) == 1
    assert mlflow_of_ours.get_model_version_by_alias("churn-table", "production").version == version.version

    rows = {"age": [41.0, 30.5], "months": [3, 12], "spend": [120.5, 900.0]}
    rows |= {"plan": ["year", "decade"], "zone": ["zone 3", "zone 1"]}
    environment = os.environ | {"MLFLOW_TRACKING_URI": mlflow_server, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    rows |= {"months": [3.0, 12.0]}
    command = [sys.executable, "-c", LOAD, "models:/churn-table@channel-latest", json.dumps(rows)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["pickles"], found["frame"], found["packhouse"]) == (0, True, False)
    (folder,) = (home / "store" / "churn-table" / "releases").iterdir()
    np.testing.assert_allclose(found["values"], asked(folder, rows), rtol=1e-6)


def asked(folder: Path, rows: dict[str, list]) -> np.ndarray:
    """What the released ONNX says by itself."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    numbers = np.array([rows[name] for name in ("age", "months", "spend")], np.float32).T
    text = {name: np.array(rows[name], object)[:, None] for name in ("plan", "zone")}
    return session.run(None, {"numbers": numbers, **text})[0]


def test_a_run_that_died_is_completed_and_a_deleted_version_comes_back(mlflow_of_ours, staged):
    """It died before the alias; or before it saw that another run had made a version of the same release."""
    source = staged("linear", "killed", mlflow="killed")
    (end,) = release([source])
    assert end.status is Status.RELEASED, end.reason
    mlflow_of_ours.delete_registered_model_alias("killed", "channel-latest")
    assert release([source])[0].status is Status.UNCHANGED
    kept = mlflow_of_ours.get_model_version_by_alias("killed", "channel-latest")
    first = kept.version
    made = kept.source.removeprefix("models:/")
    twin = mlflow_of_ours.create_model_version("killed", kept.source, tags=kept.tags, model_id=made).version
    mlflow_of_ours.set_registered_model_alias("killed", "somebodys", twin)
    assert release([source])[0].status is Status.UNCHANGED
    assert [each.version for each in mlflow_of_ours.search_model_versions("name='killed'")] == [first]
    assert mlflow_of_ours.get_model_version_by_alias("killed", "somebodys").version == first
    mlflow_of_ours.delete_registered_model_alias("killed", "channel-latest")
    assert _without_work(source, "latest").status is Status.UNCHANGED, "nor does the command leave it"
    assert mlflow_of_ours.get_model_version_by_alias("killed", "channel-latest").version == first
    mlflow_of_ours.delete_registered_model_alias("killed", "channel-latest")
    night = nightly([str(Path(source.removeprefix("file://")).parent)], return_state=True)
    assert night.name == "Unchanged", night.message
    assert mlflow_of_ours.get_model_version_by_alias("killed", "channel-latest").version == first
    mlflow_of_ours.delete_model_version("killed", first)
    state = audit(["killed"], return_state=True)
    assert state.name == "Verified", state.message
    assert "killed@latest mended: version 3 of killed, alias killed@channel-latest on version 3" in state.message
    assert mlflow_of_ours.get_model_version_by_alias("killed", "channel-latest").version == "3"
    assert "mended" not in audit(["killed"], return_state=True).message


def test_where_mlflow_is_away_the_release_stands_the_run_says_so_and_the_next_one_registers(
    mlflow_of_ours, mlflow_server, staged, monkeypatch, home
):
    source = staged("linear", "away", mlflow="away")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("PACKHOUSE_MLFLOW_URI", f"http://127.0.0.1:{free_ports(1)[0]}")
    settings.cache_clear()
    (end,) = release([source])
    assert end.status is Status.UNAVAILABLE
    assert "is released, and not registered in MLflow" in end.reason
    assert (home / "store" / "away" / "channels" / "latest.json").is_file()
    monkeypatch.setenv("PACKHOUSE_MLFLOW_URI", mlflow_server)
    settings.cache_clear()
    assert release([source])[0].status is Status.UNCHANGED
    assert mlflow_of_ours.get_model_version_by_alias("away", "channel-latest").tags[MODEL] == "away"


def test_runs_that_register_one_release_at_once_leave_one_version_that_the_alias_points_at_and_that_answers(
    mlflow_of_ours, load_model, released, home
):
    """As runs do it: what MLflow's database can not take at once, with SQLite, is asked again."""
    made = released("linear", "crowd")
    (threads, start) = (6, threading.Barrier(6))

    def one(_: int) -> tuple[str, ...]:
        start.wait()
        while True:
            with suppress(Unavailable):
                return registered("crowd", made.release, "latest")

    with register_all(), ThreadPoolExecutor(threads) as pool:
        said = [words for done in pool.map(one, range(threads)) for words in done]
    assert any("deleted" in words for words in said), said
    (version,) = mlflow_of_ours.search_model_versions("name='crowd'")
    assert mlflow_of_ours.get_model_version_by_alias("crowd", "channel-latest").version == version.version
    (logged,) = mlflow_of_ours.search_logged_models([made_in(mlflow_of_ours)], "tags.`packhouse.model` = 'crowd'")
    assert version.source == f"models:/{logged.model_id}"
    formats, cases = golden_of(home, "crowd")
    model = load_model("models:/crowd@channel-latest", model_config={"format": "onnx"})
    answers = [model.predict(case.inputs["x"]) for case in cases]  # an only input needs no name
    assert compare(cases, answers, formats[Format.ONNX].tolerance).refusal == ""


def test_a_model_of_several_tensors_answers_the_golden_cases_in_fp32_and_in_int8(
    mlflow_of_ours, load_model, tmp_path, home
):
    """Loaded back from MLflow, and held to what `packhouse verify` holds the release to."""
    encoder = staged_encoder(tmp_path / "encoder", formats=ONNX_ONLY | {"onnx-int8": "optional"})
    with register_all():
        (end,) = release([encoder])
    assert end.status is Status.RELEASED, end.reason
    formats, cases = golden_of(home, "encoder")
    fp32, int8 = formats[Format.ONNX], formats[Format.ONNX_INT8]
    best = int8 if int8.processors is Processors.ANY or has_vnni() else fp32
    for config, made in (({}, best), ({"format": "onnx"}, fp32)):
        model = load_model("models:/encoder@channel-latest", model_config=config)
        assert model.unwrap_python_model().format == made.format, config
        answers = [model.predict(dict(case.inputs)) for case in cases]
        assert compare(cases, answers, made.tolerance).refusal == ""
    assert model.metadata.get_input_schema().input_names() == ["input_ids", "attention_mask"]
    real = next(case for case in cases if case.real)
    first = model.predict({name: rows[:ROWS] for name, rows in real.inputs.items()})
    np.testing.assert_array_equal(model.predict(model.input_example)["hidden"], first["hidden"])


def test_on_postgresql_and_s3_a_release_is_registered_its_alias_set_and_the_model_loaded_by_it(
    mlflow_on_postgres_and_s3, moto_server, monkeypatch, staged, home
):
    """The worker and the reader know the server's URL, and nothing of the database, S3 or its keys."""
    monkeypatch.setenv("PACKHOUSE_MLFLOW_URI", mlflow_on_postgres_and_s3)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_on_postgres_and_s3)
    settings.cache_clear()
    source = staged("linear", "far", mlflow="far")
    (end,) = release([source], "production")
    assert end.status is Status.RELEASED, end.reason
    import mlflow

    version = mlflow.MlflowClient().get_model_version_by_alias("far", "production")
    assert version.tags[RELEASE] == f"far/{end.release}"
    stored = moto_server.client().list_objects_v2(Bucket="mlflow", Prefix="artifacts/")["Contents"]
    assert [each["Key"] for each in stored if each["Key"].endswith("/artifacts/release/model.onnx")]
    made, cases = golden_of(home, "far", "production")
    model = mlflow.pyfunc.load_model("models:/far@production", model_config={"format": "onnx"})
    answers = [model.predict(dict(case.inputs)) for case in cases]
    assert compare(cases, answers, made[Format.ONNX].tolerance).refusal == ""
    assert release([source], "production")[0].status is Status.UNCHANGED
    assert [each.version for each in mlflow.MlflowClient().search_model_versions("name='far'")] == [version.version]


def golden_of(home: Path, model: str, channel: str = "latest") -> tuple[dict[Format, Release], tuple[Case, ...]]:
    found = find(open_store(str(home / "store")), f"{model}@{channel}")
    manifest = read_manifest(found, found.record)
    cases = golden_cases(home / "store" / model / "releases" / manifest.release / GOLDEN)
    return {made.format: made for made in manifest.formats}, cases


def made_in(client) -> str:
    return client.get_experiment_by_name("packhouse").experiment_id


def test_a_registered_model_of_others_is_not_taken_over(mlflow_of_ours, staged):
    mlflow_of_ours.create_registered_model("theirs")
    (end,) = release([staged("linear", "ours", mlflow="theirs")])
    assert end.status is Status.REFUSED
    assert "is not this model's" in end.reason
    assert not mlflow_of_ours.search_model_versions("name='theirs'")
