"""What a checkpoint's data.pkl says, read without unpickling: names, dtypes, shapes and where the bytes lie.

A small machine runs the opcodes that torch.save writes, on plain values: nothing is imported and nothing is called.
A global that is not on the exact list, an opcode that torch.save does not write, a storage that is not there, or a
view that leaves its storage is refused. What is not fully understood is not taken.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from packhouse.errors import UnsafeWeights
from packhouse.weights.file_kind import walk
from packhouse.weights.safetensors_codec import ITEM_BYTES, Shape
from packhouse.weights.torch_zip import Archive

SAVE = 'save only the weights: safetensors.torch.save_file(model.state_dict(), "weights.safetensors")'

# The exact list. Storage types carry the dtype of what they hold; an untyped one leaves it to the tensor.
STORAGE_DTYPES = {
    "BoolStorage": "BOOL", "ByteStorage": "U8", "CharStorage": "I8", "ShortStorage": "I16", "IntStorage": "I32",
    "LongStorage": "I64", "HalfStorage": "F16", "BFloat16Storage": "BF16", "FloatStorage": "F32",
    "DoubleStorage": "F64", "ComplexFloatStorage": "C64",
}  # fmt: skip
TORCH_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
ORDERED_DICT = ("collections", "OrderedDict")
SIZE = ("torch", "Size")
DEVICE = ("torch", "device")
REBUILD, REBUILD_DTYPE, REBUILD_PARAMETER = (
    ("torch._utils", name) for name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
)
UNTYPED = ("torch.storage", "UntypedStorage")
ALLOWED = frozenset(
    {ORDERED_DICT, SIZE, DEVICE, REBUILD, REBUILD_DTYPE, REBUILD_PARAMETER, UNTYPED}
    | {("torch", name) for name in (*STORAGE_DTYPES, *TORCH_DTYPES)}
)
LOCATION = re.compile(r"(cpu|cuda|mps|xpu|hpu|npu)(:[0-9]{1,3})?")
MAX_RANK = 64
MAX_ITEMS = 2**48


class Global(NamedTuple):
    """A name in the pickle: a mark, never the thing."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Storage(NamedTuple):
    """One run of bytes in the archive. dtype: '' where the storage is untyped; size: bytes."""

    key: str
    dtype: str
    size: int


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage. offset and stride: items."""

    storage: Storage
    dtype: str
    offset: int
    shape: Shape
    stride: Shape


@dataclass(frozen=True)
class MachineLimits:
    """What reading a data.pkl may cost: counts, but for max_text_bytes."""

    max_opcodes: int = 6_000_000
    max_stack: int = 200_000
    max_text_bytes: int = 64 * 1024


LIMITS = MachineLimits()


class Dict(dict[Any, Any]):
    """An OrderedDict of the checkpoint: the one value that may carry a state, which is left unread."""


def read_checkpoint(archive: Archive, where: str, *, limits: MachineLimits = LIMITS) -> Any:
    """The checkpoint's value: dicts, lists, tuples and plain values, with StoredTensor where a tensor stands.

    Law: every StoredTensor lies inside its storage, and every storage of the archive is used.
    Raises UnsafeWeights.
    """
    machine = _Machine(archive, where, limits)
    value = machine.run()
    if unused := sorted(archive.storages.keys() - machine.storages.keys()):
        raise machine.refused("archive holds storages that no tensor uses", got=", ".join(unused[:5]))
    return value


class _Machine:
    """The opcodes of protocol 2 that torch.save writes. The stack, marks and memo are as in pickle."""

    def __init__(self, archive: Archive, where: str, limits: MachineLimits) -> None:
        self.data, self.sizes, self.where, self.limits = archive.pickle, archive.storages, where, limits
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def refused(self, what: str, *, got: object = "", want: object = "") -> UnsafeWeights:
        at = f"{self.where}: data.pkl at byte {self.at:,}"
        return UnsafeWeights(what, where=at, got=str(got)[:300], want=str(want), next=SAVE)

    def run(self) -> Any:
        if self.data[:2] != b"\x80\x02":
            want = "protocol 2, the default of torch.save"
            raise self.refused("pickle of another protocol", got=self.data[:2].hex(), want=want)
        self.at = 2
        try:
            return self._loop()
        except (IndexError, struct.error) as error:
            raise self.refused("pickle is cut off or takes from an empty stack") from error
        except KeyError as error:
            raise self.refused("pickle reads a memo that it never wrote", got=error) from error

    def _loop(self) -> Any:
        for _ in range(self.limits.max_opcodes):
            code = self.data[self.at]
            self.at += 1
            if code == STOP:
                return self._stopped()
            step = STEPS.get(code)
            if step is None:
                raise self.refused(
                    "pickle has an opcode that torch.save never writes", got=f"{code:#04x} {chr(code)!a}"
                )
            step(self)
            if len(self.stack) + len(self.marks) > self.limits.max_stack:
                raise self.refused("pickle is nested too deep or too wide")
        raise self.refused("pickle has too many opcodes", want=f"at most {self.limits.max_opcodes:,}")

    def _stopped(self) -> Any:
        if self.at != len(self.data):
            raise self.refused("bytes behind the end of the pickle", got=f"{len(self.data) - self.at} bytes")
        value = self.stack.pop()
        if self.stack or self.marks:
            raise self.refused("pickle ends with values left over")
        return value

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise self.refused("pickle is cut off or takes from an empty stack")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 256)
        if end < 0:
            raise self.refused("name of a global is too long or cut off")
        text, self.at = self.data[self.at : end], end + 1
        return text.decode("ascii", "backslashreplace")

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    # One method an opcode

    def global_(self) -> None:
        found = Global(self.line(), self.line())
        if found not in ALLOWED:
            raise self.refused("pickle names something that is not part of plain weights", got=self._foreign(found))
        self.stack.append(found)

    def _foreign(self, first: Global) -> str:
        """The name at hand, and what else the pickle names: for the message, not for the decision."""
        allowed = {".".join(name) for name in ALLOWED}
        others = [name for name in walk(self.data).globals if name not in allowed and name != str(first)]
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        return f"global {first}" + (f", also {', '.join(others[:3])}{more}" if others else "")

    def text(self) -> None:
        size = self.number(U32)
        if size > self.limits.max_text_bytes:
            raise self.refused("text in the pickle is too long", got=f"{size:,} bytes")
        try:
            self.stack.append(self.take(size).decode())
        except UnicodeDecodeError as error:
            raise self.refused("text in the pickle is not UTF-8") from error

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def long(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.take(1)[0]), "little", signed=True))

    def get(self, form: struct.Struct) -> None:
        self.stack.append(self.memo[self.number(form)])

    def put(self, form: struct.Struct) -> None:
        self.memo[self.number(form)] = self.stack[-1]

    def last(self, count: int) -> None:
        if len(self.stack) < count:
            raise self.refused("pickle is cut off or takes from an empty stack")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def tuple_(self) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise self.refused("pickle appends to what is not a list", got=kind_of(self.stack[-1]))
        self.stack[-1].extend(items)

    def set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise self.refused("pickle sets items of what is not a dict", got=kind_of(target))
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int, float, type(None))):
                raise self.refused("key of a dict is not a plain value", got=kind_of(key))
            if key in target:
                raise self.refused("a key stands twice", got=ascii(key))
            target[key] = value

    def set_one(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set([key, value])

    def build(self) -> None:
        state = self.stack.pop()
        if (
            type(self.stack[-1]) is not Dict
            or not isinstance(state, dict)
            or not all(type(key) is str for key in state)
        ):
            raise self.refused("pickle sets the state of an object", got=kind_of(self.stack[-1]))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise self.refused("pickle calls what is not a function", got=kind_of(function))
        make = MAKERS.get(tuple(function))
        if make is None:
            raise self.refused("pickle calls what is not a function", got=f"global {function}")
        self.stack.append(make(self, *self._fitting(function, arguments)))

    def _fitting(self, function: Global, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        forms = ARGUMENTS[tuple(function)]
        if not any(
            len(form) == len(arguments) and all(isinstance(a, want) for a, want in zip(arguments, form, strict=True))
            for form in forms
        ):
            got = ", ".join(kind_of(argument) for argument in arguments)
            raise self.refused(f"{function} has other arguments than torch.save gives it", got=got or "none")
        return arguments

    def storage(self) -> None:
        saved = self.stack.pop()
        if not (
            type(saved) is tuple
            and tuple(type(part) for part in saved) == (str, Global, str, str, int)
            and saved[0] == "storage"
        ):
            raise self.refused("persistent id is not a storage", got=kind_of(saved))
        _, kind, key, location, count = saved
        if kind != UNTYPED and (kind.module != "torch" or kind.name not in STORAGE_DTYPES):
            raise self.refused("storage has no storage type", got=kind)
        if not LOCATION.fullmatch(location):
            raise self.refused("storage is on an unknown device", got=ascii(location), want="cpu or cuda:0")
        dtype = "" if kind == UNTYPED else STORAGE_DTYPES[kind.name]
        self.stack.append(self._stored(key, dtype, count * ITEM_BYTES.get(dtype, 1)))

    def _stored(self, key: str, dtype: str, size: int) -> Storage:
        if key not in self.sizes:
            raise self.refused("storage is not in the archive", got=f"data/{key}")
        if size != self.sizes[key]:
            want = f"{self.sizes[key]:,}, the bytes of data/{key}"
            raise self.refused("storage has another size than its entry", got=f"{size:,} bytes", want=want)
        stored = self.storages.setdefault(key, Storage(key, dtype, size))
        if stored.dtype != dtype:
            raise self.refused("storage is used with two dtypes", got=f"data/{key} as {stored.dtype} and {dtype}")
        return stored

    # What REDUCE may make

    def dict_(self, pairs: list[Any] | None = None) -> Dict:
        found = Dict()
        for pair in pairs or []:
            if not isinstance(pair, list | tuple) or len(pair) != 2 or type(pair[0]) is not str or pair[0] in found:
                raise self.refused("OrderedDict is not made of pairs", got=kind_of(pair))
            found[pair[0]] = pair[1]
        return found

    def size(self, values: tuple[Any, ...]) -> Shape:
        return self._naturals(values)

    def device(self, *parts: Any) -> str:
        return ":".join(str(part) for part in parts)

    def tensor(
        self, storage: Storage, offset: int, shape: Shape, stride: Shape, _grad: bool, hooks: Dict, extra: Any = None
    ) -> StoredTensor:
        if not storage.dtype:
            raise self.refused("tensor has no dtype", got=f"data/{storage.key}")
        return self._view(storage, storage.dtype, offset, shape, stride, hooks, extra)

    def tensor_with_dtype(
        self, storage: Storage, offset: int, shape: Shape, stride: Shape, _grad: bool, hooks: Dict, dtype: Global,
        extra: Any = None,
    ) -> StoredTensor:  # fmt: skip
        if dtype.module != "torch" or dtype.name not in TORCH_DTYPES:
            raise self.refused("tensor has no dtype", got=dtype)
        return self._view(storage, TORCH_DTYPES[dtype.name], offset, shape, stride, hooks, extra)

    def _view(
        self, storage: Storage, dtype: str, offset: int, shape: Shape, stride: Shape, hooks: Dict, extra: Any
    ) -> StoredTensor:
        if hooks or extra:
            raise self.refused("tensor carries hooks or flags", got=kind_of(hooks or extra))
        shape, stride = self._naturals(shape), self._naturals(stride)
        if type(offset) is not int or offset < 0 or len(shape) != len(stride):
            raise self.refused("tensor has no valid offset, shape and stride", got=f"{offset}, {shape}, {stride}")
        if math.prod(max(size, 1) for size in shape) >= MAX_ITEMS:
            raise self.refused("shape overflows", got=list(shape))
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        end = offset if 0 in shape else last + 1
        if end * ITEM_BYTES[dtype] > storage.size:
            got, want = f"{end * ITEM_BYTES[dtype]:,} bytes", f"{storage.size:,}"
            raise self.refused("tensor reaches past the end of its storage", got=got, want=want)
        return StoredTensor(storage, dtype, offset, shape, stride)

    def _naturals(self, values: tuple[Any, ...]) -> Shape:
        for value in values:
            if type(value) is not int or not 0 <= value < MAX_ITEMS:
                raise self.refused("size or stride is not a natural number in bounds", got=ascii(value)[:40])
        if len(values) > MAX_RANK:
            raise self.refused("tensor has too many dimensions", got=len(values), want=f"at most {MAX_RANK}")
        return tuple(values)

    def parameter(self, data: StoredTensor, _grad: bool, hooks: Dict) -> StoredTensor:
        if hooks:
            raise self.refused("tensor carries hooks or flags", got=kind_of(hooks))
        return data


def kind_of(value: Any) -> str:
    """In words, for messages."""
    if type(value) is Global:
        return f"global {value}"
    names = {StoredTensor: "a tensor", Storage: "a storage", Dict: "an OrderedDict", type(None): "None"}
    return names.get(type(value), f"a {type(value).__name__}")


U8, U16, U32, I32, F64 = (struct.Struct(form) for form in ("<B", "<H", "<L", "<l", ">d"))
STOP = ord(".")
Step = Callable[[_Machine], None]


def _push(make: Callable[[], Any]) -> Step:
    return lambda machine: machine.stack.append(make())


def _number(form: struct.Struct) -> Step:
    return lambda machine: machine.stack.append(machine.number(form))


STEPS: dict[int, Step] = {
    ord("N"): _push(lambda: None),
    0x88: _push(lambda: True),
    0x89: _push(lambda: False),
    ord(")"): _push(tuple),
    ord("]"): _push(list),
    ord("}"): _push(dict),
    ord("K"): _number(U8),
    ord("M"): _number(U16),
    ord("J"): _number(I32),
    ord("G"): _number(F64),
    ord("h"): lambda machine: machine.get(U8),
    ord("j"): lambda machine: machine.get(U32),
    ord("q"): lambda machine: machine.put(U8),
    ord("r"): lambda machine: machine.put(U32),
    0x85: lambda machine: machine.last(1),
    0x86: lambda machine: machine.last(2),
    0x87: lambda machine: machine.last(3),
    0x8A: _Machine.long,
    ord("c"): _Machine.global_,
    ord("X"): _Machine.text,
    ord("("): _Machine.mark,
    ord("t"): _Machine.tuple_,
    ord("a"): lambda machine: machine.append([machine.stack.pop()]),
    ord("e"): lambda machine: machine.append(machine.pop_mark()),
    ord("s"): _Machine.set_one,
    ord("u"): lambda machine: machine.set(machine.pop_mark()),
    ord("b"): _Machine.build,
    ord("R"): _Machine.reduce,
    ord("Q"): _Machine.storage,
}
MAKERS: dict[tuple[str, ...], Callable[..., Any]] = {
    ORDERED_DICT: _Machine.dict_,
    SIZE: _Machine.size,
    DEVICE: _Machine.device,
    REBUILD: _Machine.tensor,
    REBUILD_DTYPE: _Machine.tensor_with_dtype,
    REBUILD_PARAMETER: _Machine.parameter,
}
_VIEW = (Storage, int, tuple, tuple, bool, Dict)
ARGUMENTS: dict[tuple[str, ...], tuple[tuple[type, ...], ...]] = {
    ORDERED_DICT: ((), (list,)),
    SIZE: ((tuple,),),
    DEVICE: ((str,), (str, int)),
    REBUILD: (_VIEW, (*_VIEW, dict)),
    REBUILD_DTYPE: ((*_VIEW, Global), (*_VIEW, Global, dict)),
    REBUILD_PARAMETER: ((StoredTensor, bool, Dict),),
}
