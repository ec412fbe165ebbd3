"""A trained student as ONNX: two graphs that share one file of fp16 weights, and a record of how to use them.

A model is a folder::

    template.onnx   template crops (uint8), what is present, boxes → features, once per session
    search.onnx     search crops (uint8), what is present, features → score map, box map, presence
    weights.bin     the weights of both, fp16
    model.json      name, crop sizes and thresholds (``ModelSpec``), checksums

Both graphs take any batch size and compute in float32 (or as the execution provider chooses); normalisation is inside.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from torch import Tensor, nn

from duotrack.engine import proof
from duotrack.engine.models import FORMAT_VERSION, MODEL_FILES
from duotrack.nets.network import TorchNetwork
from duotrack.nets.student import Student

OPSET = 20
WEIGHTS_FILE = "weights.bin"
# Smaller constants stay in the graph, in float32.
SMALLEST_SHARED = 1024


class _TemplateGraph(nn.Module):
    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, template: Tensor, present: Tensor, box: Tensor) -> Tensor:
        return self.student.encode(template, present, box)


class _SearchGraph(nn.Module):
    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, search: Tensor, present: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.student.search(search, present, features)
        return output.score_map, output.box_map, output.presence_logit.sigmoid()


def export_student(student: Student, directory: Path, name: str) -> None:
    """Write ``student`` as the model folder ``directory``. Its weights are rounded to fp16, in place."""
    student.eval().cpu().float()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.copy_(parameter.half().float())
    config = student.config
    directory.mkdir(parents=True, exist_ok=True)
    present = torch.ones(2, 2)
    template = torch.zeros(2, config.template_size, config.template_size, 4, dtype=torch.uint8)
    search = torch.zeros(2, config.search_size, config.search_size, 4, dtype=torch.uint8)
    box = torch.full((2, 4), 0.5)
    features = student.encode(template, present, box)
    graphs = {
        "template": _onnx_graph(
            _TemplateGraph(student), {"template": template, "present": present, "box": box}, ["features"]
        ),
        "search": _onnx_graph(
            _SearchGraph(student),
            {"search": search, "present": present, "features": features},
            ["score_map", "box_map", "presence"],
        ),
    }
    shared = _SharedWeights()
    for graph, model in graphs.items():
        shared.take_from(model)
        model.producer_name = "duotrack"
        onnx.save_model(model, directory / f"{graph}.onnx")
    (directory / WEIGHTS_FILE).write_bytes(shared.data)
    for graph in graphs:
        onnx.checker.check_model(directory / f"{graph}.onnx")
    network = TorchNetwork(student, name)
    proof_template, proof_search, proof_present = proof.proof_input(network.spec)
    prediction = network.search(proof_search, proof_present, network.encode(proof_template))
    record = {
        "format": FORMAT_VERSION,
        "spec": asdict(network.spec),
        "network": asdict(config),
        "check": proof.record(prediction),
        "sha256": {file: hashlib.sha256((directory / file).read_bytes()).hexdigest() for file in MODEL_FILES},
    }
    (directory / "model.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


def _onnx_graph(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> Any:
    batch = torch.export.Dim("batch", min=1, max=1024)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated parts
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


class _SharedWeights:
    """Collects the large constants of several graphs as fp16 in one blob, equal ones once."""

    def __init__(self) -> None:
        self.data = b""
        self._places: dict[bytes, tuple[int, int]] = {}

    def take_from(self, model: Any) -> None:
        """Replace each large float32 initialiser by an external fp16 one and a Cast back to float32."""
        casts = []
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype != np.float32 or values.size < SMALLEST_SHARED:
                continue
            name, stored = tensor.name, f"{tensor.name}.fp16"
            offset, length = self._place(values.astype(np.float16).tobytes())
            tensor.Clear()
            tensor.name, tensor.data_type = stored, TensorProto.FLOAT16
            tensor.dims.extend(values.shape)
            tensor.raw_data = b""
            external_data_helper.set_external_data(tensor, WEIGHTS_FILE, offset, length)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            casts.append(helper.make_node("Cast", [stored], [name], name=f"cast.{name}", to=TensorProto.FLOAT))
        nodes = list(model.graph.node)
        for node in nodes:
            del node.metadata_props[:]  # the exporter's stack traces, ten times the size of the graph itself
        del model.graph.node[:]
        model.graph.node.extend(casts + nodes)
        # Names that the exporter recorded for the float32 initialisers' shapes would now describe the casts.
        del model.graph.value_info[:]

    def _place(self, content: bytes) -> tuple[int, int]:
        if content not in self._places:
            self.data += b"\0" * (-len(self.data) % 64)
            self._places[content] = (len(self.data), len(content))
            self.data += content
        return self._places[content]
