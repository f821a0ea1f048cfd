"""What `stage` is given, as keys of the spec, and the spec's findings as words about its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packhouse.errors import SpecInvalid
from packhouse.spec.errors import Finding
from packhouse.spec.toml_location import Path as Keys
from packhouse.spec.toml_location import key_of

if TYPE_CHECKING:
    pass
from packhouse.training.model_files import DEFAULT_BATCH

_ARGUMENTS: dict[Keys, str] = {
    ("model", "name"): "name",
    ("model", "description"): "description",
    ("architecture", "name"): "architecture",
    ("architecture", "arguments"): "arguments",
    ("samples", "labels"): "labels",
    ("weights",): "model",
    ("image", "repository"): "image",
    ("image", "modelpack"): "modelpack",
    ("mlflow", "name"): "mlflow",
}
"""Keys of package.toml -> the argument of `stage` that says the same."""


_OF_AXES = {"sizes": "sizes"}


_OF_TENSORS = {"shape": "axes", "range": "value_ranges", "columns": "columns", "kind": "kinds"}


def axis_limits(
    named: Mapping[str, Sequence[str | int]],
    ranges: Mapping[str, tuple[int, int]],
    sizes: Mapping[str, Sequence[int]],
) -> dict[str, dict[str, Any]]:
    """The tables of [axes]."""
    limits: dict[str, dict[str, Any]] = {}
    for argument, given in (("ranges", ranges), ("sizes", sizes)):
        for axis, numbers in given.items():
            if not numbers or not all(isinstance(number, int) for number in numbers):
                raise SpecInvalid("PH-0279 are whole numbers", where=f"{argument}: {axis}", got=str(numbers))
    for axis, limit in ranges.items():
        if len(limit) != 2:
            raise SpecInvalid(
                "PH-0277 a range is two sizes", where=f"ranges: {axis}", got=str(limit), want="(smallest, largest)"
            )
        limits[axis] = {"min": limit[0], "max": limit[1]}
    for axis, legal in sizes.items():
        if axis in limits:
            raise SpecInvalid("PH-0278 has a range too", where=f"sizes: {axis}", next="say one of the two")
        limits[axis] = {"sizes": list(legal)}
    for key, shape in named.items():
        for name in shape:
            if name == "batch":
                limits.setdefault(name, dict(zip(("min", "max"), DEFAULT_BATCH, strict=True)))
            elif isinstance(name, str) and name not in limits:
                next = f'ranges={{"{name}": (1, 16)}}, or whatever it may have'
                raise SpecInvalid(
                    f"PH-0280 axis {name!r} has no smallest and largest size", where=f"axes: {key}", next=next
                )
    return limits


def argument_for(path: Keys, document: Mapping[str, Any]) -> str:
    """What the caller of `stage` knows a key as: `ranges: time`."""
    section, name, key = (*path, "", "", "")[:3]
    if section == "axes":
        return f"{_OF_AXES.get(str(key), 'ranges')}: {name}"
    if section in ("inputs", "outputs") and isinstance(name, int):
        return f"{_OF_TENSORS.get(str(key), section)}: {document[str(section)][name]['name']}"
    for length in (2, 1):
        if argument := _ARGUMENTS.get(path[:length]):
            return ": ".join(part for part in (argument, key_of(path[length:])) if part)
    if section == "preprocessing":
        return key_of(path)
    return ": ".join(part for part in (str(section), key_of(path[1:])) if part)


def told_by_argument(path: Keys, document: Mapping[str, Any], found: Finding) -> SpecInvalid:
    return SpecInvalid(
        found.coded(found.what), where=argument_for(path, document), got=found.got, want=found.want, next=found.next
    )
