"""State dicts that do not fit the healthy model, one fault each."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.corpus.builders import Variant, healthy

H = healthy()
NAN, INF = float("nan"), float("inf")
Tensors = dict[str, torch.Tensor]


def without(name: str) -> Tensors:
    return {key: tensor for key, tensor in H.items() if key != name}


def prefixed(prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in H.items()}


def put(name: str, index: tuple[int, ...], value: float) -> Tensors:
    changed = H[name].clone()
    changed[index] = value
    return H | {name: changed}


def as_safetensors(tensors: Tensors) -> Variant:
    def make(folder: Path) -> Path:
        save_file(tensors, folder / "weights.safetensors")
        return folder / "weights.safetensors"

    return make


def as_torch(tensors: Tensors) -> Variant:
    def make(folder: Path) -> Path:
        torch.save(tensors, folder / "weights.pth")
        return folder / "weights.pth"

    return make


WRONG: dict[str, Tensors] = {
    "nothing": {},
    "missing": without("0.bias"),
    "extra": H | {"9.weight": torch.ones(1)},
    "renamed": without("0.bias") | {"0.beta": H["0.bias"]},
    "many extra": H | {f"x{i}": torch.ones(1) for i in range(1000)},
    "DataParallel prefix": prefixed("module."),
    "torch.compile prefix": prefixed("_orig_mod."),
    "Lightning prefix": prefixed("net.encoder."),
    "case of a name": without("0.bias") | {"0.Bias": H["0.bias"]},
    "look-alike name": without("0.bias") | {"0.bi\u0430s": H["0.bias"]},
    "transposed": H | {"0.weight": H["0.weight"].T.contiguous()},
    "squeezed": H | {"1.num_batches_tracked": torch.tensor([3])},
    "broadcastable": H | {"0.bias": torch.ones(1)},
    "flattened": H | {"0.weight": H["0.weight"].flatten()},
    "empty tensor": H | {"0.weight": torch.empty(0, 4)},
    "half": {n: t.half() if t.is_floating_point() else t for n, t in H.items()},
    "bfloat16": {n: t.bfloat16() if t.is_floating_point() else t for n, t in H.items()},
    "one double": H | {"0.bias": H["0.bias"].double()},
    "complex": H | {"0.bias": torch.ones(6, dtype=torch.complex64)},
    "bool": H | {"0.bias": torch.ones(6, dtype=torch.bool)},
    "float counter": H | {"1.num_batches_tracked": torch.tensor(3.0)},
    "one NaN": put("0.weight", (2, 3), NAN),
    "one +Inf": put("0.weight", (0, 0), INF),
    "one -Inf": put("0.bias", (5,), -INF),
    "all NaN": H | {"2.weight": torch.full((3, 6), NAN)},
    "NaN in a running mean": put("1.running_mean", (1,), NAN),
    "negative variance": put("1.running_var", (3,), -0.5),
}
