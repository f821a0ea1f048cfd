"""What a new spec may not say yet: keys that this version reads, because they are decided, and does not act on.

A released spec is read by the rules of its schema alone. These checks run where a model is staged or planned, so that
no key is ever ignored: a model is refused, and not released as if the key were not there. A key leaves this list with
the change that acts on it.
"""

from __future__ import annotations

from collections.abc import Iterator

from packhouse.errors import SpecInvalid
from packhouse.spec.model import SPEC_FILE, Format, Kind, Labels, Spec
from packhouse.spec.toml_location import MAX_SHOWN, Path, key_of

NEXT = "remove it, or use a later packhouse"


def check_supported(spec: Spec, *, where: str = SPEC_FILE) -> None:
    """Raises SpecInvalid: it says something that this version does not act on yet."""
    if found := list(unsupported(spec)):
        told = ", ".join(f"{key_of(path)}{value}" for path, value in found)
        raise SpecInvalid(not_yet(told), where=where, next=NEXT)


def not_yet(told: str) -> str:
    from packhouse import __version__  # the package imports this module

    return f"PH-0606 {told[: 4 * MAX_SHOWN]}: packhouse {__version__} reads this and does not act on it yet"


def unsupported(spec: Spec) -> Iterator[tuple[Path, str]]:
    """The keys, and ` = value` where another value of the same key is acted on."""
    for name, axis in spec.axes.items():
        if name not in spec.input_axes:
            yield ("axes", name), ""
        if axis.sizes is not None:
            yield ("axes", name, "sizes"), ""
        if axis.min == 0:
            yield ("axes", name, "min"), " = 0"
    for position, tensor in enumerate(spec.inputs):
        for key in ("nan", "inf", "bounded", "lengths_of", "index_of"):
            if getattr(tensor, key):
                yield ("inputs", position, key), ""
    for position, output in enumerate(spec.outputs):
        if output.kind is Kind.EMBEDDING:
            yield ("outputs", position, "kind"), ' = "embedding"'
    for key in ("key", "prefix", "ignore", "cast"):
        if getattr(spec.weights, key):
            yield ("weights", key), ""
    if spec.samples.labels is Labels.VALUE:
        yield ("samples", "labels"), ' = "value"'
    if spec.samples.slices:
        yield ("samples", "slices"), ""
    for place, name in enumerate(spec.formats.others):
        yield ("formats", name), "" if place else f" (none of {', '.join(Format)})"
    if "int8_embedding" in spec.gates.model_fields_set:
        yield ("gates", "int8_embedding"), ""
    if spec.promotion is not None:
        yield ("promotion",), ""
