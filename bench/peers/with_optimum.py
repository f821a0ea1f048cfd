"""One model of the transformers library through optimum: `python -m bench.peers.with_optimum GIVEN OUT FAULT ...`.

Its strictest: its own validation, at 1e-5 absolute. INT8 is dynamic: static wants its `datasets` library.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from bench.peers.answer import Answer, main
from bench.peers.given import Given

ATOL = 1e-5
WARNING = "The ONNX export succeeded with the warning"


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        if WARNING in record.getMessage():
            self.said = record.getMessage()


def work(given: Given, out: Path) -> Answer:
    if not given.text.exists():
        return Answer(notes={"can not": "only architectures of the transformers library"})
    from optimum.exporters.onnx import main_export
    from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

    heard = _Heard()
    logging.getLogger("optimum.exporters.onnx.convert").addHandler(heard)
    main_export(str(given.text), output=out / "onnx", task="text-classification", atol=ATOL, do_validation=True)
    settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
    quantizer = ORTQuantizer.from_pretrained(out / "onnx", file_name="model.onnx")
    quantizer.quantize(quantization_config=settings, save_dir=out / "int8")
    files = {"onnx": str(out / "onnx/model.onnx"), "int8": str(out / "int8/model_quantized.onnx")}
    return Answer(warned=" ".join(heard.said.split()), files=files)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main(work, "optimum.exporters.onnx", sys.argv[1:])
