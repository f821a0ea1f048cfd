"""A release of a table with text, end to end: raw features go into what was released, without packhouse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flows.release import released as release
from flows.run_result import Status
from packhouse.architectures import registry
from packhouse.formats.runtime import torch_runner
from packhouse.release.lookup import find
from packhouse.spec.model import Format
from packhouse.store import open_store
from packhouse.training.preprocessing import Concatenate, from_sklearn
from packhouse.trust.verify import verify
from packhouse.weights.safetensors_torch import read_torch

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

DRAW = np.random.default_rng(0)
NUMBERS = DRAW.normal([45, 30, 1e3], [14, 9, 250], (80, 3)).astype(np.float32)
PLANS = DRAW.choice(["month", "year", "two years"], 80)
ZONES = DRAW.choice([f"zone {number}" for number in range(10)], 80)
TEXT = np.stack([PLANS, ZONES], axis=1)


def test_a_table_with_text_is_released_and_its_onnx_takes_text_anywhere(home, staged):
    scaler, encoder = StandardScaler().fit(NUMBERS), OneHotEncoder(handle_unknown="ignore").fit(TEXT)
    steps = (*from_sklearn(scaler, "numbers"), *from_sklearn(encoder, "plan", "zone"))
    steps = (*steps, Concatenate(inputs=("numbers", "plan", "zone")))
    inputs = {"numbers": NUMBERS, "plan": PLANS, "zone": ZONES}
    formats = {"onnx-int8": "off", "torchscript-int8": "off"}  # tests/tasks/jobs/test_preprocessing.py makes them
    source = staged("linear", inputs=inputs, preprocessing=steps, formats=formats)
    (end,) = release([source])
    assert end.status is Status.RELEASED, end.reason
    proven = verify(find(open_store(f"file://{home / 'store'}"), "linear@latest"))
    assert {Format.ONNX, Format.TORCHSCRIPT, Format.PROGRAM} <= set(proven.formats)

    (folder,) = (home / "store" / "linear" / "releases").iterdir()
    assert json.loads((folder / "manifest.json").read_bytes())["text"]["plan"] == ["month", "two years", "year"]
    strange = np.array([["decade", "zone 3"], ["year", "nowhere"], ["", ""]])
    numbers = np.concatenate([NUMBERS, NUMBERS[:3]])
    text = np.concatenate([TEXT, strange])
    x = np.concatenate([scaler.transform(numbers), encoder.transform(text).toarray()], axis=1).astype(np.float32)
    np.testing.assert_allclose(answer(folder, numbers, text), trained(folder, x), atol=1e-5)


def answer(folder: Path, numbers: np.ndarray, text: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [entry.type for entry in session.get_inputs()] == ["tensor(float)", "tensor(string)", "tensor(string)"]
    plan, zone = text.astype(object)[:, :1], text.astype(object)[:, 1:]
    return session.run(["y"], {"numbers": numbers, "plan": plan, "zone": zone})[0]


def trained(folder: Path, x: np.ndarray) -> np.ndarray:
    """What the model says to the features as scikit-learn makes them."""
    model = registry.build("test.linear", {}).eval()
    model.load_state_dict(read_torch(folder / "weights.safetensors"))
    return torch_runner(model, ["y"])({"x": x})["y"]
