"""A torch network as a model folder: torch's own ONNX exporter, and initialisers named after parameters."""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from duotrack.engine import proof
from duotrack.export.folder import Storage, write_folder
from duotrack.nets.models import TrackingModel, build_model
from duotrack.nets.network import TorchNetwork
from duotrack.nets.student import Student

OPSET = 20
# Ends the name of an initialiser that holds a matrix transposed, as MatMul wants a Linear's weight.
TRANSPOSED = ".T"

_STORED_AS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class _TemplateGraph(nn.Module):
    def __init__(self, network: TrackingModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, template: Tensor, present: Tensor, box: Tensor) -> Tensor:
        return self.network.encode(template, present, box)


class _SearchGraph(nn.Module):
    def __init__(self, network: TrackingModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, search: Tensor, present: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.network.search(search, present, features)
        return output.score_map, output.box_map, output.presence_logit.sigmoid()


def export_model(model: TrackingModel, directory: Path, name: str, storage: Storage = "fp16") -> None:
    """Write ``model`` as the model folder ``directory``. Its parameters are rounded to ``storage``, in place.

    Rounding first makes the recorded outputs those of the stored weights.
    """
    model.eval().cpu().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(_STORED_AS[storage]).float())
    graphs = onnx_graphs(model)
    network = TorchNetwork(model, name)
    template, search, present = proof.proof_input(network.spec)
    record: dict[str, Any] = {
        "spec": asdict(network.spec),
        "architecture": "student" if isinstance(model, Student) else "teacher",
        "network": asdict(model.config),
        "storage": storage,
        "check": proof.record(network.search(search, present, network.encode(template))),
    }
    if storage == "bf16":  # BatchNorms are folded before weights are stored, so that these are rounded once more
        record["tolerance"] = proof.TOLERANCE["bf16"]
    write_folder(directory, graphs, storage, record)


def onnx_graphs(model: TrackingModel) -> dict[str, Any]:
    """``template`` and ``search`` as ONNX models in float32, with a batch axis of any length."""
    config = model.config
    present = torch.ones(2, 2)
    template = torch.zeros(2, config.template_size, config.template_size, 4, dtype=torch.uint8)
    search = torch.zeros(2, config.search_size, config.search_size, 4, dtype=torch.uint8)
    box = torch.full((2, 4), 0.5)
    with torch.no_grad():
        features = model.encode(template, present, box)
    graphs = {
        "template": _onnx_graph(
            _TemplateGraph(model), {"template": template, "present": present, "box": box}, ["features"]
        ),
        "search": _onnx_graph(
            _SearchGraph(model),
            {"search": search, "present": present, "features": features},
            ["score_map", "box_map", "presence"],
        ),
    }
    for graph in graphs.values():
        _name_initialisers(graph, model)
    _add_merged(graphs["search"], [graph.graph.initializer for graph in graphs.values()], model)
    return graphs


def parameters_in_use(model: TrackingModel) -> list[str]:
    """Names of what determines the model's outputs, besides the BatchNorms, which the exporter folds away."""
    with torch.device("meta"):
        fresh = build_model(model.config)
    norms = tuple(name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d))
    used = (name for name, parameter in fresh.named_parameters() if parameter.requires_grad)
    return [name for name in used if name.rpartition(".")[0] not in norms]


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


def _name_initialisers(graph: Any, model: TrackingModel) -> None:
    """Name initialisers as the parameters they hold; the exporter calls the transposed ones ``val_49`` and so on."""
    transposed: dict[bytes, list[str]] = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            matrix = parameter.detach().flatten(1).T.contiguous()
            transposed.setdefault(_digest(matrix.numpy()), []).append(name)
    names: dict[str, str] = {}
    for tensor in graph.graph.initializer:
        if tensor.name.startswith("network."):
            names[tensor.name] = tensor.name.removeprefix("network.")
        elif found := transposed.get(_digest(numpy_helper.to_array(tensor))):
            names[tensor.name] = found.pop(0) + TRANSPOSED
    for tensor in graph.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _digest(values: NDArray[Any]) -> bytes:
    return hashlib.sha256(f"{values.dtype}{values.shape}".encode() + values.tobytes()).digest()


def _add_merged(graph: Any, initialisers: list[Any], model: TrackingModel) -> None:
    """Add, for ``weights.read_model`` alone, the parameters that the exporter merged with equal ones or took apart."""
    found = {tensor.name.removesuffix(TRANSPOSED) for tensors in initialisers for tensor in tensors}
    for name in parameters_in_use(model):
        if name not in found:
            values = model.get_parameter(name).detach().numpy()
            graph.graph.initializer.append(numpy_helper.from_array(values, name))
