"""Which tolerance a format must keep: one choice for the job that judges it and for the release that keeps it."""

from __future__ import annotations

import pytest

from packhouse.parity.judge import Absolute, Ratio
from packhouse.parity.replay import as_judged, fp32_tolerance, kept_tolerance
from packhouse.release.manifest import SqnrTolerance
from packhouse.spec.model import Format, Gates

BOUND = Gates(atol=1e-3, rtol=1e-4)
WIDER = Gates(max_ratio=9.0, rms_ratio=7.0)


@pytest.mark.parametrize(
    ("gates", "limit"),
    [(Gates(), Ratio(Gates().max_ratio, Gates().rms_ratio)), (WIDER, Ratio(9.0, 7.0)), (BOUND, Absolute(1e-3, 1e-4))],
    ids=["default", "wider", "bound"],
)
def test_fp32_is_judged_by_the_tolerance_that_its_release_keeps(gates, limit):
    assert as_judged(fp32_tolerance(gates)) == limit
    for noise in (None, 40.0):
        assert kept_tolerance(Format.ONNX, gates, noise) == fp32_tolerance(gates)


@pytest.mark.parametrize("gates", [Gates(), BOUND], ids=["default", "bound"])
def test_int8_keeps_the_noise_of_its_golden_outputs_with_a_margin(gates):
    assert kept_tolerance(Format.ONNX_INT8, gates, 40.5) == SqnrTolerance(sqnr_db=34.0)
