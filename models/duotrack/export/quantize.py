"""Int8 model folders: static quantisation of a float folder, calibrated on real crops.

Large matrices and kernels become int8, with a scale for each output channel; what goes into them is rounded to 8 bits
within the range seen in calibration (QuantizeLinear and DequantizeLinear nodes around them). Softmax, norms, products
of two activations, and the small last layers stay in float: little time is spent there, and their errors show.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from duotrack.engine import proof
from duotrack.engine.models import ModelFolder
from duotrack.engine.providers import Arrays
from duotrack.errors import ModelError
from duotrack.export.calibration import Sample
from duotrack.export.folder import SMALLEST_SHARED, read_graph, read_record, write_folder
from duotrack.network import Prediction

_QUANTISED = ("MatMul", "Conv")
# Rounding errors of another runtime's int8 kernels come on top of those measured here.
_MARGIN = 2.0


class _Inputs(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, inputs: Iterator[Arrays]) -> None:
        self._inputs = inputs

    def get_next(self) -> Arrays | None:
        return next(self._inputs, None)


def quantize_folder(source: ModelFolder, directory: Path, samples: Sequence[Sample], *, symmetric: bool) -> float:
    """Write ``source`` as the int8 model folder ``directory``.

    Args:
        samples: what activations' ranges are measured on; a few hundred.
        symmetric: signed activations around zero, as TensorRT wants them; else unsigned ones with a zero point, which
            are finer and faster on CPUs.

    Returns:
        The largest difference to the float model in its recorded run (``proof.largest_error``).

    Raises:
        ModelError: ``source`` is not a folder of float ONNX graphs, or there are no samples.
    """
    if source.arithmetic is not None:
        raise ModelError(f"{source.directory} is {source.arithmetic} already: int8 is made from float weights")
    if not samples:
        raise ModelError("int8 needs samples to measure ranges on, got none")
    template, search = (read_graph(path) for path in (source.template_graph, source.search_graph))
    encode = _session(template)
    templates = [_template_inputs(sample) for sample in samples]
    searches = (
        {"search": sample.search, "present": sample.present, "features": encode.run(["features"], inputs)[0]}
        for sample, inputs in zip(samples, templates, strict=True)
    )
    graphs = {
        "template": _quantised(template, iter(templates), symmetric),
        "search": _quantised(search, searches, symmetric),
    }
    error = _recorded_error(graphs["template"], graphs["search"], source)
    changes = {"spec": asdict(source.spec), "arithmetic": "int8", "tolerance": round(_MARGIN * error, 4)}
    record = read_record(source.directory) | changes
    write_folder(directory, graphs, "fp16", record)
    return error


def _quantised(model: Any, inputs: Iterator[Arrays], symmetric: bool) -> Any:
    sizes = {tensor.name: _size(tensor) for tensor in model.graph.initializer}
    nodes = [
        node.name
        for node in model.graph.node
        if node.op_type in _QUANTISED and sizes.get(node.input[1], 0) >= SMALLEST_SHARED
    ]
    # What the preprocessing it would otherwise ask for does, torch's exporter has done.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "int8.onnx"
        quantize_static(
            model,
            path,
            _Inputs(inputs),
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": symmetric,
                "OpTypesToExcludeOutputQuantization": list(_QUANTISED),
                "QuantizeBias": False,
            },
        )
        return onnx.load(path)


def _recorded_error(template: Any, search: Any, source: ModelFolder) -> float:
    first, crop, present = proof.proof_input(source.spec)
    inputs = {"template": first.crop, "present": first.present, "box": first.box}

    def predict() -> Prediction:
        features = _session(template).run(["features"], inputs)[0]
        given = {"search": crop, "present": present, "features": features}
        return Prediction(*_session(search).run(["score_map", "box_map", "presence"], given))

    return proof.largest_error(predict, source.check)


def _template_inputs(sample: Sample) -> Arrays:
    template = sample.template
    return {"template": template.crop, "present": template.present, "box": template.box}


def _session(model: Any) -> Any:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _size(tensor: Any) -> int:
    count = 1
    for length in tensor.dims:
        count *= length
    return count
