"""Runs a release's formats on its golden inputs, in a process that can not import the model's class.

`python -m packhouse.parity.replay FOLDER`, with the folder's digests already checked, prints one JSON document:
{format: refusal or ""}. `packhouse verify` starts it.
"""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import json
import math
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from packhouse.architectures.registry import GROUP
from packhouse.formats.arrays import Outputs
from packhouse.formats.runtime import open_format
from packhouse.formats.table import is_int8
from packhouse.parity.golden_file import read_cases
from packhouse.parity.judge import Absolute, Case, Judgement, Ratio, Tolerance, judge, judge_sqnr, measured
from packhouse.parity.rounding import TORN_SCALED
from packhouse.release.manifest import (
    GOLDEN,
    MANIFEST,
    AbsoluteTolerance,
    AnyTolerance,
    Manifest,
    RatioTolerance,
    SqnrTolerance,
    load,
)
from packhouse.spec.model import Gates

INT8_MARGIN_DB = 6.0
"""Another processor may round INT8 otherwise; by so much may the golden answers' noise grow."""


class NoModelCode(importlib.abc.MetaPathFinder):
    """Refuses to import the packages that register architectures: a release must not need them."""

    def __init__(self) -> None:
        points = importlib.metadata.entry_points(group=GROUP)
        self.packages = {point.module.split(".")[0] for point in points} - {"packhouse"}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.split(".")[0] in self.packages:
            raise ImportError(f"{name} holds model code: a release must load without it")
        return None


def replay(folder: Path) -> dict[str, str]:
    """format -> one line that says what is wrong with it, or nothing. Those that this version does not know are left
    out."""
    manifest = load(Manifest, (folder / MANIFEST).read_bytes(), where=MANIFEST)
    cases = golden_cases(folder / GOLDEN)
    found = {}
    for made in manifest.formats:
        if made.format is None:
            continue
        try:
            runner = open_format(made.format, folder / made.file, outputs=manifest.outputs, text=manifest.text)
            answers = [runner(case.inputs) for case in cases]
        except Exception as error:  # whatever a runtime of today says of a file of yesterday
            found[made.name] = f"does not run: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        else:
            found[made.name] = compare(cases, answers, made.tolerance).refusal
    return found


def golden_cases(path: Path) -> tuple[Case, ...]:
    """With the yardsticks that the judge used. A release from before they were written down is measured by its golden
    cases alone, and none of them is torn."""
    cases = read_cases(path)
    whole = dict.fromkeys(TORN_SCALED, math.inf)
    return measured(cases, torn=whole) if any(case.yardsticks is None for case in cases) else cases


def kept_tolerance(format: str, gates: Gates, golden_sqnr_db: float | None) -> AnyTolerance:
    """What the golden answers of a release are held to for good. golden_sqnr_db: of an INT8 format, their lowest."""
    if golden_sqnr_db is not None and is_int8(format):
        return SqnrTolerance(sqnr_db=float(math.floor(golden_sqnr_db - INT8_MARGIN_DB)))
    return fp32_tolerance(gates)


def fp32_tolerance(gates: Gates) -> RatioTolerance | AbsoluteTolerance:
    """How far fp32 may be from the trained model: by a fixed bound where the spec gives one, else by its rounding."""
    if gates.atol is not None and gates.rtol is not None:
        return AbsoluteTolerance(atol=gates.atol, rtol=gates.rtol)
    return RatioTolerance(max=gates.max_ratio, rms=gates.rms_ratio)


def as_judged(tolerance: RatioTolerance | AbsoluteTolerance) -> Tolerance:
    """A release's tolerance as the judge takes it."""
    if isinstance(tolerance, AbsoluteTolerance):
        return Absolute(tolerance.atol, tolerance.rtol)
    return Ratio(tolerance.max, tolerance.rms)


def compare(cases: Sequence[Case], answers: Sequence[Outputs], tolerance: AnyTolerance) -> Judgement:
    if isinstance(tolerance, SqnrTolerance):
        return judge_sqnr(cases, answers, tolerance.sqnr_db)
    return judge(cases, answers, as_judged(tolerance))


if __name__ == "__main__":
    sys.meta_path.insert(0, NoModelCode())
    # A scripted model may print, from C++ too: the answer has a descriptor of its own, and all else goes to stderr.
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        answer.write(json.dumps(replay(Path(sys.argv[1]))))
