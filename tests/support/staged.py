"""Stages test architectures: the source of a small release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ONNX_ONLY = {"torchscript": "off", "program": "off", "onnx-int8": "off", "torchscript-int8": "off"}
"""What a test gives as `formats` that is about no other format: one takes a fraction of the time of all five."""

Stage = Callable[..., str]


def stage(
    architecture: str = "linear", name: str = "", *, sources: Path, every_format: bool = False, **options: Any
) -> str:
    """Stages a test architecture with seeded weights and samples.

    Args:
        architecture: Its name without `test.`.
        name: Of the model; default: the architecture's.
        sources: The source goes into a folder below it, unless `to` says another place.
        every_format: The release has the formats of the spec's defaults, and not ONNX only.
        options: Go to packhouse.stage, but for `arguments`, which go to the architecture, too.

    Returns:
        The source's URL.
    """
    import torch

    import packhouse
    from packhouse.architectures import registry

    torch.manual_seed(0)
    arguments = options.pop("arguments", {})
    model = registry.build(f"test.{architecture}", arguments)
    samples = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)
    given = {"inputs": {"x": samples}, "outputs": ["y"], "to": str(sources / (name or architecture))}
    given["formats"] = {} if every_format else ONNX_ONLY
    return packhouse.stage(
        model,
        name=name or architecture,
        architecture=f"test.{architecture}",
        arguments=arguments,
        **(given | options),
    ).url
