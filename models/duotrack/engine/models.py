"""Exported models on disk: the shipped ones by name, others by path."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from duotrack.errors import ModelError
from duotrack.network import DEFAULT_MODEL, ModelSpec

FORMAT_VERSION = 1
GRAPH_FILES = ("template.onnx", "search.onnx")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder that was found complete and undamaged.

    Attributes:
        check: a recorded input and output of the network, to prove a provider with (see ``engine.proof``).
        arithmetic: what the graphs themselves say to compute in, as ``int8``; None leaves it to the provider.
        tolerance: how much that may add to the provider's own error.
    """

    directory: Path
    spec: ModelSpec
    check: dict[str, Any]
    arithmetic: str | None = None
    tolerance: float = 0.0

    @property
    def template_graph(self) -> Path:
        return self.directory / "template.onnx"

    @property
    def search_graph(self) -> Path:
        return self.directory / "search.onnx"


def available_models() -> list[str]:
    """Names of the models that ship with the package."""
    with as_file(files("duotrack") / "weights") as folder:
        return sorted(path.parent.name for path in folder.glob("*/model.json"))


def open_model(model: str | Path | None = None) -> ModelFolder:
    """Find a model: a shipped name, or the path of a model folder or of its ``model.json``.

    Raises:
        ModelError: there is no such model, a file is missing or damaged, or its format is not known.
    """
    directory = _locate(model)
    try:
        record = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        found, spec, check = record["format"], record["spec"], record["check"]
        sums = {**record["sha256"], **{name: record["sha256"][name] for name in GRAPH_FILES}}
        arithmetic, tolerance = record.get("arithmetic"), float(record.get("tolerance", 0.0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot read {directory / 'model.json'}: {error!r}") from error
    if found != FORMAT_VERSION:
        raise ModelError(f"{directory} has model format {found}, this DuoTrack reads format {FORMAT_VERSION}")
    for name, expected in sums.items():
        try:
            actual = hashlib.sha256((directory / name).read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(f"model file {directory / name} cannot be read: {error.strerror}") from error
        if actual != expected:
            raise ModelError(f"model file {directory / name} is damaged: its SHA-256 differs from model.json's")
    return ModelFolder(directory, ModelSpec.from_json(spec), check, arithmetic, tolerance)


def fingerprint(model: str | Path | None = None) -> str:
    """Twelve hexadecimal digits that change with the model's weights, graphs or settings, whatever its name.

    Raises:
        ModelError: there is no such model.
    """
    return hashlib.sha256((_locate(model) / "model.json").read_bytes()).hexdigest()[:12]


def _locate(model: str | Path | None) -> Path:
    model = DEFAULT_MODEL if model is None else model
    path = Path(model)
    if path.name == "model.json" and path.is_file():
        return path.parent
    if (path / "model.json").is_file():
        return path
    if isinstance(model, str) and model in available_models():
        with as_file(files("duotrack") / "weights" / model) as folder:
            return folder
    shipped = ", ".join(available_models()) or "none"
    raise ModelError(
        f"no model {str(model)!r}: expected a shipped name ({shipped}) or the path of an exported model folder"
    )
