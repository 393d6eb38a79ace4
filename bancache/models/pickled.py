"""A pickle read as data: no class that it names is imported, no function that it names is called.

All that a pickle names becomes an inert stand-in; ``find_class`` of the standard library's unpickler is made for this.
So a training checkpoint with anything beside its tensors can be read. Tensors become ``Stored``: their shapes are
compared with their bytes here, and read later.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO, NamedTuple, Self

# torch's names of dtypes, and their sizes in bytes: settings are read from checkpoints without importing torch.
ITEM_BYTES = {
    **dict.fromkeys(("bool", "uint8", "int8", "float8_e4m3fn", "float8_e5m2"), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 8),
    "complex128": 16,
}
_STORAGES = {
    "BFloat16": "bfloat16",
    "Bool": "bool",
    "Byte": "uint8",
    "Char": "int8",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "Int": "int32",
    "Long": "int64",
    "Short": "int16",
    "Untyped": "uint8",
}


class Inert:
    """Takes the place of something that a pickle names, and ignores all that the pickle does with it."""

    __slots__ = ()

    def __setstate__(self, *_: object) -> None:
        """Ignore the state; without this method the unpickler would set attributes."""


class Dict(Inert, dict[Any, Any]):
    """Any dictionary of the file."""

    __slots__ = ()


class Unknown(Dict):
    """An object of a class that is not read; ``origin`` is the class's name, ``is_model`` whether it has modules."""

    __slots__ = ("is_model",)
    is_model: bool
    origin = ""
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __new__(cls, *_: object, **__: object) -> Self:
        """Ignore the arguments."""
        made = super().__new__(cls)
        made.is_model = False
        return made

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object) -> Unknown:
        """Stand for the result, too."""
        return Unknown()

    def __setstate__(*arguments: object) -> None:
        """Remember only whether this is the state of a module; called on a class, do nothing."""
        itself, *state = arguments
        if isinstance(itself, Unknown):
            itself.is_model = isinstance(state[0], dict) and "_modules" in state[0]

    def append(self, _: object) -> None:
        """Ignore the element of a list or set."""

    extend = add = append


@dataclass(frozen=True, eq=False)
class Stored(Inert):
    """A tensor in a file: its shape, the name of its dtype, and a function that reads Elements or a tensor."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Any]

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


class Elements(NamedTuple):
    """The elements of a storage, of which a tensor is a view."""

    content: bytearray
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, eq=False)
class Storage(Inert):
    """A run of ``count`` elements in the file."""

    dtype: str
    key: str
    count: int

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return self.count * ITEM_BYTES[self.dtype]


class _Rebuild(Inert):
    """Makes a Stored of the arguments that torch's functions of the same name take."""

    def __new__(cls, read: Callable[[Storage], bytearray], version: int) -> Self:
        made = super().__new__(cls)
        made.read, made.version = read, version
        return made

    read: Callable[[Storage], bytearray]
    version: int

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> object:
        """Return a Stored, or Unknown for a tensor of another kind than strided numbers."""
        if not isinstance(storage, Storage) or (self.version == 2 and len(rest) > 2 and rest[2]):
            return Unknown()
        dtype = rest[2] if self.version == 3 else storage.dtype
        numbers = (offset, *shape, *stride)
        if (
            any(type(number) is not int or not 0 <= number < 1 << 62 for number in numbers)
            or len(numbers) > 40
        ):
            raise ValueError("a tensor's shape is not one")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        needed = (last + 1) * ITEM_BYTES[dtype] if prod(shape) else 0
        if max(needed, prod(shape) * ITEM_BYTES[dtype]) > storage.bytes:
            raise ValueError("a tensor is larger than its bytes")

        def read() -> Elements:
            content = self.read(storage) if prod(shape) else bytearray()
            return Elements(content, dtype, tuple(shape), tuple(stride), offset)

        return Stored(tuple(shape), dtype, read)


_Unpickler: Any = pickle._Unpickler


class Reader(_Unpickler):  # type: ignore[misc]
    """Unpickles with stand-ins; ``read`` gives the bytes of a storage.

    The unpickler written in Python: the other one reserves gigabytes for a memo that has one high number.
    """

    def __init__(self, stream: BinaryIO, read: Callable[[Storage], bytearray] | None = None) -> None:
        super().__init__(stream, encoding="utf-8", errors="replace")
        self._rebuild = {
            f"_rebuild_tensor{suffix}": _Rebuild(read, version)
            for suffix, version in (("", 1), ("_v2", 2), ("_v3", 3))
            if read
        }
        self.storages: dict[str, Storage] = {}
        self.unknown: dict[str, type[Unknown]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a class or function; nothing is imported."""
        if (module, name) == ("collections", "OrderedDict"):
            return Dict
        if module in {"torch", "torch.cuda", "torch.storage"} and name.endswith("Storage"):
            if name.removesuffix("Storage") in _STORAGES:
                return _STORAGES[name.removesuffix("Storage")]
        elif module == "torch" and name in ITEM_BYTES:
            return name
        elif module in {"torch._utils", "torch._tensor"}:
            if name in self._rebuild:
                return self._rebuild[name]
            if name in {"_rebuild_parameter", "_rebuild_parameter_with_state"}:
                return _First()
            if name == "_rebuild_from_type_v2":
                return _Applied()
        origin = f"{module}.{name}"
        if origin not in self.unknown:
            if len(self.unknown) > 1000:
                return Unknown
            self.unknown[origin] = type("Unknown", (Unknown,), {"__slots__": (), "origin": origin})
        return self.unknown[origin]

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage that a pickle refers to."""
        if pid[0] == "module":  # the class of a model, and its source
            return pid[1]
        if pid[0] != "storage" or pid[1] not in ITEM_BYTES:
            return Unknown()
        _, dtype, key, _, count, *view = pid
        if type(count) is not int or any(view):
            raise pickle.UnpicklingError("not a storage")
        return self.storages.setdefault(str(key), Storage(dtype, str(key), count))

    def load_setitems(self) -> None:
        """Set items whose keys are text or numbers; the hash of a nested tuple may take forever."""
        items, target = self.pop_mark(), self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str | int | float | Unknown):
                target[key] = value

    def load_setitem(self) -> None:
        """Set one item."""
        value, key = self.stack.pop(), self.stack.pop()
        if isinstance(key, str | int | float | Unknown):
            self.stack[-1][key] = value

    def load_dict(self) -> None:
        """Push a dictionary of the items since the mark."""
        items = self.pop_mark()
        pairs = zip(items[::2], items[1::2], strict=True)
        self.append({k: v for k, v in pairs if isinstance(k, str | int | float | Unknown)})

    def load_set(self) -> None:
        """Push something that takes the elements of a set."""
        self.append(Unknown())

    def load_frozenset(self) -> None:
        """Push a stand-in for a frozen set."""
        self.pop_mark()
        self.append(Unknown())

    def load_bytearray8(self) -> None:
        """Push bytes; the base class reserves as many as the file says before it reads them."""
        self.append(self.read(*struct.unpack("<Q", self.read(8))))

    dispatch = {  # noqa: RUF012 (as in the base class)
        **{
            code: load
            for code, load in _Unpickler.dispatch.items()
            if code not in pickle.EXT1 + pickle.EXT2 + pickle.EXT4  # these find classes by number
        },
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.SETITEMS[0]: load_setitems,
        pickle.SETITEM[0]: load_setitem,
        pickle.DICT[0]: load_dict,
        pickle.EMPTY_SET[0]: load_set,
        pickle.FROZENSET[0]: load_frozenset,
    }


class _First(Inert):
    """Stands for a function whose result is its first argument, such as a Parameter's tensor."""

    __slots__ = ()

    def __call__(self, first: object, *_: object) -> object:
        """Return the first argument."""
        return first


class _Applied(Inert):
    """Stands for a function that calls its first argument with its third."""

    __slots__ = ()

    def __call__(self, function: object, _: object, arguments: Any, *__: object) -> object:
        """Rebuild the tensor without its attributes."""
        return function(*arguments) if isinstance(function, _Rebuild | _First) else Unknown()
