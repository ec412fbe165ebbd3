"""Model folders on disk: two ONNX graphs that share one file of weights, and a record of how to use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from duotrack.engine.models import FORMAT_VERSION

# How weights are stored. What a graph of float weights is computed in is the provider's choice.
Storage = Literal["fp32", "fp16", "bf16"]

WEIGHTS_FILE = "weights.bin"
# Smaller constants stay in the graph, in float32.
SMALLEST_SHARED = 1024

_STORED_AS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_INTEGERS = (TensorProto.INT8, TensorProto.UINT8)


def write_folder(directory: Path, graphs: Mapping[str, Any], storage: Storage, record: Mapping[str, Any]) -> None:
    """Write ``graphs`` (ONNX models by name; they are changed) with their weights as ``storage``, and ``model.json``.

    Integer weights are stored as they are.

    Args:
        record: what ``model.json`` says besides format and checksums.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shared = _SharedWeights(storage)
    for name, model in graphs.items():
        shared.take_from(model)
        model.producer_name = "duotrack"
        onnx.save_model(model, directory / f"{name}.onnx")
    (directory / WEIGHTS_FILE).write_bytes(shared.data)
    for name in graphs:
        onnx.checker.check_model(directory / f"{name}.onnx")
    write_record(directory, record, [*(f"{name}.onnx" for name in graphs), WEIGHTS_FILE])


def write_record(directory: Path, record: Mapping[str, Any], files: list[str]) -> None:
    """``model.json`` with the checksums of ``files``."""
    sums = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in files}
    text = json.dumps({"format": FORMAT_VERSION, **record, "sha256": sums})
    (directory / "model.json").write_text(text + "\n", encoding="utf-8")


def read_record(directory: Path) -> dict[str, Any]:
    """What ``model.json`` says besides format and checksums."""
    record: dict[str, Any] = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    return {key: value for key, value in record.items() if key not in ("format", "sha256")}


def read_graph(path: Path) -> Any:
    """A graph of a model folder with its float weights inside, in float32: ``write_folder`` undone."""
    model = onnx.load(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in stored]
    for cast in casts:
        tensor = stored[cast.input[0]]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), cast.output[0]))
        model.graph.node.remove(cast)
    return model


class _SharedWeights:
    """Collects the large constants of several graphs in one blob, equal ones once."""

    def __init__(self, storage: Storage) -> None:
        self.data = bytearray()
        self._storage = storage
        self._places: dict[bytes, tuple[int, int]] = {}

    def take_from(self, model: Any) -> None:
        """Make each large initialiser external; where it is not stored in float32, a Cast turns it back."""
        casts = []
        scales = {name for node in model.graph.node if node.op_type.endswith("zeLinear") for name in node.input[1:]}
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            # A scale of 1e-5 would lose half its digits in fp16.
            if values.size < SMALLEST_SHARED or tensor.name in scales:
                continue
            if tensor.data_type in _INTEGERS:
                self._move(tensor, tensor.name, values, tensor.data_type)
            elif tensor.data_type == TensorProto.FLOAT:
                name, kind = tensor.name, _STORED_AS[self._storage]
                stored = name if kind == TensorProto.FLOAT else f"{name}.{self._storage}"
                self._move(tensor, stored, values.astype(helper.tensor_dtype_to_np_dtype(kind)), kind)
                if stored != name:
                    casts.append(helper.make_node("Cast", [stored], [name], name=f"cast.{name}", to=TensorProto.FLOAT))
        nodes = list(model.graph.node)
        for node in nodes:
            del node.metadata_props[:]  # the exporter's stack traces, ten times the size of the graph itself
        del model.graph.node[:]
        model.graph.node.extend(casts + nodes)
        # Names that the exporter recorded for the float32 initialisers' shapes would now describe the casts.
        del model.graph.value_info[:]

    def _move(self, tensor: Any, name: str, values: Any, kind: int) -> None:
        offset, length = self._place(values.tobytes())
        tensor.Clear()
        tensor.name, tensor.data_type = name, kind
        tensor.dims.extend(values.shape)
        tensor.raw_data = b""
        external_data_helper.set_external_data(tensor, WEIGHTS_FILE, offset, length)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL

    def _place(self, content: bytes) -> tuple[int, int]:
        digest = hashlib.sha256(content).digest()
        if digest not in self._places:
            self.data += b"\0" * (-len(self.data) % 64)
            self._places[digest] = (len(self.data), len(content))
            self.data += content
        return self._places[digest]
