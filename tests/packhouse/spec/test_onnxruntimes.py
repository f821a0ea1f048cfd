"""The table of onnxruntime releases: it holds together, and what it says of the installed one is what that one says."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest

from packhouse.spec.onnxruntimes import LATE, MICROSOFT, ORDER, RUNTIMES, lacks, oldest, operator

BENCH = Path(__file__).parents[3] / "bench" / "onnxruntimes.py"


def test_the_installed_onnxruntime_says_of_itself_what_the_table_says():
    done = subprocess.run([sys.executable, str(BENCH)], capture_output=True, text=True, check=True)
    reads = RUNTIMES[".".join(onnxruntime.__version__.split(".")[:2])]
    assert f": opset {reads.opset} ml {reads.ml} ir {reads.ir}" in done.stdout


def test_a_later_release_reads_all_that_an_earlier_one_reads():
    for one, other in itertools.pairwise(ORDER):
        early, late = RUNTIMES[one], RUNTIMES[other]
        assert (early.opset, early.ml, early.ir) <= (late.opset, late.ml, late.ir)
        assert early.opset <= late.opset
        assert early.ir <= late.ir


@pytest.mark.parametrize("version", ORDER)
def test_every_release_reads_the_ir_version_that_its_opset_asks_for(version):
    needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", RUNTIMES[version].opset)])
    assert needed <= RUNTIMES[version].ir


OLDEST = {
    "an opset": ({"opset": 20, "ir": 9}, "1.17"),
    "an IR version": ({"opset": 20, "ir": 10}, "1.18"),
    "an old opset": ({"opset": 18, "ir": 8}, "1.16"),
    "classical operators": ({"opset": 18, "ir": 8, "ml": 5}, "1.18"),
    "weights in 4 bits": ({"opset": 18, "ir": 8, "operators": ["MatMulNBits of 4 bits"]}, "1.17"),
    "weights in 8 bits": ({"opset": 18, "ir": 8, "operators": ["MatMulNBits of 8 bits"]}, "1.22"),
    "an operator that came late": ({"opset": 21, "ir": 10, "operators": ["QLinearMatMul of opset 21"]}, "1.20"),
    "an operator of nobody knows when": ({"opset": 18, "ir": 8, "operators": ["Sparkle"]}, ""),
    "an opset of the future": ({"opset": 99, "ir": 8}, ""),
}


@pytest.mark.parametrize("needs, version", OLDEST.values(), ids=OLDEST)
def test_the_oldest_release_that_reads_a_file_follows_from_all_that_the_file_needs(needs, version):
    assert oldest(**({"ml": 0, "operators": []} | needs)) == version


def test_every_operator_of_the_table_has_a_first_release_and_a_name():
    assert set(MICROSOFT.values()) | {version for _, version in LATE.values()} <= set(ORDER)
    for kind, (opset, version) in LATE.items():
        name = operator("", kind, opset=opset, bits=0)
        assert not lacks(version, name)
        assert lacks(ORDER[ORDER.index(version) - 1], name)
        assert operator("", kind, opset=opset - 1, bits=0) == ""
    assert operator("com.microsoft", "MatMulNBits", opset=20, bits=8) == "MatMulNBits of 8 bits"
    assert operator("", "Relu", opset=24, bits=4) == ""
