"""Reading files that other programs pickled, without running anything that they bring along.

Files of ``torch.save`` and of ``torch.package`` are zip archives with pickles and the bytes of tensors. Plain values,
containers and tensors are read as what they are; every class and function beside these becomes a :class:`Record`, which keeps
what it was given and does nothing, so that no list of harmless names has to be kept. Tensors are views of the file's pages: a
large file is read where it is looked at.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from equistride.errors import EquistrideError

LARGEST_PICKLE: Final = 256 << 20
"""Bytes of a pickle or a text; tensors are not in it."""
CHECKED: Final = 2 << 30
"""Bytes of tensors whose checksums are compared; a larger file would have to be read twice."""
SMALL: Final = 1 << 20
"""Elements that a tensor may have beyond those of its storage: one row that stands for many."""
LEGACY: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of ``torch.save`` begins that is no zip archive."""
LOCAL_HEADER: Final = 30  # bytes, before a record's name in the archive
DAMAGE: Final = (
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, ValueError, TypeError,
    AttributeError, RuntimeError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What a broken archive or pickle makes Python raise."""
STORAGES: Final = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32, "ShortStorage": torch.int16,
    "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip


class Record:
    """Stands for an object of a foreign class, or for what a foreign function would have made.

    Attributes
    ----------
    origin
        ``module.name`` of the class or function.
    arguments, keywords
        What it was called with.
    state
        What the object would have taken for its state; a table of attributes as a rule, {} where there is none.
    entries, members
        What a foreign mapping or a foreign list would hold.
    """

    origin = ""

    def __new__(cls, *arguments: Any, **keywords: Any) -> Record:
        """Make an empty object that keeps the arguments."""
        made = super().__new__(cls)
        made.state, made.entries, made.members = {}, {}, []
        made.arguments, made.keywords = arguments, keywords  # of classes that are made by __new__ alone, too
        return made

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.arguments: tuple[Any, ...] = arguments
        self.keywords: dict[str, Any] = keywords
        self.state: Any
        self.entries: dict[Any, Any]
        self.members: list[Any]

    def __setstate__(self, state: Any) -> None:
        """Keep the state; of attributes and slots, both together."""
        if (
            isinstance(state, tuple)
            and len(state) == 2
            and all(part is None or isinstance(part, dict) for part in state)
        ):
            state = {**(state[0] or {}), **(state[1] or {})}
        self.state = state

    def __call__(self, *arguments: Any, **keywords: Any) -> Record:
        """Return a record of the call."""
        return _class_of(self.origin)(*arguments, **keywords)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take an entry, as a mapping does."""
        self.entries[key] = value

    def append(self, member: Any) -> None:
        """Take a member, as a list does."""
        self.members.append(member)

    def extend(self, members: Any) -> None:
        """Take members, as a list does."""
        self.members.extend(members)

    add = append

    @property
    def name(self) -> str:
        """The class or function, without its module."""
        return self.origin.rpartition(".")[2]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, a parameter, a buffer or a submodule of the object."""
        if not isinstance(self.state, Mapping):
            return default
        for table in (self.state, *(self.state.get(k) for k in ("_parameters", "_buffers", "_modules"))):
            if isinstance(table, Mapping) and name in table:
                return table[name]
        return default


def _class_of(origin: str) -> type[Record]:
    return type("Record", (Record,), {"origin": origin})


def plain(value: Any) -> Any:
    """Return nested plain values: containers of OmegaConf and records with attributes become dictionaries and lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, Record) or not isinstance(value.state, Mapping):
        return value
    for key in ("_content", "_val"):  # OmegaConf's containers and leaves
        if key in value.state:
            return plain(value.state[key])
    return plain(value.state) if value.state else value


def tensors_of(module: Record, prefix: str = "") -> dict[str, Tensor]:
    """Return parameters and buffers of a pickled ``torch.nn.Module`` and of all in it, by the names of a state dict."""
    found: dict[str, Tensor] = {}
    if not isinstance(module.state, Mapping):
        return found
    for table in ("_parameters", "_buffers"):
        for name, value in (module.state.get(table) or {}).items():
            if isinstance(value, Tensor):
                found[prefix + name] = value
    for name, part in (module.state.get("_modules") or {}).items():
        if isinstance(part, Record):
            found |= tensors_of(part, f"{prefix}{name}.")
    return found


def _whole(*numbers: Any) -> None:
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise ValueError("a tensor has a size that is no whole number")


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Tensor):
        raise TypeError("a tensor has no storage")
    size, stride = tuple(size), tuple(stride)
    _whole(offset, *size, *stride)
    if len(size) != len(stride) or len(size) > 32:
        raise ValueError("the sizes of a tensor do not fit its strides")
    elements = 1
    for n in size:
        elements *= n
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if elements else 0
    if (elements and last >= storage.numel()) or elements > max(storage.numel(), SMALL):
        raise ValueError("a tensor reaches beyond its storage")
    return storage.as_strided(size, stride, offset) if elements else storage.new_empty(size)


def _parameter(data: Any, *_: Any) -> Any:
    return data


KNOWN: Final[dict[tuple[str, str], Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "slice"): slice,
    ("builtins", "complex"): complex,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
"""Names that mean what they say; dtypes and storages are beside them."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(BytesIO(data), encoding="utf-8")
        self.storage = storage
        self.classes: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__builtin__":
            module = "builtins"
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return self.classes.setdefault(f"{module}.{name}", _class_of(f"{module}.{name}"))

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage":
            _, dtype, key, _, count = pid
            if not isinstance(dtype, torch.dtype) or not isinstance(key, str | int):
                raise ValueError("a storage has no type or no name")
            _whole(count)
            return self.storage(str(key), dtype, count)
        return _class_of("persistent")(pid)


def _check_opcodes(data: bytes) -> None:
    """Refuse a pickle that would take more memory than its length accounts for, before any of it is done."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ValueError("the pickle remembers more objects than it has")
        if opcode.name.startswith("EXT") or opcode.name in ("NEXT_BUFFER", "READONLY_BUFFER"):
            raise ValueError(f"the pickle has an operation that no file has, {opcode.name}")


class Archive:
    """A zip archive with pickles and the bytes of tensors, open for reading.

    Parameters
    ----------
    path
        File of ``torch.save`` or ``torch.package``.
    mend
        Which file to give instead where this one cannot be read.

    Raises
    ------
    EquistrideError
        Where the file is missing, damaged, or no such archive; so do all methods.
    """

    def __init__(self, path: Path, mend: str) -> None:
        self.path, self.mend = Path(path), mend
        if not self.path.is_file():
            raise EquistrideError(f"the file {path} does not exist", hint=mend)
        legacy = False
        try:
            with self.path.open("rb") as file:
                # private pages: nothing that is done to a tensor reaches the file
                self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            legacy = self.bytes[: len(LEGACY)] == LEGACY
            with zipfile.ZipFile(self.path) as archive:
                self.records = {info.filename: info for info in archive.infolist()}
        except (*DAMAGE, OSError) as error:
            if not legacy:
                raise self._unreadable(error, "a zip archive of torch.save") from None
            raise EquistrideError(
                f"{path} was saved in the old format of torch.save", expected="a zip archive",
                hint="where its program is installed, torch.save(torch.load(FILE, weights_only=False), NEW) makes one",
            ) from None  # fmt: skip
        self.root = next(iter(self.records), "").partition("/")[0]
        self.checked = 0

    def _unreadable(self, error: Exception, expected: str | None = None) -> EquistrideError:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        return EquistrideError(
            f"{self.path} is damaged or no file of this kind ({reason})", expected=expected, hint=self.mend
        )

    def has(self, name: str) -> bool:
        """Whether there is a record of this name in the archive's folder."""
        return f"{self.root}/{name}" in self.records

    def _place(self, name: str) -> tuple[int, int, int]:
        """Return first byte, length and checksum of a record."""
        info = self.records.get(f"{self.root}/{name}")
        if info is None:
            raise KeyError(f"there is no record {name}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"the record {name} is compressed")
        names = struct.unpack("<HH", self.bytes[info.header_offset + 26 : info.header_offset + LOCAL_HEADER])
        first = info.header_offset + LOCAL_HEADER + sum(names)
        if info.file_size != info.compress_size or first + info.file_size > len(self.bytes):
            raise ValueError(f"the record {name} is cut short")
        return first, info.file_size, info.CRC

    def _read(self, name: str) -> bytes:
        first, length, checksum = self._place(name)
        if length > LARGEST_PICKLE:
            raise ValueError(f"the record {name} has {length:,} bytes; more than {LARGEST_PICKLE:,} are not read")
        data = self.bytes[first : first + length]
        if zlib.crc32(data) != checksum:
            raise ValueError(f"the checksum of {name} is wrong")
        return data

    def text(self, name: str) -> str:
        """Return a record of text."""
        try:
            return self._read(name).decode()
        except DAMAGE as error:
            raise self._unreadable(error) from None

    def _storage(self, name: str, dtype: torch.dtype, count: int) -> Tensor:
        first, length, checksum = self._place(name)
        if dtype == torch.uint8:  # untyped storages count bytes, and so do those of bytes
            count = min(count, length)
        if count * dtype.itemsize > length:
            raise ValueError(f"the record {name} is shorter than its tensor")
        if self.checked + length <= CHECKED:
            self.checked += length
            if zlib.crc32(memoryview(self.bytes)[first : first + length]) != checksum:
                raise ValueError(f"the checksum of {name} is wrong")
        if count == 0:
            return torch.empty(0, dtype=dtype)
        if first % dtype.itemsize:  # not where a number of this type may lie
            return torch.frombuffer(bytearray(self.bytes[first : first + length]), dtype=dtype, count=count)
        return torch.frombuffer(self.bytes, dtype=dtype, count=count, offset=first)

    def unpickle(self, name: str = "data.pkl", storages: str = "data/{}") -> Any:
        """Return what a pickle holds; no code of it runs.

        Parameters
        ----------
        name, storages
            The record, and the names of those with the bytes of its tensors; as ``torch.save`` has them by default.
        """
        known: dict[str, Tensor] = {}

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if key not in known:
                known[key] = self._storage(storages.format(key), dtype, count)
            elif known[key].dtype != dtype:
                raise ValueError(f"the storage {key} has two types")
            return known[key]

        try:
            if self.has("byteorder") and self._read("byteorder") != b"little":
                raise ValueError("its numbers are not little-endian")
            data = self._read(name)
            _check_opcodes(data)
            return _Unpickler(data, storage).load()
        except RecursionError:
            raise self._unreadable(ValueError("it is nested too deeply")) from None
        except DAMAGE as error:
            raise self._unreadable(error) from None


def read_file(path: Path, mend: str) -> Any:
    """Return the content of a file written by ``torch.save``; no code of it runs.

    Parameters
    ----------
    path, mend
        As for :class:`Archive`.
    """
    archive = Archive(path, mend)
    if not archive.has("data.pkl"):
        raise EquistrideError(
            f"{path} is not a file of torch.save", expected="a record data.pkl",
            found=", ".join(list(archive.records)[:3]) or "an empty archive", hint=mend,
        )  # fmt: skip
    return archive.unpickle()


def kind_of(content: Any) -> str:
    """Return what a file's content is, for a message: a foreign class by its name, a table by its first keys."""
    if isinstance(content, Record):
        return content.origin
    if isinstance(content, Mapping):
        return "the keys " + ", ".join(map(str, list(content)[:4]))
    return type(content).__name__
