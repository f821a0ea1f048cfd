"""Runs a model and its formats on a GPU, every probe twice, and holds the answers to the CPU judge's yardstick."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from packhouse.artifact import Outcome
from packhouse.errors import PackhouseError
from packhouse.formats.arrays import Outputs
from packhouse.formats.runtime import Runner, Vocabularies, onnx_runner, torch_runner
from packhouse.parity.golden_file import read_cases
from packhouse.parity.judge import Case, Judgement, judge
from packhouse.parity.replay import as_judged, fp32_tolerance
from packhouse.spec.model import Format, Spec
from tasks.jobs.exporters import brief
from tasks.jobs.model import load, read_spec

PINNED = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NVIDIA_TF32_OVERRIDE": "0"}
"""Read by NVIDIA's libraries when they start, so before anything touches the device; whoever loaded them."""

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
    "cpu": ("CPUExecutionProvider", {}),
}
PASSES = 2
OUT_OF_MEMORY = ("out of memory", "Failed to allocate memory")

Finding = dict[str, str]


class NotRun(Exception):
    """The worker's fault and not the model's. The text is the reason."""


def look(*, device: str = "cuda") -> dict[str, Any]:
    """{"missing": why the device can not be used or "", "notes": its name, the versions, the settings}."""
    _pin()
    try:
        missing = _missing(device)
    except Exception as error:  # a driver that does not fit has many ways to say so
        missing = f"CUDA does not start on this worker: {brief(error)}"
    return {"missing": missing, "notes": [] if missing else _facts(device)}


def run(*, spec: str, cases: str, formats: dict[str, str], device: str = "cuda") -> dict[str, Any]:
    """formats: subject -> file, in turn; "torch" is the trained model itself, whose file is its weights.

    Returns {"found": {subject: {"runs": finding, "reproduces": finding}}, "notes": [...]}, where a finding is
    {"outcome", "reason"}.
    """
    _pin()
    parsed, asked, notes = read_spec(spec), read_cases(Path(cases)), list[str]()
    found = {}
    for subject, path in formats.items():
        try:
            runner = _open(parsed, subject, path, device, asked[0], notes)
            found[subject] = _judged(parsed, asked, [_answers(runner, asked) for _ in range(PASSES)], subject, notes)
        except NotRun as error:
            found[subject] = _found(_finding(Outcome.NOT_RUN, str(error)), _finding(Outcome.NOT_RUN, str(error)))
        except Exception as error:  # the model's own code and the runtimes' own words
            found[subject] = _failed(error)
    return {"found": found, "notes": notes}


def _pin() -> None:
    """fp32 means fp32: no TF32 anywhere, and no kernel chosen by a stopwatch."""
    os.environ.update(PINNED)
    backends: Any = torch.backends
    backends.cuda.matmul.fp32_precision = "ieee"
    backends.cudnn.conv.fp32_precision = "ieee"
    backends.cudnn.rnn.fp32_precision = "ieee"
    backends.cudnn.deterministic, backends.cudnn.benchmark = True, False


def _missing(device: str) -> str:
    if device == "cuda" and torch.version.cuda is None:
        return "torch on this worker is built without CUDA"
    if device == "cuda" and not torch.cuda.is_available():
        return "no CUDA device on this worker"
    torch.ones(1, device=device).add_(1).item()
    return ""


def _facts(device: str) -> list[str]:
    """As read back, not as asked for."""
    import onnxruntime

    backends: Any = torch.backends
    cudnn = backends.cudnn
    return [
        f"device: {torch.cuda.get_device_name() if device == 'cuda' else device}, driver {_driver()}",
        f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn.version()}",
        f"onnxruntime {onnxruntime.__version__}",
        f"fp32 precision of matmul {backends.cuda.matmul.fp32_precision}, of cuDNN's convolutions "
        f"{cudnn.conv.fp32_precision}, of its recurrent layers {cudnn.rnn.fp32_precision}",
        f"cuDNN deterministic {cudnn.deterministic}, benchmark {cudnn.benchmark}",
        *(f"{name}={os.environ[name]}" for name in PINNED),
    ]


def _driver() -> str:
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def _open(spec: Spec, subject: str, path: str, device: str, case: Case, notes: list[str]) -> Runner:
    if subject == Format.ONNX:
        return _onnx(Path(path), device, case, spec.text, notes)
    if subject == Format.TORCHSCRIPT:
        module: Any = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
    else:
        try:
            module = load(spec, path).to(device)
        except PackhouseError as error:  # this worker has not the class that the release's worker has
            raise NotRun(str(error)) from error
    return _torch(module, spec, device)


def _torch(module: Any, spec: Spec, device: str) -> Runner:
    def there(*inputs: torch.Tensor) -> Any:
        answer = module(*(tensor.to(device) for tensor in inputs))
        return torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, answer)

    return torch_runner(there, [output.name for output in spec.outputs])


def _onnx(path: Path, device: str, case: Case, text: Vocabularies, notes: list[str]) -> Runner:
    """onnxruntime goes on with the CPU where CUDA does not start or fails, and says so on stderr only: not here."""
    import onnxruntime

    provider, settings = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise NotRun("onnxruntime on this worker has no CUDA provider")
    if device == "cuda":
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 3
    options.use_deterministic_compute, options.enable_profiling = True, True
    session = onnxruntime.InferenceSession(str(path), options, providers=[(provider, settings)])
    session.disable_fallback()
    if session.get_providers()[0] != provider:
        raise NotRun("onnxruntime on this worker can not start its CUDA provider")
    runner = onnx_runner(session, text)
    try:
        _answers(runner, [case])
    finally:
        profile = Path(session.end_profiling())
    notes += _elsewhere(profile, provider)
    if device == "cuda":
        notes.append(f"onnx: use_tf32={session.get_provider_options()[provider].get('use_tf32')}")
    return runner


def _elsewhere(profile: Path, provider: str) -> list[str]:
    """The operators that onnxruntime did not put on the device: it keeps arithmetic on shapes on the CPU.

    Raises NotRun: it put all of them elsewhere.
    """
    events = [event["args"] for event in json.loads(profile.read_text()) if event.get("cat") == "Node"]
    placed = [(event["op_name"], event["provider"]) for event in events if event.get("provider")]
    elsewhere = [operator for operator, where in placed if where != provider]
    if len(elsewhere) == len(placed):
        raise NotRun("onnxruntime put every operator on the CPU")
    names = ", ".join(sorted(set(elsewhere)))
    return [f"onnx: {len(elsewhere)} of {len(placed)} operators ran on the CPU: {names}"] if elsewhere else []


def _answers(runner: Runner, cases: Sequence[Case]) -> list[Outputs]:
    answers = []
    for case in cases:
        try:
            answers.append(runner(case.inputs))
        except Exception as error:
            error.add_note(f"case {case.name!r}")
            raise
    return answers


def _judged(
    spec: Spec, cases: Sequence[Case], passes: Sequence[list[Outputs]], subject: str, notes: list[str]
) -> dict[str, Finding]:
    """Every pass is judged: TorchScript runs other kernels once it knows the shapes."""
    if any(not _same_bits(passes[0], later) for later in passes[1:]):
        notes.append(f"{subject}: not repeatable to the bit")
    judgements = [judge(cases, answers, as_judged(fp32_tolerance(spec.gates))) for answers in passes]
    notes += _distances(subject, judgements)
    refusal = next(filter(None, (judgement.refusal for judgement in judgements)), "")
    return _found(_finding(Outcome.PASS), _finding(Outcome.REFUSED, refusal) if refusal else _finding(Outcome.PASS))


def _distances(subject: str, judgements: Sequence[Judgement]) -> list[str]:
    """Where there is a float64 run to measure by."""
    ratios = [deviation.max_ratio for judgement in judgements for deviation in judgement.deviations]
    known = [ratio for ratio in ratios if math.isfinite(ratio)]
    return [f"{subject}: off by at most {max(known):.2f} times the rounding of fp32"] if known else []


def _same_bits(one: Sequence[Outputs], other: Sequence[Outputs]) -> bool:
    return all(
        a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)
        for a, b in zip(one, other, strict=True)
    )


def _failed(error: Exception) -> dict[str, Finding]:
    if any(words in str(error) for words in OUT_OF_MEMORY):
        reason = "the GPU worker has not enough memory"
        return _found(_finding(Outcome.NOT_RUN, reason), _finding(Outcome.NOT_RUN, reason))
    where = "".join(f"{note}: " for note in getattr(error, "__notes__", []))
    return _found(
        _finding(Outcome.REFUSED, f"{where}fails: {brief(error)}"), _finding(Outcome.NOT_RUN, "it does not run")
    )


def _found(runs: Finding, reproduces: Finding) -> dict[str, Finding]:
    return {"runs": runs, "reproduces": reproduces}


def _finding(outcome: Outcome, reason: str = "") -> Finding:
    return {"outcome": outcome.value, "reason": reason}
