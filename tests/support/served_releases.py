"""Release folders for the server, of any ONNX file: digests, manifest and record are those of a real release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from packhouse.digest import digest_bytes, digest_file
from packhouse.formats.arrays import Array
from packhouse.parity.golden_file import write_cases
from packhouse.parity.judge import Case, measured
from packhouse.release.manifest import GOLDEN, AnyTolerance, ArchitectureCode, Inputs, Manifest, RatioTolerance
from packhouse.spec.model import SPEC_FILE, Format, Spec
from tests.support.small_release import seal

NOTHING = digest_bytes(b"")


def write(
    folder: Path,
    spec: bytes,
    models: Mapping[Format, bytes],
    cases: Sequence[Case],
    *,
    outputs: Sequence[str],
    tolerances: Mapping[Format, AnyTolerance] | None = None,
    **changes: Any,
) -> Manifest:
    """The release in this folder. changes: of the manifest's fields."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC_FILE).write_bytes(spec)
    for format, data in models.items():
        (folder / format.file).write_bytes(data)
    write_cases(folder / GOLDEN, measured(cases))
    inputs = Inputs(
        spec=digest_file(folder / SPEC_FILE),
        weights=NOTHING,
        samples=NOTHING,
        architecture=ArchitectureCode(name="test", distribution="test", version="1", code=NOTHING),
        code=NOTHING,
        libraries={},
        device="a processor",
    )
    held = dict.fromkeys(models, RatioTolerance(max=8, rms=6)) | dict(tolerances or {})
    return seal(folder, inputs, held, **{"outputs": tuple(outputs), **changes})


def asked(model: bytes, inputs: Mapping[str, Array], name: str = "batch 1") -> Case:
    """A golden case: what this very file answers here."""
    session = onnxruntime.InferenceSession(model)
    names = [output.name for output in session.get_outputs()]
    taken = {entry.name for entry in session.get_inputs()}
    feed = {key: array for key, array in inputs.items() if key in taken}
    expected = dict(zip(names, session.run(None, feed), strict=True))
    exact = {key: array.astype(np.float64) for key, array in expected.items() if array.dtype.kind == "f"}
    return Case(name, inputs, expected, exact or None, real=True)


def described(spec: Spec) -> bytes:
    from packhouse.spec.model import render

    return render(spec)
