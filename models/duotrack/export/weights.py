"""The way back: a torch network from a model folder, to train it on or to learn from it."""

from __future__ import annotations

from pathlib import Path

import torch
from onnx import numpy_helper
from torch import Tensor, nn

from duotrack.engine.models import available_models, open_model
from duotrack.errors import ModelError
from duotrack.export.folder import read_graph, read_record
from duotrack.export.graphs import TRANSPOSED, parameters_in_use
from duotrack.nets.models import TrackingModel, build_model, load_model, load_tensors
from duotrack.nets.student import StudentConfig
from duotrack.nets.teacher import TeacherConfig


def is_exported(source: Path) -> bool:
    """Whether ``source`` is a folder, or the name of a model that ships, rather than a weights file."""
    return source.is_dir() or (not source.exists() and str(source) in available_models())


def load_network(source: Path) -> tuple[TrackingModel, str]:
    """The torch network, and its name, of a weights file, of a model folder, or of a model that ships.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    if not is_exported(source):
        return load_model(source)
    folder = open_model(str(source))
    return read_model(folder.directory), folder.spec.name


def read_model(directory: Path) -> TrackingModel:
    """The network that the model folder ``directory`` was exported from, with the folder's weights.

    The exporter has folded each BatchNorm into the convolution before it; here it becomes the identity. Parameters that
    take no part in the network's outputs are random.

    Raises:
        ModelError: the folder is missing or damaged, does not say what it was exported from, or its graphs do not hold
            its parameters by name (int8 folders do not).
    """
    open_model(directory)
    record = read_record(directory)
    try:
        kind = {"student": StudentConfig, "teacher": TeacherConfig}[record["architecture"]]
        model = build_model(kind(**record["network"]))
    except (KeyError, TypeError) as error:
        raise ModelError(f"{directory} does not say which network it was exported from: {error!r}") from error
    stored: dict[str, Tensor] = {}
    for graph in ("template", "search"):
        for tensor in read_graph(directory / f"{graph}.onnx").graph.initializer:
            stored[tensor.name] = torch.from_numpy(numpy_helper.to_array(tensor).copy())
    weights = _identities(model)
    used = set(parameters_in_use(model))
    for key, value in model.state_dict().items():
        if key in stored:
            weights.setdefault(key, stored[key])
        elif key + TRANSPOSED in stored:
            weights.setdefault(key, stored[key + TRANSPOSED].T.reshape(value.shape))
        elif key not in used:
            weights.setdefault(key, value)
    load_tensors(model, weights, str(directory))
    return model.eval()


def _identities(model: nn.Module) -> dict[str, Tensor]:
    """The state of every BatchNorm as the identity."""
    state = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            state[f"{name}.weight"] = torch.ones(module.num_features)
            state[f"{name}.bias"] = torch.zeros(module.num_features)
            state[f"{name}.running_mean"] = torch.zeros(module.num_features)
            state[f"{name}.running_var"] = torch.full((module.num_features,), 1 - module.eps)
            state[f"{name}.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    return state
