"""Checkpoint files of other projects: their parameters by name, and nothing else of them.

Read are safetensors and torch's own files, both the zip archives of today and the older form. Whatever a file holds
besides tensors (settings, statistics, classes that are not installed) is passed over, and never executed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from duotrack.errors import ModelError
from duotrack.nets.pickled import Inert, Pickled, StorageRecord, TensorRecord, read_pickle

# Where training code keeps the parameters, if they are not the file's only content; the first that is there counts.
PARAMETER_KEYS = ("net", "model", "state_dict", "model_state_dict")
# torch.nn.DataParallel and its like put this before every name.
WRAPPER_PREFIX = "module."

# torch's constants for the older form: a pickled magic number and a pickled version come before the rest.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "UntypedStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
} | {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8),
        *(torch.bool, torch.complex64, torch.complex128),
    )
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        tensors: parameters and buffers by name, in the types that they were stored in.
        metadata: the texts that stand in a safetensors file's header.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a safetensors or torch file (``.safetensors``, ``.pth``, ``.pth.tar``, ``.pt``, ``.bin``).

    The form is told from the content. Of a torch file, the parameters may stand at the top or under one of
    ``PARAMETER_KEYS``; ``module.`` before every name is taken off.

    Raises:
        ModelError: the file cannot be read, is damaged, is no such file, or holds no tensors by name.
    """
    metadata: dict[str, str] = {}
    with _explained(path), path.open("rb") as file:
        start = file.read(9)
        file.seek(0)
        if not start:
            raise ValueError("the file is empty")
        if start[8:] == b"{":
            tensors, metadata = _read_safetensors(path)
        elif start[:4] == b"PK\x03\x04":
            tensors = _read_archive(file, path.stat().st_size)
        elif start[:1] == b"\x80":
            tensors = _read_legacy(file, path.stat().st_size)
        else:
            raise ValueError(f"it is neither a torch checkpoint nor safetensors (it starts with {start!r})")
    if all(name.startswith(WRAPPER_PREFIX) for name in tensors):
        tensors = {name.removeprefix(WRAPPER_PREFIX): tensor for name, tensor in tensors.items()}
    return Checkpoint(path, tensors, metadata)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    # RuntimeError and NotImplementedError are zipfile's for encrypted members and unknown compression.
    damage = (OSError, EOFError, ValueError, OverflowError, MemoryError, RuntimeError, zipfile.BadZipFile)
    try:
        yield
    except (*damage, SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = file.metadata() or {}
    if not tensors:
        raise ValueError("it holds no tensors")
    return tensors, metadata


def _read_archive(file: BinaryIO, size: int) -> dict[str, Tensor]:
    """torch's form since 1.6: ``NAME/data.pkl`` and, uncompressed, the storages ``NAME/data/KEY``."""
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        # Nothing of torch's is compressed, so that no archive can unfold into more than its own size.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise ValueError("it is a compressed zip archive, which torch never writes")
        if sum(member.file_size for member in members.values()) > size:
            raise ValueError("its entries claim to be larger than the file")
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive, but not of torch: expected one entry NAME/data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = members.get(f"{folder}byteorder")
        if order is not None and archive.read(order) != b"little":
            raise ValueError("it was written on a big-endian machine")

        def read(key: str) -> bytes:
            member = members.get(f"{folder}data/{key}")
            if member is None:
                raise ValueError(f"it has no entry {folder}data/{key}")
            return archive.read(member)

        return _tensors(read_pickle(BytesIO(archive.read(pickles[0]))), read)


def _read_legacy(file: BinaryIO, size: int) -> dict[str, Tensor]:
    """torch's form before 1.6: pickles of magic, version, machine, content and keys; then the storages in a row."""
    magic, version = read_pickle(file).value, None
    if magic == _LEGACY_MAGIC:
        version = read_pickle(file).value
    if version != _LEGACY_VERSION:
        raise ValueError("it is a pickle, but not of torch")
    read_pickle(file)
    content = read_pickle(file)
    places: dict[str, tuple[int, int]] = {}
    for key in read_pickle(file).value:
        if not isinstance(key, str) or key not in content.storages:
            raise ValueError("it holds a storage that nothing refers to")
        count = int.from_bytes(file.read(8), "little")
        length = count * _type(content.storages[key].kind).itemsize
        places[key] = file.tell(), length
        if file.tell() + length > size:
            raise ValueError(f"it ends before its storage {key} does")
        file.seek(length, 1)

    def read(key: str) -> bytes:
        if key not in places:
            raise ValueError(f"it has no storage {key}")
        start, length = places[key]
        file.seek(start)
        return file.read(length)

    return _tensors(content, read)


def _tensors(content: Pickled, read: Callable[[str], bytes]) -> dict[str, Tensor]:
    storages: dict[str, Tensor] = {}

    def tensor(name: str, record: TensorRecord) -> Tensor:
        key = record.storage.key
        if key not in storages:
            # A bytearray, since torch has no read-only tensors.
            numbers = bytearray(read(key))
            storages[key] = torch.frombuffer(numbers, dtype=torch.uint8) if numbers else torch.empty(0)
        try:
            return _view(storages[key], record)
        except (ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"its tensor {name!r} is damaged: {error}") from error

    return {name: tensor(name, record) for name, record in _parameters(content.value).items()}


def _parameters(value: Any) -> dict[str, TensorRecord]:
    """The tensors of the first of ``PARAMETER_KEYS`` that has any, else those at the top."""
    if not isinstance(value, dict):
        what = f"a pickled {value.kind}" if isinstance(value, Inert) else f"a value of type {type(value).__name__}"
        raise ValueError(f"it holds {what}: expected a dict of tensors by name (a state dict)")
    for part in (*(value.get(key) for key in PARAMETER_KEYS), value):
        if isinstance(part, dict):
            found = {
                name: record for name, record in part.items() if isinstance(name, str) and type(record) is TensorRecord
            }
            if found:
                return found
    keys = ", ".join(str(key) for key in list(value)[:8]) or "none"
    raise ValueError(
        f"it has no tensors by name, neither at the top nor under {', '.join(PARAMETER_KEYS)}; its keys: {keys}"
    )


def _view(numbers: Tensor, record: TensorRecord) -> Tensor:
    """The tensor that ``record`` describes in a storage's bytes; each figure in it is checked against them."""
    storage, offset, size, stride, kind = record
    dtype = _type(kind or storage.kind)
    if storage.kind == "UntypedStorage":  # counted in bytes
        storage = StorageRecord(storage.kind, storage.key, storage.length // dtype.itemsize, storage.start)
    if min(storage.start, storage.length) < 0 or (storage.start + storage.length) * dtype.itemsize > len(numbers):
        raise ValueError(
            f"its storage has {len(numbers)} bytes, too few for numbers {storage.start} to "
            f"{storage.start + storage.length} of {dtype}"
        )
    for figures in (size, stride, (offset,)):
        if type(figures) is not tuple or not all(type(figure) is int and figure >= 0 for figure in figures):
            raise ValueError("offset, size and stride must be whole numbers from 0 up")
    if len(size) != len(stride) or len(size) > 16:
        raise ValueError(f"it has {len(size)} sizes and {len(stride)} strides")
    elements = 1
    for side in size:
        elements *= side
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    # Repeating the same numbers (stride 0) would let a small file claim any size.
    if elements > storage.length or (elements and last >= storage.length):
        raise ValueError(f"size {size}, stride {stride} and offset {offset} lie beyond its {storage.length} numbers")
    if not elements:
        return torch.empty(size, dtype=dtype)
    whole = numbers[: (storage.start + storage.length) * dtype.itemsize]
    return whole.view(dtype).as_strided(size, stride, storage.start + offset)


def _type(kind: str) -> torch.dtype:
    if kind not in _TYPES:
        raise ValueError(f"numbers of type {kind} are not read")
    return _TYPES[kind]
