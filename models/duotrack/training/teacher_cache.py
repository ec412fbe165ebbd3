"""A teacher's outputs on disk, by sample number: a small machine then trains students without running the teacher.

A cache is a folder with a ``cache.json`` and one ``.npy`` file for each tensor, which is mapped into memory when read.
Files only grow. ``cache.json`` says how many samples are complete and is replaced after what it counts is on the
disk, so a build that was killed goes on from there, and nothing unfinished is ever read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from duotrack.data.pairs import Batchable
from duotrack.errors import ModelError, SourceError
from duotrack.nets.teacher import Teacher
from duotrack.training.distillation.traces import TeacherTrace, named_tensors, teacher_trace, trace_from_named
from duotrack.training.loader import open_loader

FORMAT = 1
RECORD = "cache.json"
_SAMPLE = "sample."
_INPUTS = ("template", "template_present", "template_box", "search", "search_present")


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """What ``cache.json`` says.

    Attributes:
        fingerprint: of the teacher and the dataset; see ``cache_fingerprint``.
        contents: what was asked for: layers, fused, samples, precision, count.
        arrays: for each file its values' type (``<f2``) and the shape of one sample.
        complete: samples 0 … complete − 1 are there.
    """

    fingerprint: dict[str, Any]
    contents: dict[str, Any]
    arrays: dict[str, tuple[str, tuple[int, ...]]]
    complete: int
    format: int = FORMAT

    @property
    def count(self) -> int:
        """How many samples the finished cache holds."""
        return int(self.contents["count"])


def cache_fingerprint(teacher: Teacher, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What a cache depends on: the teacher's config, a SHA-256 of its weights, and ``dataset``.

    Args:
        dataset: what says which samples the numbers stand for, as names, versions and seed; must fit JSON.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(teacher.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    fingerprint = {
        "teacher": {"config": asdict(teacher.config), "weights": digest.hexdigest()},
        "dataset": dict(dataset),
    }
    return _as_json(fingerprint)


class TeacherCache:
    """The complete samples of a cache. Can be sent to a loader's workers; each maps the files itself.

    ``cache[numbers]`` is the teacher's view of those samples, in fp16. ``cache.samples(numbers)`` is the samples.
    """

    def __init__(self, folder: Path, record: CacheRecord) -> None:
        self.folder = folder
        self.record = record
        self._arrays = {name: _mapped(folder, name, record) for name in record.arrays}

    @classmethod
    def open(cls, folder: Path, fingerprint: Mapping[str, Any]) -> TeacherCache:
        """The cache in ``folder``, as far as it is complete.

        Raises:
            SourceError: there is none, or it cannot be read.
            ModelError: it was made by another teacher or from another dataset; the message says what differs.
        """
        record = _read_record(folder)
        if record is None:
            raise SourceError(f"there is no teacher cache in {folder}: it has no {RECORD}")
        _require_same(folder, record.fingerprint, _as_json(dict(fingerprint)))
        return cls(folder, record)

    def __reduce__(self) -> tuple[Any, ...]:
        return TeacherCache, (self.folder, self.record)

    def __len__(self) -> int:
        return self.record.complete

    @property
    def layers(self) -> tuple[int, ...]:
        """The teacher's layers that it holds."""
        return tuple(self.record.contents["layers"])

    @property
    def holds_samples(self) -> bool:
        return bool(self.record.contents["samples"])

    def __getitem__(self, numbers: Sequence[int]) -> TeacherTrace:
        """The teacher's outputs for samples ``numbers``, as ``teacher_trace`` gives them but in fp16.

        Raises:
            IndexError: a number is not in the cache.
        """
        return trace_from_named(self._tensors(numbers, "teacher."))

    def samples(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """The samples ``numbers`` themselves, as a batch.

        Raises:
            IndexError: a number is not in the cache.
            ModelError: the cache was built without them.
        """
        if not self.holds_samples:
            raise ModelError(f"the teacher cache in {self.folder} was built without store_samples")
        return {name.removeprefix(_SAMPLE): tensor for name, tensor in self._tensors(numbers, _SAMPLE).items()}

    def _tensors(self, numbers: Sequence[int], prefix: str) -> dict[str, Tensor]:
        outside = [number for number in numbers if not 0 <= number < len(self)]
        if outside:
            raise IndexError(f"sample {outside[0]} is not in the cache, which holds 0 to {len(self) - 1}")
        chosen = list(numbers)
        return {
            name: torch.from_numpy(np.ascontiguousarray(array[chosen]))
            for name, array in self._arrays.items()
            if name.startswith(prefix)
        }


class CachedSamples(Dataset[dict[str, Tensor]]):
    """Samples by number together with the teacher's outputs for them, under the names of ``named_tensors``.

    Args:
        dataset: where the samples come from, where the cache does not hold them; the one that the cache was built on.
        length: how many samples to offer; beyond the cache's they start again with the first. All it has, by default.

    Raises:
        ModelError: there is no ``dataset`` and the cache does not hold the samples.
    """

    def __init__(
        self, cache: TeacherCache, dataset: Dataset[Batchable] | None = None, length: int | None = None
    ) -> None:
        if dataset is None and not cache.holds_samples:
            raise ModelError(f"the teacher cache in {cache.folder} holds no samples: give the dataset they come from")
        self._cache = cache
        self._dataset = dataset
        self._length = len(cache) if length is None else length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if not 0 <= number < self._length:
            raise IndexError(f"there is no sample {number}, only 0 to {self._length - 1}")
        number %= len(self._cache)
        if self._dataset is not None:
            sample = dict(cast("Mapping[str, Tensor]", self._dataset[number]))
        else:
            sample = {name: tensor[0] for name, tensor in self._cache.samples([number]).items()}
        return sample | {name: tensor[0] for name, tensor in named_tensors(self._cache[[number]]).items()}


def build_cache(
    folder: Path,
    teacher: Teacher,
    dataset: Dataset[Batchable],
    fingerprint: Mapping[str, Any],
    *,
    count: int,
    layers: Sequence[int] = (),
    fused: bool = True,
    store_samples: bool = False,
    batch: int = 16,
    bf16: bool = False,
    workers: int = 0,
    save_every: int = 8,
    report: Callable[[int, int], None] = lambda _done, _count: None,
) -> TeacherCache:
    """Run ``teacher`` on samples 0 … count − 1 and write what it says; goes on with a cache that is not complete.

    For a teacher 384 wide, a sample takes 0.5 MB for each layer and 0.2 MB for the fused tokens, 3 kB for the rest, and
    0.33 MB for the sample itself.

    Args:
        fingerprint: from ``cache_fingerprint``.
        layers, fused: what ``Distiller.teacher_layers`` and ``Distiller.needs_fused`` ask for.
        store_samples: keep the samples too, so that crops need not be drawn and augmented again.
        batch: samples in one pass of the teacher.
        bf16: run the teacher under bf16 autocast.
        save_every: passes after which the work so far is made safe.
        report: called with how many samples are complete, and ``count``.

    Raises:
        SourceError: the folder cannot be read or written, as when the disk is full, or a sample cannot be read. What
            was complete stays.
        TrainingError: a worker of the loader died.
        ModelError: the folder holds another cache (the message says what differs), the teacher has no such layer, its
            outputs do not fit fp16, or the dataset is shorter than ``count``.
    """
    contents = _as_json(
        {
            "layers": sorted(set(layers)),
            "fused": fused,
            "samples": store_samples,
            "precision": "bf16" if bf16 else "fp32",
            "count": count,
        }
    )
    length = len(cast("Sequence[Batchable]", dataset))
    if not 0 < count <= length:
        raise ModelError(f"cannot cache {count} samples of a dataset of {length}")
    wanted = CacheRecord(_as_json(dict(fingerprint)), contents, {}, 0)
    record = _read_record(folder)
    if record is not None:
        _require_same(folder, record.fingerprint | record.contents, wanted.fingerprint | wanted.contents)
    start = record.complete if record is not None else 0
    loader: DataLoader[Batchable] = DataLoader(
        cast("Dataset[Batchable]", Subset(dataset, range(start, count))), batch_size=batch, num_workers=workers
    )
    was_training = teacher.training
    teacher.eval()
    try:
        with _Writer(folder, record or wanted) as writer, open_loader(loader) as loaded:
            for place, samples in enumerate(loaded, 1):
                writer.append(_entries(teacher, cast("dict[str, Tensor]", samples), writer.record))
                if place % save_every == 0 or place == len(loader):
                    writer.save()
                    report(writer.record.complete, count)
            return TeacherCache(folder, writer.record)
    finally:
        teacher.train(was_training)


@torch.inference_mode()
def _entries(teacher: Teacher, samples: dict[str, Tensor], record: CacheRecord) -> dict[str, NDArray[np.generic]]:
    """The rows that a batch adds to each array."""
    device = next(teacher.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=record.contents["precision"] == "bf16"):
        trace = teacher.trace(*(samples[name].to(device) for name in _INPUTS))
    kept = teacher_trace(trace, record.contents["layers"], fused=record.contents["fused"])
    entries: dict[str, NDArray[np.generic]] = {}
    for name, tensor in named_tensors(kept).items():
        half = tensor.half()
        if not bool(half.isfinite().all()):
            raise ModelError(f"{name} does not fit fp16: its largest value is {float(tensor.abs().max()):.4g}")
        entries[name] = half.cpu().numpy()
    if record.contents["samples"]:
        entries |= {f"{_SAMPLE}{name}": tensor.numpy() for name, tensor in samples.items()}
    return entries


class _Writer:
    """The open files of a cache that is being built: rows are appended, and count once they are saved."""

    def __init__(self, folder: Path, record: CacheRecord) -> None:
        self.record = record
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._appended = record.complete
        self._stack = ExitStack()

    def __enter__(self) -> _Writer:
        with _writing(self._folder), self._stack as opening:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, array in self.record.arrays.items():
                start = _first_row(self._folder, name, self.record)
                file = opening.enter_context(_path(self._folder, name).open("r+b"))
                # What is behind was appended, but not saved before the build was killed.
                file.seek(file.truncate(start + self.record.complete * _row_bytes(*array)))
                self._files[name] = file
            self._stack = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        # What a full disk left in the buffers cannot be flushed; it was not saved, and the reason is on its way.
        with suppress(OSError):
            self._stack.close()

    def append(self, entries: dict[str, NDArray[np.generic]]) -> None:
        """Add the rows of the next samples; the first ones say which arrays there are."""
        arrays = {name: (rows.dtype.newbyteorder("<").str, rows.shape[1:]) for name, rows in entries.items()}
        if not self._files:
            self._create(arrays)
        elif arrays != self.record.arrays:
            raise ModelError(f"samples of another shape: expected {self.record.arrays}, got {arrays}")
        with _writing(self._folder):
            for name, rows in entries.items():
                self._files[name].write(np.ascontiguousarray(rows, arrays[name][0]).tobytes())
        self._appended += len(next(iter(entries.values())))

    def _create(self, arrays: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        self.record = CacheRecord(self.record.fingerprint, self.record.contents, arrays, 0)
        with _writing(self._folder):
            for name, (dtype, shape) in arrays.items():
                file = self._stack.enter_context(_path(self._folder, name).open("w+b"))
                header = {"descr": dtype, "fortran_order": False, "shape": (self.record.count, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
                self._files[name] = file

    def save(self) -> None:
        """Bring all rows to the disk, and only then count them."""
        saved = CacheRecord(self.record.fingerprint, self.record.contents, self.record.arrays, self._appended)
        partial = self._folder / f"{RECORD}.partial"
        with _writing(self._folder):
            for file in self._files.values():
                _sync(file)
            with partial.open("w", encoding="utf-8") as text:
                json.dump(asdict(saved), text, indent=1)
                _sync(text)
            partial.replace(self._folder / RECORD)
        self.record = saved


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"cannot write the teacher cache in {folder}: {error}") from error


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read_record(folder: Path) -> CacheRecord | None:
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceError(f"cannot read the teacher cache in {folder}: {error}") from error
    try:
        stored = json.loads(text)
        if stored["format"] != FORMAT:
            raise SourceError(f"the teacher cache in {folder} has format {stored['format']}, expected {FORMAT}")
        arrays = {name: (str(dtype), tuple(shape)) for name, (dtype, shape) in stored["arrays"].items()}
        return CacheRecord(stored["fingerprint"], stored["contents"], arrays, int(stored["complete"]))
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{folder / RECORD} is damaged: {error!r}") from error


def _mapped(folder: Path, name: str, record: CacheRecord) -> NDArray[np.generic]:
    """The complete rows of one file; it may be longer, or not yet as long as its header says."""
    start = _first_row(folder, name, record)
    dtype, shape = record.arrays[name]
    return np.memmap(_path(folder, name), dtype, "r", start, (record.complete, *shape))


def _first_row(folder: Path, name: str, record: CacheRecord) -> int:
    """Where the rows begin in a file, in bytes; all that ``record`` counts must be there."""
    path = _path(folder, name)
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            start = file.tell()
        held = (path.stat().st_size - start) // _row_bytes(*record.arrays[name])
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    if held < record.complete:
        raise SourceError(f"{path} is damaged: it holds {held} of {record.complete} samples")
    return start


def _row_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """``value`` as it will look when it is read back: tuples are lists."""
    parsed: dict[str, Any] = json.loads(json.dumps(value))
    return parsed


def _require_same(folder: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    ours, theirs = _flat(wanted), _flat(stored)
    differences = [
        f"{key} is {theirs.get(key, 'absent')} in the cache and should be {ours.get(key, 'absent')}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key, "absent") != theirs.get(key, "absent")
    ]
    if differences:
        raise ModelError(
            f"the teacher cache in {folder} was made for something else: {'; '.join(differences)}; "
            "choose another folder, or delete this one"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by their dotted path."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
