"""One model through Triton Model Navigator: `python -m bench.peers.with_navigator GIVEN OUT FAULT ...`.

Its strictest: the correctness command, a verify_func, which compares with the model's own fp32 answers (Navigator's
reference for it is always autocast to bfloat16, whatever the settings say), and autocast off for the rest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.peers.answer import Answer, main
from bench.peers.given import OUTPUT, Given

ATOL, RTOL = 1e-5, 1e-4
ROWS, BATCHES = 8, 8


def work(given: Given, out: Path) -> Answer:
    import model_navigator as nav

    module, samples = given.module(), given.samples()
    batches = [
        tuple(torch.from_numpy(rows[place * ROWS : (place + 1) * ROWS]) for rows in samples.values())
        for place in range(BATCHES)
    ]
    loader = [batch[0] if len(batch) == 1 else batch for batch in batches]
    expected = [module(*batch).numpy() for batch in batches]

    def verified(answers: Any, _: Any) -> bool:
        got = [np.asarray(next(iter(answer.values()))) for answer in answers]
        return all(np.allclose(*pair, rtol=RTOL, atol=ATOL) for pair in zip(got, expected, strict=True))

    profile = nav.OptimizationProfile(
        max_batch_size=ROWS, window_size=5, min_trials=1, max_trials=2, stabilization_windows=1
    )
    package = nav.torch.optimize(
        model=module,
        dataloader=loader,
        input_names=tuple(samples),
        output_names=(OUTPUT,),
        target_formats=(nav.Format.TORCHSCRIPT, nav.Format.ONNX),
        target_device=nav.DeviceKind.CPU,
        runners=("OnnxCPU", "TorchScriptCPU", "TorchCPU"),
        verify_func=verified,
        custom_configs=[
            nav.TorchConfig(autocast=False),
            nav.TorchScriptConfig(autocast=False),
            nav.OnnxConfig(custom_args={"dynamo": False}),  # as it was written for; torch's new default fixes its batch
        ],
        optimization_profile=profile,
        workspace=out / "workspace",
    )
    nav.package.save(package, out / "package.nav")
    return _answer(package, out)


def _answer(package: Any, out: Path) -> Answer:
    """Left: the ONNX file lies in the package, and Navigator's own choice among what may serve can be the file."""
    from model_navigator.exceptions import ModelNavigatorRuntimeAnalyzerError

    status = package.status.models_status["onnx"]
    try:
        package.get_best_runtime(include_source=False)
    except ModelNavigatorRuntimeAnalyzerError as error:
        return Answer(refused=f"{error} {_failed(status)}")
    file = package.workspace.path / status.model_config.path
    return Answer(warned=_failed(status), files={"onnx": str(file), "package": str(out / "package.nav")})


def _failed(status: Any) -> str:
    """The commands that say FAIL of the ONNX model."""
    states = [*status.status.items()]
    for runner in status.runners_status.values():
        states += runner.status.items()
    return ", ".join(sorted({name for name, state in states if state.value == "FAIL"}))


if __name__ == "__main__":
    os.environ["NAVIGATOR_USE_MULTIPROCESSING"] = "False"
    sys.modules["orjson"] = None  # type: ignore[assignment]  # jsonlines prefers it; it can not read Navigator's NaN
    main(work, "model_navigator", sys.argv[1:])
