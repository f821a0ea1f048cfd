"""Runs a release's formats on its golden inputs, in a process that can not import the model's class.

`python -m packhouse.replay FOLDER`, with the folder's digests already checked, prints one JSON document:
{format: refusal or ""}. `packhouse verify` starts it.
"""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import assert_never

from packhouse.architectures import GROUP
from packhouse.cases import read_cases
from packhouse.judge import Absolute, Case, Judgement, Outputs, Ratio, judge, judge_sqnr
from packhouse.manifest import (
    GOLDEN,
    MANIFEST,
    AbsoluteTolerance,
    AnyTolerance,
    Manifest,
    RatioTolerance,
    SqnrTolerance,
    load,
)
from packhouse.runtime import open_format


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
    """format -> one line that says what is wrong with it, or nothing."""
    manifest = load(Manifest, (folder / MANIFEST).read_bytes(), where=MANIFEST)
    cases = read_cases(folder / GOLDEN)
    found = {}
    for made in manifest.formats:
        try:
            runner = open_format(made.format, folder / made.file, outputs=manifest.outputs)
            answers = [runner(case.inputs) for case in cases]
        except Exception as error:  # whatever a runtime of today says of a file of yesterday
            found[made.format.value] = f"does not run: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        else:
            found[made.format.value] = compare(cases, answers, made.tolerance).refusal
    return found


def compare(cases: Sequence[Case], answers: Sequence[Outputs], tolerance: AnyTolerance) -> Judgement:
    match tolerance:
        case RatioTolerance():
            return judge(cases, answers, Ratio(tolerance.max, tolerance.rms))
        case AbsoluteTolerance():
            return judge(cases, answers, Absolute(tolerance.atol, tolerance.rtol))
        case SqnrTolerance():
            return judge_sqnr(cases, answers, tolerance.sqnr_db)
    assert_never(tolerance)


if __name__ == "__main__":
    sys.meta_path.insert(0, NoModelCode())
    # A scripted model may print, from C++ too: the answer has a descriptor of its own, and all else goes to stderr.
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        answer.write(json.dumps(replay(Path(sys.argv[1]))))
