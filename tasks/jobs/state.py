"""The state of a model: its buffers and attributes, to see what a call changed and to put it back."""

from __future__ import annotations

from typing import Any

import torch

BOOKKEEPING = frozenset(vars(torch.nn.Module()))
"""Attributes that every module has; its parameters, buffers and layers are looked at one by one."""

TABLES = ("_parameters", "_buffers", "_modules")
PLAIN = (int, float, complex, bool, str, bytes, type(None))


class State:
    """Taken before the first call. Buffers are copied; parameters are only watched, since a copy would double a large
    model. Layers that are compiled already are left out: their attributes are not Python's."""

    def __init__(self, module: torch.nn.Module) -> None:
        layers = [
            (name, layer) for name, layer in module.named_modules() if not isinstance(layer, torch.jit.ScriptModule)
        ]
        self._layers = [(name, layer, dict(vars(layer))) for name, layer in layers]
        self._collections = [
            (value, value.copy())
            for _, layer in layers
            for value in vars(layer).values()
            if type(value) in (dict, list, set)
        ]
        self._buffers = [
            (name, buffer, buffer.clone()) for name, buffer in module.named_buffers() if not buffer.is_meta
        ]
        self._marks = {name: _marks(layer) for name, layer in layers}

    def changed(self) -> list[str]:
        """The dotted names of what is no longer as it was, `training` apart. Buffers by content too: batch norm writes
        to its own without leaving a mark."""
        found = [name for name, buffer, content in self._buffers if not equal(buffer, content)]
        for name, layer, _ in self._layers:
            before, after = self._marks[name], _marks(layer)
            keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
            found += [f"{name}.{key}".removeprefix(".") for key in keys]
        return list(dict.fromkeys(found))

    def restore(self) -> None:
        for _, layer, attributes in self._layers:
            vars(layer).clear()
            vars(layer).update(attributes)
        for value, content in self._collections:
            value.clear()
            value.extend(content) if isinstance(value, list) else value.update(content)
        with torch.no_grad():
            for _, buffer, content in self._buffers:
                if not equal(buffer, content):
                    buffer.copy_(content)
        self._marks = {name: _marks(layer) for name, layer, _ in self._layers}


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit for bit, NaN included."""
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and bool(torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all())


def _marks(layer: torch.nn.Module) -> dict[str, Any]:
    """Of torch's own layers not the attributes, which are caches: an LSTM renews its list of weights."""
    caches = type(layer).__module__.startswith("torch.")
    own = {} if caches else {key: _mark(value) for key, value in vars(layer).items() if key not in BOOKKEEPING}
    return own | {key: _mark(value) for table in TABLES for key, value in vars(layer)[table].items()}


def _mark(value: Any) -> Any:
    """Equal marks: the same value, and nothing was written to it. The state keeps what it marks alive, so that an id
    stays with its object."""
    if isinstance(value, torch.Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if isinstance(value, PLAIN):
        return type(value), repr(value)
    if type(value) is dict:
        return tuple((key, id(entry)) for key, entry in value.items())
    if type(value) in (list, set):
        return tuple(map(id, value))
    return id(value)
