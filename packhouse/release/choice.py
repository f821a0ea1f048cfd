"""Which format runs on this processor: INT8 where its outputs are those that were judged, else fp32.

Sessions, the server and the canary ask here. The loader of the MLflow model (infra/mlflow/pyfunc/loader.py) states the
rule once more, because it imports no packhouse; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable

from packhouse.release.manifest import Processors, Release, Selection
from packhouse.spec.model import Format

PREFERRED = (Format.ONNX_INT8, Format.ONNX)
"""The formats that one of these picks, the first choice first."""


def computes_as_judged(made: Release, *, vnni: bool) -> bool:
    """Whether a processor's outputs are those that were judged. vnni: whether it has VNNI."""
    return vnni or made.processors is Processors.ANY


def preferred(formats: Iterable[Release], *, vnni: bool) -> Release | None:
    """The format that runs where the user names none.

    Args:
        formats: Those at hand. One that a user must name is never picked.
        vnni: Whether the processor has VNNI.

    Returns:
        The format; None where none of them fits.
    """
    fits = {
        made.name: made for made in formats if made.selection is Selection.AUTO and computes_as_judged(made, vnni=vnni)
    }
    return next((fits[name] for name in PREFERRED if name in fits), None)
