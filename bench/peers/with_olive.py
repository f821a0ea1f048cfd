"""One model through Olive: `python -m bench.peers.with_olive [static] GIVEN OUT FAULT ...`.

Its strictest: OnnxDiscrepancyCheck, which sees causal language models of the transformers library only, at 1e-5. For
other models there is no comparison to turn on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from bench.peers.answer import Answer, main
from bench.peers.given import CAUSAL, OUTPUT, Given

MAX_ABSOLUTE_ERROR, OPSET = 1e-5, 20
STATIC = "static"
SCRIPT = """
from pathlib import Path
import torch
from bench.peers.given import Given
from olive.data.registry import Registry

GIVEN = Given(Path({folder!r}))

def load(*_):
    return GIVEN.module()

@Registry.register_dataset()
def calibration(**_):
    return [({{name: torch.from_numpy(row[0]) for name, row in rows.items()}}, 0) for rows in GIVEN.calibration()]
"""


def work(given: Given, out: Path) -> Answer:
    return _work(given, out, static=False)


def static(given: Given, out: Path) -> Answer:
    return _work(given, out, static=True)


def _work(given: Given, out: Path, *, static: bool) -> Answer:
    from olive.workflows import run

    script = out / "script.py"
    script.write_text(SCRIPT.format(folder=str(given.folder)))
    config = _causal(given) if given.kind == CAUSAL else _plain(given, script, static=static)
    places = {"output_dir": str(out / "output"), "cache_dir": str(out / "cache")}
    answer = run(config | places | {"evaluate_input_model": False, "log_severity_level": 1})
    if not answer.has_output_model():
        return Answer(refused="no output model")
    made = sorted((out / "cache").rglob("model.onnx"), key=lambda path: path.stat().st_mtime)
    return Answer(files={"onnx": str(made[0]), "int8": str(out / "output/model.onnx")})


def _causal(given: Given) -> dict[str, Any]:
    model = {"type": "HfModel", "model_path": str(given.text), "task": "text-generation"}
    convert = {"type": "OnnxConversion", "target_opset": OPSET, "use_dynamo_exporter": True}
    check = {"type": "OnnxDiscrepancyCheck", "reference_model_path": str(given.text), "max_mae": MAX_ABSOLUTE_ERROR}
    return {"input_model": model, "passes": {"convert": convert, "check": check}}


def _plain(given: Given, script: Path, *, static: bool) -> dict[str, Any]:
    samples = given.samples()
    io = {
        "input_names": list(samples),
        "input_shapes": [[2, *rows.shape[1:]] for rows in samples.values()],
        "input_types": [str(rows.dtype) for rows in samples.values()],
        "output_names": [OUTPUT],
        "dynamic_axes": {name: {"0": "batch"} for name in (*samples, OUTPUT)},
    }
    model = {"type": "PyTorchModel", "model_loader": "load", "model_script": str(script), "io_config": io}
    int8: dict[str, Any] = {"type": "OnnxDynamicQuantization"}
    data = {"name": "rows", "user_script": str(script), "load_dataset_config": {"type": "calibration"}}
    if static:
        int8 = {"type": "OnnxStaticQuantization", "data_config": "rows", "per_channel": True}
        int8 |= {"activation_type": "uint8"}  # the pairing that is fast on x86
    convert = {"type": "OnnxConversion", "target_opset": OPSET}
    return {"input_model": model, "data_configs": [data], "passes": {"convert": convert, "int8": int8}}


if __name__ == "__main__":
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    if sys.argv[1] == STATIC:
        main(static, "olive.workflows", sys.argv[2:])
    else:
        main(work, "olive.workflows", sys.argv[1:])
