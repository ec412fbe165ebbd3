"""TensorRT plans from a model folder, on the machine with the GPU that is to run them.

The result is a model folder again: ``template.onnx`` and ``search.onnx`` hold a single EPContext node each, which
points ONNX Runtime's TensorRT provider to the plan beside it, so that ``Engine.open`` loads and proves it as any other.
"""

from __future__ import annotations

import ctypes
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import helper

from duotrack.engine import proof
from duotrack.engine.models import ModelFolder
from duotrack.errors import ModelError
from duotrack.export.folder import read_record, write_record
from duotrack.export.graphs import OPSET

PlanPrecision = Literal["fp16", "bf16", "int8"]
# The first with the ONNX parser for opset 20, and with batches that need no flag; 11 takes no precision flags.
OLDEST, TOO_NEW = (10, 0), (11, 0)
LARGEST_BATCH = 8

_INSTALL = "pip install 'tensorrt>=10,<11'"


def missing_parts() -> list[str]:
    """What keeps a plan from being built here, each with what to do about it; empty where nothing is missing."""
    return [*_missing_tensorrt(), *_missing_device()]


def build_plans(source: ModelFolder, directory: Path, precision: PlanPrecision) -> None:
    """Build the plans of ``source`` and write the model folder ``directory`` around them.

    Args:
        source: a folder of ONNX graphs; for ``int8`` one that ``quantize_folder`` made with ``symmetric=True``.
        precision: the least that TensorRT may compute in where that is faster; for int8 the rest is fp16.

    Raises:
        ModelError: something is missing here (the message lists it all), ``source`` does not fit ``precision``, or
            TensorRT cannot read or build a graph.
    """
    if missing := missing_parts():
        raise ModelError(f"cannot build TensorRT plans here: {'; '.join(missing)}")
    if (precision == "int8") != (source.arithmetic == "int8"):
        given = source.arithmetic or "float"
        raise ModelError(f"{source.directory} has {given} graphs, of which no {precision} plan can be built")
    trt = import_module("tensorrt")
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for graph in (source.template_graph, source.search_graph):
        plan = graph.with_suffix(".plan").name
        (directory / plan).write_bytes(_plan(trt, graph, precision))
        onnx.save_model(_wrapper(onnx.load(graph, load_external_data=False), plan), directory / graph.name)
        files += [graph.name, plan]
    tolerance = source.tolerance + proof.TOLERANCE["bf16"]
    changes = {"spec": asdict(source.spec), "arithmetic": f"{precision} plan", "tolerance": tolerance}
    write_record(directory, read_record(source.directory) | changes, files)


def _plan(trt: Any, graph: Path, precision: PlanPrecision) -> bytes:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise ModelError(f"TensorRT {trt.__version__} cannot read {graph}: {errors}")
    config = builder.create_builder_config()
    for flag in ("INT8", "FP16") if precision == "int8" else (precision.upper(),):
        config.set_flag(getattr(trt.BuilderFlag, flag))
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *rest), (1, *rest), (LARGEST_BATCH, *rest))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(f"TensorRT {trt.__version__} cannot build {graph} in {precision}; its log above says why")
    return bytes(plan)


def _wrapper(model: Any, plan: str) -> Any:
    """A graph with the inputs and outputs of ``model`` and one node that stands for ``plan``."""
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    node = helper.make_node(
        "EPContext",
        [value.name for value in inputs],
        [value.name for value in outputs],
        domain="com.microsoft",
        main_context=1,
        embed_mode=0,
        ep_cache_context=plan,
    )
    graph = helper.make_graph([node], "plan", inputs, outputs)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)


def _missing_tensorrt() -> list[str]:
    if find_spec("tensorrt") is None:
        return [f"the Python module tensorrt is not installed ({_INSTALL})"]
    try:
        trt = import_module("tensorrt")
    except (ImportError, OSError) as error:  # its libraries are separate files
        return [f"tensorrt is installed but its library libnvinfer cannot be loaded: {error} ({_INSTALL})"]
    found = str(trt.__version__)
    if not OLDEST <= tuple(int(part) for part in found.split(".")[:2]) < TOO_NEW:
        return [f"tensorrt is {found}, which is not from 10.0 to 10.x ({_INSTALL})"]
    return []


def _missing_device() -> list[str]:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ["no CUDA device: NVIDIA's driver (libcuda.so.1) is not installed"]
    count = ctypes.c_int(0)
    if (code := driver.cuInit(0)) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return [f"no CUDA device: the driver is there (cuInit says {code}) and reports {count.value} devices"]
    return []
