"""INT8 by ONNX Runtime: weights to 8 bits, activations measured at run time (dynamic)."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from packhouse.errors import ExportFailed
from tasks.jobs.onnx_file import strip, write

OPERATORS = ("MatMul", "Gemm", "Gather", "LSTM", "Attention", "EmbedLayerNormalization")
"""Never Conv: dynamic INT8 convolutions are several times slower than fp32 on x86."""


def run(*, model: str, out: str) -> dict[str, Any]:
    """Quantises the fp32 ONNX file `model` to `out`. Returns {"quantised": {operator: count}, "notes"}.

    Raises ExportFailed: the graph has nothing that dynamic quantisation takes.
    """
    logging.getLogger().setLevel(logging.ERROR)
    raw = Path(out).with_suffix(".raw")
    source = Path(shutil.copyfile(model, "source.onnx"))  # the quantiser writes beside its input
    before = _operators(source)
    if before.get("LSTM") or before.get("GRU"):
        # Recurrent weights reach their node through Slice and Concat, which hides that they are constants.
        folded = Path(out).with_suffix(".folded")
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        source = folded
    quantize_dynamic(str(source), str(raw), op_types_to_quantize=list(OPERATORS), weight_type=QuantType.QInt8)
    write(Path(out), strip(onnx.load(raw)), [])
    raw.unlink()
    after = _operators(Path(out))
    made = {
        name: count for name, count in after.items() if name.startswith(("DynamicQuantize", "MatMulInteger", "QLinear"))
    }
    if not made and not any(name.endswith(("Integer", "LSTM")) and name not in before for name in after):
        raise ExportFailed("has no operator that dynamic quantisation takes", where="onnx-int8", got=", ".join(before))
    return {"quantised": made, "notes": []}


def _operators(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
