"""Models of the transformers library, built from a config.json: the architecture `transformers`, without remote code.

A training script loads what it has fine-tuned with `load`, and hands the model and its arguments to `stage`. Workers
build the same model from the same arguments. Both need the transformers library installed, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from packhouse.errors import ArchitectureUnknown, WeightsInvalid, squeezed

ARCHITECTURE = "transformers"
CONFIG_FILE = "config.json"
REMOTE_CODE = "auto_map"


def build(*, model: str, config: str, inputs: Sequence[str], outputs: Sequence[str]) -> nn.Module:
    """Builds a model of the transformers library with random weights: the architecture `transformers`.

    Args:
        model: A class of the library, such as `BertForSequenceClassification`.
        config: The text of a `config.json`.
        inputs: The arguments of the model's `forward` that the spec's inputs are, in their order.
        outputs: The fields of its result that the spec's outputs are, in their order.

    Returns:
        The module, in float32. Its parameters have the names that the library gives them.

    Raises:
        ArchitectureUnknown: The library has no such model, the config belongs to another one, or it requires code from
            elsewhere.
    """
    kind = _class(model, inputs, outputs)
    module: nn.Module = kind(_config(kind, config))
    return module


def load(
    folder: str | Path, *, inputs: Sequence[str], outputs: Sequence[str], model: str = ""
) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a model that `save_pretrained` wrote, and makes the arguments for `packhouse.stage`.

    Args:
        folder: A folder with `config.json` and safetensors, in one file or in shards.
        inputs: The arguments of the model's `forward` that the spec's inputs are, in their order.
        outputs: The fields of its result that the spec's outputs are, in their order.
        model: A class of the library. Empty: the class that `config.json` names.

    Returns:
        The model, in float32 and eval mode; and the keyword arguments of `build`.

    Raises:
        ArchitectureUnknown: As `build` raises it.
        WeightsInvalid: Weights are missing, or are not in safetensors.
    """
    folder = Path(folder)
    text = _read(folder / CONFIG_FILE)
    name = model or _named(text, folder / CONFIG_FILE)
    kind = _class(name, inputs, outputs)
    settings = _config(kind, text)
    try:
        loaded, said = kind.from_pretrained(
            str(folder),
            config=settings,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        next_step = "save it with save_pretrained"
        raise WeightsInvalid("PH-0169 do not load", where=str(folder), got=squeezed(error), next=next_step) from error
    if missing := sorted(said["missing_keys"]):
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        next_step = f"name the class that was trained, not {name}"
        raise WeightsInvalid(
            "PH-0168 some are missing, and would be random", where=str(folder), got=some, next=next_step
        )
    arguments = {"model": name, "config": text, "inputs": list(inputs), "outputs": list(outputs)}
    return loaded.eval(), arguments


def _class(name: str, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The library's class with a forward that takes tensors by position and answers a tuple of tensors."""
    try:
        import transformers
    except ImportError as error:
        next_step = "pip install transformers"
        raise ArchitectureUnknown(
            "PH-0167 needs the transformers library", where=ARCHITECTURE, next=next_step
        ) from error
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        want = f"a model of transformers {transformers.__version__}"
        raise ArchitectureUnknown("PH-0166 is no such model", where=ARCHITECTURE, got=name, want=want)

    def forward(self: Any, *tensors: torch.Tensor) -> Any:
        given = dict(zip(inputs, tensors, strict=True))
        answer = found.forward(self, **given, return_dict=True)
        values = tuple(answer[field] for field in outputs)
        return values[0] if len(values) == 1 else values

    return type(name, (found,), {"forward": forward, "__module__": found.__module__})


def _config(kind: Any, text: str) -> Any:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ArchitectureUnknown("PH-0165 is no JSON", where=CONFIG_FILE, got=str(error)) from error
    if not isinstance(settings, dict):
        raise ArchitectureUnknown("PH-0162 is no table", where=CONFIG_FILE)
    if REMOTE_CODE in settings:
        next_step = "register an architecture of your own (docs/architectures.md)"
        raise ArchitectureUnknown(
            "PH-0163 asks for code from elsewhere", where=CONFIG_FILE, got=REMOTE_CODE, next=next_step
        )
    of_its_own = getattr(kind.config_class, "model_type", "")
    if (given := settings.get("model_type", of_its_own)) != of_its_own:
        raise ArchitectureUnknown("PH-0164 is of another model", where=CONFIG_FILE, got=str(given), want=of_its_own)
    config = kind.config_class.from_dict(settings)
    config.use_cache = False  # answers, and no state
    return config


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise WeightsInvalid("PH-0161 can not be read", where=str(path), got=error.strerror or "") from error


def _named(text: str, path: Path) -> str:
    try:
        (name,) = json.loads(text)["architectures"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArchitectureUnknown("PH-0160 names no class", where=str(path), next="give model=") from error
    return str(name)
