"""From what a user has (trained weights, or a model folder) to the form that they want."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from duotrack.engine.models import ModelFolder, open_model
from duotrack.errors import ModelError
from duotrack.export.calibration import calibration_sources, draw_samples
from duotrack.export.folder import Storage
from duotrack.export.graphs import export_model
from duotrack.export.quantize import quantize_folder
from duotrack.export.tensorrt import build_plans, missing_parts
from duotrack.nets.models import load_model

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Target = Literal["onnx", "tensorrt"]

PRECISIONS: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "int8": "int8"}
TARGETS: dict[str, Target] = {"onnx": "onnx", "tensorrt": "tensorrt"}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What ``duotrack export`` was asked for.

    Attributes:
        name: the model's name; by default the one that the source has.
        precision: for ONNX how weights are stored, and for int8 computed with; for TensorRT what a plan computes in.
        calibrate: folder of training images for int8 (docs/training.md).
        samples: how many crops of them.
    """

    name: str | None = None
    precision: Precision = "fp16"
    target: Target = "onnx"
    calibrate: Path | None = None
    samples: int = 256

    def __post_init__(self) -> None:
        if self.target == "tensorrt" and self.precision == "fp32":
            raise ModelError("a TensorRT plan computes in fp16, bf16 or int8, not in fp32")
        if self.precision == "int8" and self.calibrate is None:
            raise ModelError("int8 needs training images to measure ranges on: --calibrate DATA")


def export_from(source: str, directory: Path, options: ExportOptions) -> None:
    """Write ``source``, a weights file, a model folder or a shipped model's name, as the model folder ``directory``.

    Raises:
        ModelError: the source cannot be read, is in its final form already, or something that the target needs is
            missing here.
        SourceError: the images to calibrate on cannot be read.
    """
    if options.target == "tensorrt" and (missing := missing_parts()):
        raise ModelError(f"cannot build TensorRT plans here: {'; '.join(missing)}")
    with tempfile.TemporaryDirectory() as scratch:
        if Path(source).suffix == ".safetensors":
            folder = _from_weights(Path(source), Path(scratch) / "float", options)
        elif options.target == "onnx" and options.precision != "int8":
            given = open_model(source).directory
            raise ModelError(f"{given} is exported already; of it can be made --precision int8, or --target tensorrt")
        else:
            folder = open_model(source)
        if options.name is not None:
            folder = replace(folder, spec=replace(folder.spec, name=options.name))
        if options.calibrate is not None and options.precision == "int8":
            samples = draw_samples(calibration_sources(options.calibrate), folder.spec, options.samples)
            int8 = Path(scratch) / "int8"
            quantize_folder(folder, int8, samples, symmetric=options.target == "tensorrt")
            folder = open_model(int8)
        if options.target == "tensorrt" and options.precision != "fp32":
            build_plans(folder, directory, options.precision)
        else:
            shutil.copytree(folder.directory, directory, dirs_exist_ok=True)


def _from_weights(weights: Path, directory: Path, options: ExportOptions) -> ModelFolder:
    model, name = load_model(weights)
    storage: Storage = "fp16" if options.precision == "int8" or options.target == "tensorrt" else options.precision
    export_model(model, directory, options.name or name, storage)
    return open_model(directory)
