"""Reading a pickle as data: nothing in it is imported, called or instantiated, whatever it asks for.

A pickle is a program for a stack machine. Here the standard library only decodes the instructions
(``pickletools.genops``), and this module carries them out on plain values. Where a pickle would call something, two
calls mean something here, since torch's files are made of them: rebuilding a tensor, which becomes a ``TensorRecord``,
and an empty ``OrderedDict``, which becomes a dict. Every other class, function and result is an ``Inert``.
"""

from __future__ import annotations

import pickletools
import warnings
from typing import Any, BinaryIO, NamedTuple


class Global(NamedTuple):
    """A class or function that the pickle names. It is never looked up."""

    module: str
    name: str


class Inert(NamedTuple):
    """What a pickle made of something that is not read; only the name of its class or function is left."""

    kind: str


class StorageRecord(NamedTuple):
    """A run of numbers that the file holds beside the pickle.

    Attributes:
        kind: torch's name for the type, as ``FloatStorage``.
        key: the name of the run in the file.
        length: how many numbers the pickle says it has.
        start: the first of them that belongs to this storage; not 0 only in files of torch before 0.4.
    """

    kind: str
    key: str
    length: int
    start: int = 0


class TensorRecord(NamedTuple):
    """A tensor as the pickle describes it, all of it unchecked: offset, size and stride count numbers of the storage.

    Attributes:
        kind: the type of the numbers where it is not that of the storage, as ``uint16``.
    """

    storage: StorageRecord
    offset: Any
    size: Any
    stride: Any
    kind: str | None = None


class Pickled(NamedTuple):
    """The value of a pickle, and the storages that it mentioned, by key, in the order of the first mention."""

    value: Any
    storages: dict[str, StorageRecord]


def read_pickle(file: BinaryIO) -> Pickled:
    """The pickle that starts at the file's position, which is left behind its end. Protocols 0 to 5.

    Raises:
        ValueError: it is damaged, ends too early, or uses an instruction that no torch file needs.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # odd escapes in damaged text
            for opcode, argument, _ in pickletools.genops(file):
                machine.step(opcode.name, argument)
        return Pickled(machine.stack.pop(), machine.storages)
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"its pickle is damaged: {error!r}") from error


# Instructions that push the value which they carry.
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_SET": Inert("set")}
# A key of another kind may take forever to hash, or overflow the stack (a tuple in a tuple in a tuple …).
_KEYS = (str, bytes, int, float, type(None))


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, StorageRecord] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
            return
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "POP_MARK":
                self.marked()
            case "POP":
                stack.pop()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "LIST":
                stack.append(self.marked())
            case "TUPLE":
                stack.append(tuple(self.marked()))
            case "DICT":
                stack.append(dict(_pairs(self.marked())))
            case "FROZENSET":
                self.marked()
                stack.append(Inert("frozenset"))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack.append(tuple(self.popped(count)))
            case "APPEND":
                (item,) = self.popped(1)
                self.extend([item])
            case "APPENDS":
                self.extend(self.marked())
            case "ADDITEMS":
                self.marked()
            case "SETITEM":
                self.update(self.popped(2))
            case "SETITEMS":
                self.update(self.marked())
            case "GLOBAL":
                module, _, attribute = argument.partition(" ")
                stack.append(Global(module, attribute))
            case "STACK_GLOBAL":
                module, attribute = self.popped(2)
                if not isinstance(module, str) or not isinstance(attribute, str):
                    raise TypeError("a class is named by something other than text")
                stack.append(Global(module, attribute))
            case "INST":
                self.marked()
                stack.append(Inert(argument.replace(" ", ".")))
            case "OBJ":
                made = self.marked()[0]
                stack.append(_inert(made))
            case "NEWOBJ":
                made, _ = self.popped(2)
                stack.append(_inert(made))
            case "NEWOBJ_EX":
                made, _, _ = self.popped(3)
                stack.append(_inert(made))
            case "REDUCE":
                function, arguments = self.popped(2)
                stack.append(_result(function, arguments))
            case "BUILD":
                stack.pop()  # the state of an object that nobody made
            case "BINPERSID":
                stack.append(self.storage(stack.pop()))
            case _:
                raise ValueError(f"its pickle holds {name}, which no torch file needs")

    def marked(self) -> list[Any]:
        """Take what lies above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def popped(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError("the stack is empty")
        del self.stack[-count:]
        return items

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is dict:
            self.stack[-1].update(_pairs(items))

    def storage(self, identity: Any) -> Any:
        match identity:
            case ("storage", Global(_, kind), str(key), _, int(length)):
                record = StorageRecord(kind, key, length)
            case ("storage", Global(_, kind), str(key), _, int(length), None):
                record = StorageRecord(kind, key, length)
            case ("storage", Global(_, kind), str(key), _, int(), (_, int(start), int(length))):
                record = StorageRecord(kind, key, length, start)
            case _:
                return Inert("persistent id")
        self.storages.setdefault(key, record)
        return record


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return [(key, value) for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, _KEYS)]


def _inert(made: Any) -> Inert:
    return made if isinstance(made, Inert) else Inert(".".join(made) if isinstance(made, Global) else "object")


def _result(function: Any, arguments: Any) -> Any:
    match function, arguments:
        case Global("torch._utils", "_rebuild_tensor_v2"), (StorageRecord() as storage, offset, size, stride, *_):
            return TensorRecord(storage, offset, size, stride)
        case (
            Global("torch._utils", "_rebuild_tensor_v3"),
            (StorageRecord() as storage, offset, size, stride, _, _, Global("torch", kind), *_),
        ):
            return TensorRecord(storage, offset, size, stride, kind)
        case (
            Global("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"),
            (TensorRecord() as tensor, *_),
        ):
            return tensor
        case Global("collections", "OrderedDict"), ():
            return {}
    return _inert(function)
