"""Reading other projects' files: torch's own writer and numpy's views are the oracles, and nothing in them runs."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from duotrack.errors import ModelError
from duotrack.nets.checkpoint_file import read_checkpoint

ZIP, LEGACY = True, False
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16),
]


def saved(content: object, folder: Path, *, form: bool = ZIP, protocol: int = 2) -> Path:
    path = folder / "checkpoint.pth.tar"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form)
    return path


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor.detach())
        for name, tensor in expected.items()
    )


# Files as torch writes them


@pytest.mark.parametrize("form", [ZIP, LEGACY])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_number_is_read(dtype: torch.dtype, form: bool, tmp_path: Path) -> None:
    values = torch.arange(-6, 6).reshape(3, 4).abs().to(dtype)
    tensors = {"one": values, "turned": values.t(), "scalar": values[2, 3], "none": torch.empty(0, 5, dtype=dtype)}
    assert same(read_checkpoint(saved(tensors, tmp_path, form=form)).tensors, tensors)


@pytest.mark.parametrize("form", [ZIP, LEGACY])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_parameters_and_a_networks_state(form: bool, protocol: int, tmp_path: Path) -> None:
    """A window of a storage, one storage under two names, parameters with attributes, a state dict with metadata."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    base = torch.randn(6, 7)
    parameter = nn.Parameter(torch.randn(3))
    parameter.note = "kept by torch as state"  # type: ignore[attr-defined]
    tensors = network.state_dict()
    tensors |= {"window": base[1:4, 2:6:2], "whole": base, "parameter": parameter, "tied": network[0].weight}
    assert same(read_checkpoint(saved(tensors, tmp_path, form=form, protocol=protocol)).tensors, tensors)


@pytest.mark.parametrize("key", ["net", "model", "state_dict", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_parameters_are_found_where_training_code_puts_them(key: str | None, prefix: str, tmp_path: Path) -> None:
    tensors = {"backbone.weight": torch.randn(2, 3), "backbone.bias": torch.randn(2)}
    wrapped = OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())
    content: dict[str, Any] = {key: wrapped, "optimizer": {"state": {0: {"exp_avg": torch.randn(2)}}}, "epoch": 3}
    assert same(read_checkpoint(saved(content if key else wrapped, tmp_path)).tensors, tensors)


def test_a_prefix_on_some_names_is_part_of_them(tmp_path: Path) -> None:
    tensors = {"module.weight": torch.randn(2), "other.weight": torch.randn(2)}
    assert same(read_checkpoint(saved(tensors, tmp_path)).tensors, tensors)


@pytest.mark.parametrize("padding", range(0, 256, 8))
def test_safetensors_is_told_from_its_content(padding: int, tmp_path: Path) -> None:
    """Whatever its header's length: 128 in the first byte is also how a pickle starts."""
    tensors = {"weight": torch.randn(3, 2), "half": torch.randn(4).half()}
    path = tmp_path / "checkpoint.pth"
    save_file(tensors, path, {"note": "x" * padding})
    checkpoint = read_checkpoint(path)
    assert same(checkpoint.tensors, tensors)
    assert checkpoint.metadata["note"] == "x" * padding


def test_the_reference_checkpoints_are_read_whole(reference_checkpoints: Path) -> None:
    for name, blocks in (("mplt_tiny", 264), ("ostrack_tiny", 146)):
        path = reference_checkpoints / f"{name}.pth.tar"
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)  # its settings are of a class that is not installed
        tensors = read_checkpoint(path).tensors
        assert len(tensors) == blocks
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


# Files made to run something


class Payload:
    """Pickled as a call of ``function``."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


class Settings:
    """Stands for a class of the training code."""

    def __init__(self, inner: object) -> None:
        self.inner = inner


@pytest.mark.parametrize("form", [ZIP, LEGACY])
@pytest.mark.parametrize("place", ["settings", "beside", "name", "hooks"])
@pytest.mark.parametrize("kind", ["system", "eval", "getattr"])
def test_a_payload_does_not_run(kind: str, place: str, form: bool, tmp_path: Path) -> None:
    """Torch's own trusting loader runs it; here the tensors are read, and the payload is not."""
    marker = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    payload = {
        "system": Payload(os.system, f"touch '{marker}'"),
        "eval": Payload(eval, code),
        "getattr": Payload(marker.touch),  # pickled as a call of what getattr returned
    }[kind]
    weight = torch.randn(2, 3)
    net: dict[Any, Any] = {"weight": weight}
    content: dict[str, Any] = {"net": net, "epoch": 1}
    if place == "settings":
        content = {"settings": Settings({"deep": [payload, {payload: (payload,)}]}), **content}
    elif place == "beside":
        net["other"] = payload
    elif place == "name":
        net[payload] = torch.randn(3)
    else:
        tensor = torch.zeros(2, requires_grad=True)
        tensor._backward_hooks = OrderedDict(hook=payload)
        content["extra"] = payload
        net["hooked"] = _Rebuilt(tensor.detach(), payload)
    path = saved(content, tmp_path, form=form)
    found = read_checkpoint(path).tensors
    assert torch.equal(found["weight"], weight)
    assert found.keys() <= {"weight", "hooked"}
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


class _Rebuilt:
    """A tensor whose rebuilding gets a payload for its hooks."""

    def __init__(self, tensor: Tensor, payload: Payload) -> None:
        self._tensor, self._payload = tensor, payload

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_parameter, (self._tensor, False, self._payload)


def tensor_code(
    *,
    key: str = "0",
    count: object = 6,
    offset: object = 0,
    size: tuple[int, ...] = (2, 3),
    stride: tuple[int, ...] = (3, 1),
    storage: bytes | None = None,
    kind: str = "FloatStorage",
) -> bytes:
    """A pickle's instructions (in the text forms of protocol 0) that rebuild a tensor."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    if storage is None:
        storage = f"(Vstorage\nctorch\n{kind}\nV{key}\nVcpu\nI{count}\ntQ".encode()
    arguments = (
        storage + f"I{offset}\n".encode() + numbers(size) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)R"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def document(tensor: bytes, settings: bytes = b"N") -> bytes:
    return b"\x80\x02}Vsettings\n" + settings + b"sVnet\n}Vweight\n" + tensor + b"ss."


def archive(code: bytes, folder: Path, *, storages: dict[str, bytes] | None = None) -> Path:
    path = folder / "checkpoint.pth"
    storages = {"0": np.arange(6, dtype=np.float32).tobytes()} if storages is None else storages
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", code)
        for key, content in storages.items():
            file.writestr(f"archive/data/{key}", content)
    return path


def test_the_hand_written_pickle_is_a_good_one(tmp_path: Path) -> None:
    found = read_checkpoint(archive(document(tensor_code()), tmp_path)).tensors
    assert same(found, {"weight": torch.arange(6.0).reshape(2, 3)})


SETTINGS = {
    "REDUCE": b"cos\nsystem\n(Vtouch MARKER\ntR",
    "REDUCE of a result": b"cbuiltins\ngetattr\n(cos\nX\nVsystem\ntR(Vtouch MARKER\ntR",
    "STACK_GLOBAL": b"\x8c\x02os\x8c\x06system\x93(Vtouch MARKER\ntR",
    "INST": b"(Vtouch MARKER\nios\nsystem\n",
    "OBJ": b"(cos\nsystem\nVtouch MARKER\no",
    "NEWOBJ": b"csubprocess\nPopen\n(Vtouch MARKER\nt\x81",
    "NEWOBJ_EX": b"csubprocess\nPopen\n(Vtouch MARKER\nt}\x92",
    "BUILD": b"cos\nsystem\n)R}V__setstate__\ncos\nsystem\nsb",
    "BUILD of a class": b"ccollections\nOrderedDict\n(N}V__call__\ncos\nsystem\nstb",
    "BUILD of a tensor": tensor_code() + b"(" + tensor_code() + b"I0\n(I1000000\nt(I1\nttb",
    "APPENDS": b"cshlex\nshlex\n)R(Vtouch MARKER\ne",
    "SETITEMS": b"cos\nenviron\n(VDUOTRACK_MARKER\nVMARKER\nu",
    "ADDITEMS": b"\x8f(cos\nsystem\nVx\n\x90",
    "FROZENSET": b"(cos\nsystem\nVx\n\x91",
    "an odd persistent id": b"(Vmodule\ncos\nsystem\nVtouch MARKER\ntQ",
    "a persistent id of numbers": b"I5\nQ",
    "a memo far out": b"Nr\xff\xff\xff\x7f",
    "a deep key": b"}" + b")" + b"\x85" * 100_000 + b"Ns",
    "a list as a key": b"}]Ns",
    "a list in itself": b"]2a",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_no_instruction_does_anything(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = document(tensor_code(), SETTINGS[name].replace(b"MARKER", str(marker).encode()))
    found = read_checkpoint(archive(code, tmp_path)).tensors
    assert same(found, {"weight": torch.arange(6.0).reshape(2, 3)})
    assert not marker.exists()
    assert "DUOTRACK_MARKER" not in os.environ
    assert OrderedDict([(1, 2)]) == {1: 2}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (document(tensor_code(), b"\x82\x05"), "EXT1, which no torch file needs"),
        (document(tensor_code(), b"Pmodule\n"), "PERSID, which no torch file needs"),
        (document(tensor_code(storage=b"cos\nsystem\n(Vtrue\ntR")), "no tensors by name"),
        (document(b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI6\ntQ"), "no tensors by name"),
        (document(tensor_code(kind="QInt8Storage")), "type QInt8Storage are not read"),
        (document(tensor_code(key="9")), "no entry archive/data/9"),
        (document(tensor_code(key="../data.pkl")), r"no entry archive/data/\.\./data\.pkl"),
        (b"\x80\x02}", "exhausted before seeing STOP"),
        (b"\x80\x02R.", "pickle is damaged"),
        (b"\x80\x02h\x07.", "pickle is damaged"),
        (b"\x80\x02]I1\n\x93.", "pickle is damaged"),
        (b"\x80\x02I7\n.", "of type int: expected a dict"),
        (b"cos\nsystem\n(Vtrue\ntR.", "holds a pickled os.system"),
        (b"\x80\x02}Vepoch\nI7\ns.", "its keys: epoch"),
    ],
)
def test_what_cannot_be_read_is_explained(code: bytes, message: str, tmp_path: Path) -> None:
    path = archive(code, tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


# Figures that do not add up


@pytest.mark.parametrize(
    "figures",
    [
        {"size": (2, 4), "stride": (4, 1)},
        {"offset": 1},
        {"stride": (4, 1)},
        {"size": (6,), "stride": (2,)},
        {"size": (10**12,), "stride": (0,)},
        {"size": (7,), "stride": (0,)},
        {"size": (2**62, 2**62), "stride": (2**62, 1)},
        {"size": (0, 2**62, 2**62), "stride": (1, 1, 1)},
        {"size": (2,)},
        {"size": (1,) * 40, "stride": (1,) * 40},
        {"stride": (-3, 1)},
        {"offset": -1},
        {"size": (-2, -3)},
        {"count": 7},
        {"count": 2**40},
        {"count": -6},
        {"count": 2**70, "size": (2**69,), "stride": (1,)},
        {"kind": "DoubleStorage"},
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(figures: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its tensor 'weight' is damaged"):
        read_checkpoint(archive(document(tensor_code(**figures)), tmp_path))


def test_a_view_ends_where_its_storage_is_said_to_end(tmp_path: Path) -> None:
    """Even where the file has more numbers there."""
    code = document(tensor_code(count=6, offset=1, size=(2, 2), stride=(4, 1)))
    path = archive(code, tmp_path, storages={"0": np.arange(12, dtype=np.float32).tobytes()})
    with pytest.raises(ModelError, match="lie beyond its 6 numbers"):
        read_checkpoint(path)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=3),
    st.integers(0, 8),
    st.integers(0, 12),
)
def test_a_view_is_numpys_or_refused(
    tmp_path_factory: pytest.TempPathFactory, axes: list[tuple[int, int]], offset: int, count: int
) -> None:
    """Each index is written out: a view is read if all of them are in the storage and it holds no more than that."""
    size, stride = tuple(side for side, _ in axes), tuple(step for _, step in axes)
    places = offset + sum(
        (np.arange(side) * step).reshape([-1 if at == axis else 1 for at in range(len(axes))])
        for axis, (side, step) in enumerate(axes)
    ) * np.ones(size, int)
    inside = places.size == 0 or (int(places.max()) < count and places.size <= count)
    values = np.arange(count, dtype=np.float32)
    code = document(tensor_code(size=size, stride=stride, offset=offset, count=count))
    path = archive(code, tmp_path_factory.mktemp("view"), storages={"0": values.tobytes()})
    if inside:
        found = read_checkpoint(path).tensors["weight"].numpy()
        assert found.shape == size
        assert np.array_equal(found, values[places] if places.size else np.empty(size, np.float32))
    else:
        with pytest.raises(ModelError, match="is damaged"):
            read_checkpoint(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """A megabyte of zeros in a kilobyte: torch never compresses, so that no file unfolds into more than itself."""
    path = tmp_path / "checkpoint.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", document(tensor_code(count=2**18, size=(2**18,), stride=(1,))))
        file.writestr("archive/data/0", bytes(2**20))
    with pytest.raises(ModelError, match="compressed"):
        read_checkpoint(path)


def test_an_entry_that_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    path = archive(document(tensor_code(count=2**28, size=(2**28,), stride=(1,))), tmp_path)
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    assert content[central + 46 :].startswith(b"archive/data/0")
    struct.pack_into("<II", content, central + 20, 2**30, 2**30)
    path.write_bytes(content)
    with pytest.raises(ModelError, match="claim to be larger than the file"):
        read_checkpoint(path)


def test_a_legacy_storage_that_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    path = saved({"weight": torch.ones(6)}, tmp_path, form=LEGACY)
    content = path.read_bytes()
    length, ones = struct.pack("<q", 6), np.ones(6, np.float32).tobytes()
    assert content.endswith(length + ones)
    for claimed in (2**40, -1):
        path.write_bytes(content.removesuffix(length + ones) + struct.pack("<q", claimed) + ones)
        with pytest.raises(ModelError, match="it ends before its storage"):
            read_checkpoint(path)


@pytest.mark.parametrize("form", [ZIP, LEGACY])
def test_a_truncated_file_is_refused(form: bool, tmp_path: Path) -> None:
    path = saved({"net": {"weight": torch.randn(20), "bias": torch.randn(5)}}, tmp_path, form=form)
    content = path.read_bytes()
    for length in range(0, len(content), 13):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match="cannot read"):
            read_checkpoint(path)


def test_a_damaged_pickle_is_read_or_refused(tmp_path: Path) -> None:
    """Random bytes in a pickle: never another error, and never another value of the storage's than its own."""
    rng = np.random.default_rng(0)
    code = document(tensor_code(), SETTINGS["REDUCE"])
    refused = 0
    for _ in range(200):
        damaged = bytearray(code)
        for place in rng.integers(2, len(code), 2):
            damaged[place] = rng.integers(256)
        try:
            tensors = read_checkpoint(archive(bytes(damaged), tmp_path)).tensors
        except ModelError:
            refused += 1
        else:
            assert all(tensor.numel() <= 24 for tensor in tensors.values())
    assert 25 < refused < 200


# Files that are something else


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>", "neither a torch checkpoint nor safetensors"),
        (b"version https://git-lfs", "neither a torch checkpoint nor safetensors"),
        (struct.pack("<q", 100) + b"{not json", "cannot read"),
        (pickle.dumps({"net": {}}), "a pickle, but not of torch"),
        (pickle.dumps([1, 2, 3], 4), "a pickle, but not of torch"),
        (b"PK\x03\x04 and no more", "cannot read"),
    ],
)
def test_another_kind_of_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_checkpoint(path)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(ModelError, match="cannot read"):
            read_checkpoint(path)


def test_another_zip_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, weight=np.zeros(3))
    with pytest.raises(ModelError, match="but not of torch"):
        read_checkpoint(path)


def test_a_network_pickled_whole_is_refused_by_its_class(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a pickled torch\.nn\.modules\.linear\.Linear: expected a dict of tensors"):
        read_checkpoint(saved(nn.Linear(2, 3), tmp_path))


def test_a_file_of_a_big_endian_machine_is_refused(tmp_path: Path) -> None:
    path = archive(document(tensor_code()), tmp_path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/byteorder", "big")
    with pytest.raises(ModelError, match="big-endian"):
        read_checkpoint(path)
