"""The networks by name, and their weights on disk: one safetensors file that also says how to build the network."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from duotrack.errors import ModelError
from duotrack.nets.student import STUDENTS, Student, StudentConfig
from duotrack.nets.teacher import TEACHERS, Teacher, TeacherConfig

TrackingModel = Student | Teacher
ModelConfig = StudentConfig | TeacherConfig
Architecture = Literal["student", "teacher"]

MODELS: dict[str, ModelConfig] = {**STUDENTS, **TEACHERS}
# The key of the file's metadata under which name, architecture and config stand, as JSON.
METADATA = "duotrack"


def named_config(name: str) -> ModelConfig:
    """The config of a size by name, as ``student-t`` or ``teacher-b``.

    Raises:
        ModelError: there is no such size.
    """
    if name not in MODELS:
        raise ModelError(f"unknown model {name!r}: expected one of {', '.join(MODELS)}")
    return MODELS[name]


def build_model(config: ModelConfig) -> TrackingModel:
    """The network that ``config`` describes, with random weights.

    Raises:
        ModelError: a value has the wrong type or is too small, or the values do not fit together (the width must be a
            multiple of the number of heads, a crop's side one of the patch's).
    """
    _check(config)
    try:
        return Student(config) if isinstance(config, StudentConfig) else Teacher(config)
    except ValueError as error:
        raise ModelError(str(error)) from error


def save_model(model: TrackingModel, path: Path, name: str, *, half: bool = False) -> None:
    """Write weights and config to ``path`` (safetensors), beside it first, so that a kill leaves no half file.

    Args:
        half: store floating-point tensors as fp16.

    Raises:
        ModelError: a value is too large for fp16.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        tensors = {key: _half(value, key) if value.is_floating_point() else value for key, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    save_file(tensors, partial, described(model, name))
    partial.replace(path)


def described(model: TrackingModel, name: str) -> dict[str, str]:
    """What the metadata of a weights file say about its network."""
    architecture: Architecture = "student" if isinstance(model, Student) else "teacher"
    return {METADATA: json.dumps({"name": name, "architecture": architecture, "config": asdict(model.config)})}


def load_model(path: Path) -> tuple[TrackingModel, str]:
    """A network with the weights that ``save_model`` wrote, in float32, and its name.

    Raises:
        ModelError: the file cannot be read, is not DuoTrack's, or its tensors do not fit its config; the message says
            which keys or shapes.
    """
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get(METADATA, "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"cannot read weights {path}: {error}") from error
    if record is None:
        raise ModelError(f"{path} holds no DuoTrack network: weights of other projects go through `duotrack import`")
    try:
        name, config = _described(record)
        model = build_model(config)
    except (TypeError, ModelError) as error:
        raise ModelError(f"the config in {path} does not fit this version of DuoTrack: {error}") from error
    load_tensors(model, tensors, str(path))
    return model, name


def load_tensors(model: torch.nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Copy ``tensors`` into ``model``, which must have exactly these names and shapes, and keeps its own types.

    Raises:
        ModelError: they differ; the message names the first few keys or shapes that do not fit.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{key} is {tuple(tensors[key].shape)} and should be {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & tensors.keys())
        if tensors[key].shape != expected[key].shape
    ]
    found = {"missing": missing, "not known": unknown, "of another shape": shapes}
    wrong = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}{', …' * (len(keys) > 4)}" for what, keys in found.items() if keys
    ]
    if wrong:
        raise ModelError(f"{origin} does not fit: {'; '.join(wrong)}")
    model.load_state_dict(tensors)


def _half(tensor: Tensor, key: str) -> Tensor:
    half = tensor.half()
    if half.isinf().any() and not tensor.isinf().any():
        raise ModelError(f"{key} reaches {float(tensor.abs().max()):g}, beyond fp16's largest number")
    return half


def _described(record: Any) -> tuple[str, ModelConfig]:
    """Name and config from a file's record.

    Raises:
        ModelError: an entry is absent or of the wrong type.
        TypeError: the config has a field that its network has not.
    """
    entries = record if isinstance(record, dict) else {}
    name, architecture, values = (entries.get(entry) for entry in ("name", "architecture", "config"))
    if not isinstance(name, str):
        raise ModelError(f"name is {name!r}: expected text")
    if architecture not in get_args(Architecture):
        raise ModelError(f"architecture is {architecture!r}: expected {' or '.join(get_args(Architecture))}")
    if not isinstance(values, dict):
        raise ModelError(f"config is {values!r}: expected the fields of a {architecture}'s config")
    return name, StudentConfig(**values) if architecture == "student" else TeacherConfig(**values)


def _check(config: ModelConfig) -> None:
    """Refuse values that describe no network before torch does, which would not name them."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if kind is int:
            least = 8 if name in ("width", "head_channels") else 1  # narrower layers have an eighth of these two
            fits, right = type(value) is int and value >= least, f"a whole number from {least} on"
        elif kind is float:
            fits, right = type(value) in (int, float) and 0 < value < math.inf, "a number above 0"
        elif kind is bool:
            fits, right = type(value) is bool, "true or false"
        else:
            fits, right = value in get_args(kind), f"one of {', '.join(get_args(kind))}"
        if not fits:
            raise ModelError(f"{name} is {value!r}: expected {right}")
    for name in ("template_size", "search_size"):
        if getattr(config, name) % config.patch:
            raise ModelError(f"{name} {getattr(config, name)} must be a multiple of the patch {config.patch}")
