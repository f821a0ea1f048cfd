"""What a new spec may not say yet: keys that this version reads, because they are decided, and does not act on.

A released spec is read by the rules of its schema alone. These checks run where a model is staged or planned, so that
no key is ever ignored: a model is refused, and not released as if the key were not there. A key leaves this list with
the change that acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from packhouse.errors import SpecInvalid
from packhouse.formats.installed import GROUP
from packhouse.formats.table import every, known, row
from packhouse.spec.model import SPEC_FILE, Kind, Labels, Spec, Want
from packhouse.spec.toml_location import MAX_SHOWN, Path, key_of

NEXT = "remove it, or use a later packhouse"


def check_supported(spec: Spec, *, where: str = SPEC_FILE) -> None:
    """Raises SpecInvalid: it says something that this version does not act on yet; and as `check_formats`."""
    if found := list(unsupported(spec)):
        told = ", ".join(f"{key_of(path)}{value}" for path, value in found)
        raise SpecInvalid(not_yet(told), where=where, next=NEXT)
    check_formats(spec, where=where)


def check_formats(spec: Spec, *, where: str = SPEC_FILE, key: Callable[[Path], str] = key_of) -> None:
    """Whether each format that the spec names can be tried.

    Args:
        spec: The spec.
        where: Its place, for the message.
        key: What the message calls a key.

    Raises:
        SpecInvalid: No installed package adds a format, what it is made from is off, or two formats have one file.
        FormatUnknown: What a package says of its format can not be used.
    """
    for name in spec.formats.others:
        if known(name) is None:
            raise SpecInvalid(
                "PH-0678 no installed package adds it",
                where=f"{where}: {key(('formats', name))}",
                got=f"these: {', '.join(every())}",
                next=f"correct the name, or install the package that adds it to the entry point group {GROUP!r}, here "
                "and on the workers",
            )
    files: dict[str, str] = {}
    for name in spec.formats.wanted:
        made = row(name)
        for other in filter(None, (made.base, made.made_from)):
            if spec.formats.want(other) is Want.OFF:
                what = f"PH-0676 {key(('formats', name))}: is made from {other}, or compared with it, and that is off"
                raise SpecInvalid(what, where=where, next=f'set {name} = "off" too')
        for file in made.files:
            if file in files:
                raise SpecInvalid(
                    f"PH-0677 {key(('formats', name))}: has the file {file}, as has {files[file]}", where=where
                )
            files[file] = name


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
    if "int8_embedding" in spec.gates.model_fields_set:
        yield ("gates", "int8_embedding"), ""
    if spec.promotion is not None:
        yield ("promotion",), ""
