"""The opcodes of a PyTorch checkpoint → plain values, without unpickling: nothing is imported and nothing is called.

A pickle is a program for a small stack machine (PEP 307, and Python's pickletools, which names every opcode). This
machine knows only what `torch.save` writes for dictionaries of tensors, numbers and text. A tensor becomes the
description of where its numbers lie. A name that Python would import stays a name: a few are understood, a few more
stand for values that nobody needs, and any other ends the reading.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from engines.errors import EngineError

OPCODES_MAX = 5_000_000
AXES_MAX = 16
ELEMENTS_MAX = 2**40
"""Of one tensor, counting empty axes as one; what may be read is limited elsewhere."""
TEXT_MAX = 512
"""Characters of a key."""


class CheckpointRefused(EngineError):
    """A file that is no PyTorch checkpoint of tensors, or holds more than that."""

    code = "checkpoint"
    hint = "Ask whoever made it for `torch.save(model.state_dict(), FILE)` or, better, for safetensors."


class _Broken(ValueError):
    """An opcode that does not fit what lies on the stack."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in a row, as one record of the archive; `kind` is PyTorch's name for their type."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where the elements of a tensor lie in its storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many."""
        return prod(self.shape)


class Opaque:
    """Stands for a value that is not needed, such as the random state of a trainer."""


OPAQUE = Opaque()


@dataclass(frozen=True, slots=True)
class _Name:
    """A global name, never looked up."""

    module: str
    name: str

    @property
    def storage(self) -> str | None:
        """PyTorch's name of a type of numbers, where this is one."""
        kind = self.name.removesuffix("Storage")
        return kind if self.module == "torch" and kind in STORAGES and kind != self.name else None


STORAGES = frozenset(
    {"Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"},
)
_TENSOR = _Name("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = _Name("torch._utils", "_rebuild_parameter")
_ORDERED = _Name("collections", "OrderedDict")
_NOT_NEEDED = frozenset(
    {
        _Name("numpy", "dtype"),
        _Name("numpy", "ndarray"),
        _Name("_codecs", "encode"),
        _Name("torch", "device"),
        _Name("torch", "Size"),
        *(_Name(f"numpy.{core}.multiarray", what) for core in ("core", "_core") for what in ("scalar", "_reconstruct")),
        *(_Name("torch", kind) for kind in ("float16", "bfloat16", "float32", "float64", "int64", "int32", "bool")),
    }
)
"""Names that occur beside tensors, in the checkpoints of nnU-Net and others; what they would make is left out."""


class _Mark:
    """Where a run of items on the stack begins."""


def plain_values(content: bytes) -> Any:
    """What the pickle of a checkpoint holds: plain values of Python, StoredTensor, and OPAQUE for what is left out.

    Items may be shared, and lists may hold themselves, as in the original; nobody should walk through all of them.

    Raises
    ------
    CheckpointRefused
        opcode, global, broken-pickle, too-large, and the codes of `_tensor` and `_storage`.
    """
    machine = _Machine()
    try:
        for count, (name, argument) in enumerate(_opcodes(content)):
            if count >= OPCODES_MAX:
                raise CheckpointRefused(f"pickle: expected at most {OPCODES_MAX} opcodes, got more", code="too-large")
            machine.step(name, argument)
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        message = f"pickle: expected a whole one, got a broken one ({type(error).__name__})"
        raise CheckpointRefused(message, code="broken-pickle") from error
    return machine.result()


def _opcodes(content: bytes) -> Iterator[tuple[str, Any]]:
    """Name and argument of every opcode up to STOP. One that is not understood ends it before its argument is read."""
    stream = io.BytesIO(content)
    while True:
        opcode = _BY_CODE.get(stream.read(1).decode("latin-1"))
        if opcode is None or opcode.name not in _UNDERSTOOD:
            shown = "none" if opcode is None else opcode.name
            raise CheckpointRefused(f"pickle: expected a dictionary of tensors, got the opcode {shown}", code="opcode")
        if opcode.name == "GLOBAL":  # pickletools would read escapes in names, which unpickling does not
            yield opcode.name, tuple(stream.readline()[:-1].decode() for _ in range(2))
        else:
            yield opcode.name, None if opcode.arg is None else opcode.arg.reader(stream)
        if opcode.name == "STOP":
            return


class _Machine:
    """Stack and memo, and one short step for each opcode that is understood."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        if name in _PUSHED:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)

    def result(self) -> Any:
        """The one value that is left."""
        if len(self._stack) != 1:
            text = f"pickle: expected one value, got {len(self._stack)}"
            raise CheckpointRefused(text, code="broken-pickle")
        return self._stack[0]

    def tuple_of(self, count: int) -> None:
        """The last items become a tuple."""
        if count > len(self._stack):
            raise _Broken
        items = tuple(self._stack[len(self._stack) - count :])
        del self._stack[len(self._stack) - count :]
        self._stack.append(items)

    def marked_tuple(self, _: Any) -> None:
        """The items after the mark become a tuple."""
        self._stack.append(tuple(self._marked()))

    def append(self, _: Any) -> None:
        """One item to a list."""
        self._extend([self._stack.pop()])

    def appends(self, _: Any) -> None:
        """The items after the mark to a list."""
        self._extend(self._marked())

    def set_item(self, _: Any) -> None:
        """One value into a dictionary."""
        value = self._stack.pop()
        self._update([self._stack.pop(), value])

    def set_items(self, _: Any) -> None:
        """Keys and values after the mark into a dictionary."""
        self._update(self._marked())

    def remember(self, place: Any) -> None:
        """The last item can be asked for again, by a number or by the next free one."""
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def recall(self, place: Any) -> None:
        """Push what was remembered."""
        self._stack.append(self._memo[place])

    def name(self, argument: tuple[str, str]) -> None:
        """A global: its module and its name."""
        self._stack.append(_known(*argument))

    def stacked_name(self, _: Any) -> None:
        """A global whose module and name lie on the stack."""
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise _Broken
        self._stack.append(_known(module, name))

    def storage(self, _: Any) -> None:
        """A reference to a record of the archive."""
        self._stack.append(_storage(self._stack.pop()))

    def call(self, _: Any) -> None:
        """What a call would have made, for the few that are understood."""
        arguments, what = self._stack.pop(), self._stack.pop()
        if not isinstance(what, _Name) or not isinstance(arguments, tuple):
            raise _Broken
        self._stack.append(_made(what, arguments))

    def state(self, _: Any) -> None:
        """Attributes of a dictionary (`_metadata` of a state dict) or of a value that is not needed: left out."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict | Opaque):
            raise _Broken

    def _marked(self) -> list[Any]:
        for start in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[start], _Mark):
                items = self._stack[start + 1 :]
                del self._stack[start:]
                return items
        raise _Broken

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _Broken
        self._stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise _Broken
        for key, value in _pairs(items):
            if not isinstance(key, str | int) or (isinstance(key, str) and len(key) > TEXT_MAX):
                message = f"pickle: expected keys of text or whole numbers, got {type(key).__name__}"
                raise CheckpointRefused(message, code="key")
            target[key] = value


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)


def _known(module: str, name: str) -> _Name:
    found = _Name(module, name)
    if found in {_TENSOR, _PARAMETER, _ORDERED} or found in _NOT_NEEDED or found.storage is not None:
        return found
    shown = "".join(c if c.isprintable() else "·" for c in f"{module}.{name}"[:80])
    raise CheckpointRefused(f"pickle: expected tensors, numbers and text, got the name {shown}", code="global")


def _made(what: _Name, arguments: tuple[Any, ...]) -> Any:
    if what == _TENSOR:
        return _tensor(arguments)
    if what == _PARAMETER and arguments and isinstance(arguments[0], StoredTensor):
        return arguments[0]
    if what == _ORDERED and not arguments:
        return {}
    if what in _NOT_NEEDED:
        return OPAQUE
    raise _Broken


def _storage(reference: Any) -> Storage:
    """The record of ("storage", type, key, location, count). The location is where it was, such as "cuda:0"."""
    match reference:
        case ("storage", _Name() as kind, str(key), str(), int(count)) if kind.storage and key.isdecimal():
            if count >= 0 and key.isascii() and len(key) < 10:
                return Storage(kind.storage, key, count)
    raise CheckpointRefused("pickle: expected a reference to a storage, got another one", code="storage")


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    """The tensor of (storage, offset, shape, strides, …), if all of its elements lie in its storage."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            pass
        case _:
            raise CheckpointRefused("pickle: expected the parts of a tensor, got others", code="tensor")
    numbers = [offset, *shape, *strides]
    if any(type(number) is not int or number < 0 for number in numbers) or len(shape) != len(strides):
        raise CheckpointRefused("tensor: expected whole numbers for offset, shape and strides", code="tensor")
    if len(shape) > AXES_MAX or prod(count or 1 for count in shape) > ELEMENTS_MAX:
        raise CheckpointRefused("tensor: expected fewer axes or elements", code="too-large")
    tensor = StoredTensor(storage, offset, shape, strides)
    last = offset + sum((count - 1) * step for count, step in zip(shape, strides, strict=True))
    if tensor.elements and last >= storage.count:
        message = f"tensor: expected elements within the {storage.count} of its storage, got one at {last}"
        raise CheckpointRefused(message, code="tensor")
    return tensor


_PUSHED = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
    }
)
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": _Machine.marked_tuple,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stacked_name,
    "BINPERSID": _Machine.storage,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.state,
}
_BY_CODE = {opcode.code: opcode for opcode in pickletools.opcodes}
_UNDERSTOOD = _PUSHED | _CONSTANTS.keys() | _STEPS.keys() | {"PROTO", "FRAME", "STOP"}
