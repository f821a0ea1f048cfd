"""Which onnxruntime reads which ONNX file: the newest opset and IR version of each of its releases.

Source: each release's own words, from `bench/onnxruntimes.py`, which asks the installed one. For 1.16 to 1.20 the page
of onnxruntime says the same, but for ai.onnx.ml from 1.18 on, where the releases read one more than the page says:
https://onnxruntime.ai/docs/reference/compatibility.html

To read a version is not to have its operators: 1.15 reads opset 19, and has no Reshape and no Shape of it. So the table
begins with 1.16, and what later releases lack stands in LATE.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from packhouse.artifact import Frozen

INLINE_BYTES = 2**31 - 2**20
"""Protobuf reads messages below 2 GiB; the rest is room for the graph. A larger ONNX file has its weights beside it."""


@dataclass(frozen=True)
class Reads:
    """The newest that a release reads. opset: of the domain ai.onnx; ml: of ai.onnx.ml."""

    opset: int
    ml: int
    ir: int


RUNTIMES: dict[str, Reads] = {
    "1.16": Reads(opset=19, ml=3, ir=9),
    "1.17": Reads(opset=20, ml=4, ir=9),
    **dict.fromkeys(("1.18", "1.19", "1.20"), Reads(opset=21, ml=5, ir=10)),
    **dict.fromkeys(("1.21", "1.22"), Reads(opset=22, ml=5, ir=10)),
    "1.23": Reads(opset=23, ml=5, ir=11),
    "1.24": Reads(opset=25, ml=5, ir=13),
    **dict.fromkeys((f"1.{minor}" for minor in range(25, 32)), Reads(opset=26, ml=5, ir=13)),
    "1.32": Reads(opset=28, ml=5, ir=14),
}
"""In their order, the oldest first."""

MICROSOFT = {"DynamicQuantizeLSTM": "1.16", "MatMulNBits of 4 bits": "1.17", "MatMulNBits of 8 bits": "1.22"}
"""Of the domain com.microsoft, which has no versions of its own: the first release that has the operator as packhouse
writes it. 1.16 has MatMulNBits, but not the `accuracy_level` of 1.17."""

LATE = {
    "DeformConv": (19, "1.25"),
    "QLinearMatMul": (21, "1.20"),
    "LpNormalization": (22, "1.25"),
    "TensorScatter": (24, "1.25"),
}
"""Of the domain ai.onnx: from which opset on an operator needs which release, though older ones read that opset. What
the newest release lacks is not here: no such file passes the judge."""

ORDER = list(RUNTIMES)


class Onnx(Frozen):
    """What an ONNX file says of itself, and the oldest onnxruntime that reads it; empty: none that is known."""

    opset: int
    ir: int
    onnxruntime: str


def blocks(bits: int) -> str:
    """The operator of weights in blocks, as MICROSOFT names it."""
    return f"MatMulNBits of {bits} bits"


def oldest(*, opset: int, ml: int, ir: int, operators: Iterable[str]) -> str:
    """The oldest onnxruntime that reads such a file. ml: 0 where the domain is not used. operators: as `operator`
    names them. Empty: no known release does, or nobody knows of an operator since when it is there."""
    needed = set(operators)
    fitting = (
        version
        for version, runtime in RUNTIMES.items()
        if _reads(runtime, opset, ml, ir) and not any(lacks(version, name) for name in needed)
    )
    return next(fitting, "")


def operator(domain: str, kind: str, *, opset: int, bits: int) -> str:
    """A name for `lacks`; empty where every release that reads the opset has the operator. bits: of MatMulNBits."""
    if domain == "com.microsoft":
        return blocks(bits) if kind == "MatMulNBits" else kind
    first, _ = LATE.get(kind, (opset + 1, ""))
    return f"{kind} of opset {first}" if domain in ("", "ai.onnx") and opset >= first else ""


def _reads(runtime: Reads, opset: int, ml: int, ir: int) -> bool:
    return opset <= runtime.opset and ml <= runtime.ml and ir <= runtime.ir


def lacks(version: str, operator: str) -> bool:
    """Whether this onnxruntime is older than the operator, or nobody knows."""
    return operator not in _SINCE or ORDER.index(version) < ORDER.index(_SINCE[operator])


_SINCE = MICROSOFT | {f"{kind} of opset {opset}": version for kind, (opset, version) in LATE.items()}
