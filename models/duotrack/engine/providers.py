"""Execution providers, best first, and what each really does with a graph.

ONNX Runtime runs every graph, with one exception. Its OpenVINO plug-in offers no device on CPUs that are not Intel's,
though OpenVINO itself runs there, in bf16 where the CPU has it: on an AMD EPYC at about twice the speed of ONNX
Runtime's own CPU provider. There the ``openvino`` package is called directly.

A provider is opened for a number of streams, calls that run side by side, and a number of threads that these share. On
a CPU two streams of one thread do more pairs in a second than one stream of two threads, and each pair takes longer
(``benchmarks/engine_streams.py``).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from queue import LifoQueue
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from duotrack.errors import ModelError

Arrays = dict[str, NDArray[Any]]
Precision = Literal["fp32", "bf16"]

_PLUGIN = "OpenVINOExecutionProvider"


class Graph(Protocol):
    """One loaded graph. ``run`` may be called from several threads."""

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name, as arrays that nobody else writes to."""
        ...

    def assignment(self) -> dict[str, int]:
        """How many subgraphs or nodes each execution provider took, by its name."""
        ...


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What really runs, as shown by ``duotrack doctor`` and ``/health``.

    Attributes:
        model: name of the model.
        provider: the provider's short name, one of ``PROVIDERS``.
        runtime: the execution provider as its runtime calls it, and that runtime.
        precision: ``fp32`` or ``bf16``, or what the model's graphs say themselves, as ``int8``.
        threads: inference threads, of all streams together.
        streams: how many threads may call at once without waiting for one another.
        assignment: how many parts of the search graph each execution provider took.
        skipped: faster providers that were passed over, with the reason.
    """

    model: str
    provider: str
    runtime: str
    precision: str
    threads: int
    streams: int
    assignment: Mapping[str, int]
    skipped: Mapping[str, str]


class ProviderUnavailableError(Exception):
    """This provider cannot run here; the message says why."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A provider that is ready to load graphs."""

    runtime: str
    precision: Precision
    load: Callable[[Path], Graph]


Opener: TypeAlias = Callable[[int, int, Precision | None], Opened]
"""Opens a provider with that many threads, for that many streams, at that precision or the fastest."""


class OnnxGraph:
    """A graph in an ONNX Runtime session."""

    def __init__(self, path: Path, options: Any, providers: list[str] | None) -> None:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> Arrays:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def assignment(self) -> dict[str, int]:
        return dict(Counter(part.ep_name for part in self._session.get_provider_graph_assignment_info()))


class OpenVinoGraph:
    """A graph compiled by OpenVINO itself, with one inference request for each stream.

    It is compiled for batches of one, and takes larger ones row by row: OpenVINO is about a tenth faster where shapes
    are fixed, and streams of one thread each gain nothing from larger batches, of fixed shape or not.
    """

    def __init__(self, path: Path, config: dict[str, Any], streams: int) -> None:
        model = _openvino_core().read_model(str(path))
        model.reshape({port.get_any_name(): [1, *list(port.get_partial_shape())[1:]] for port in model.inputs})
        compiled = _openvino_core().compile_model(model, "CPU", config)
        self._outputs = [output.get_any_name() for output in compiled.outputs]
        self._nodes = len(compiled.get_runtime_model().get_ops())
        # The request that was used last is taken first: its memory is still in the caches.
        self._idle: LifoQueue[Any] = LifoQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def run(self, inputs: Arrays) -> Arrays:
        batch = len(next(iter(inputs.values())))
        request = self._idle.get()
        try:
            rows = [
                self._run_one(request, {name: value[row : row + 1] for name, value in inputs.items()})
                for row in range(batch)
            ]
        finally:
            self._idle.put(request)
        return rows[0] if batch == 1 else {name: np.concatenate([row[name] for row in rows]) for name in self._outputs}

    def _run_one(self, request: Any, inputs: Arrays) -> Arrays:
        results = request.infer(inputs, share_outputs=True)  # and copied here, before the next call overwrites them
        return {name: np.array(results[index]) for index, name in enumerate(self._outputs)}

    def assignment(self) -> dict[str, int]:
        return {"openvino.CPU": self._nodes}


def default_threads() -> int:
    """The number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_onnxruntime(name: str) -> Opener:
    """A provider that is built into ONNX Runtime, by its full name."""

    def opened(threads: int, streams: int, precision: Precision | None) -> Opened:
        if name not in ort.get_available_providers():
            raise ProviderUnavailableError(f"this onnxruntime is built without {name}")
        if precision == "bf16":
            raise ProviderUnavailableError(f"{name} computes in fp32 only")
        return Opened(name, "fp32", lambda path: OnnxGraph(path, _session_options(threads, streams), [name]))

    return opened


def open_plugin(threads: int, streams: int, precision: Precision | None) -> Opened:
    """OpenVINO as a plug-in of ONNX Runtime."""
    if find_spec("onnxruntime_ep_openvino") is None:
        raise ProviderUnavailableError("onnxruntime-ep-openvino is not installed (pip install 'duotrack[cpu]')")
    _register_plugin()
    devices = [
        device for device in ort.get_ep_devices() if device.ep_name == _PLUGIN and device.device.type.name == "CPU"
    ]
    if not devices:
        raise ProviderUnavailableError("the OpenVINO plug-in offers no device on this CPU (it looks for Intel's)")
    chosen = precision or _best_precision()
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if chosen == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": str(streams),
    }

    def load(path: Path) -> Graph:
        options = _session_options(threads, streams)
        options.add_provider_for_devices(devices, {"load_config": json.dumps({"CPU": config})})
        return OnnxGraph(path, options, None)

    return Opened(f"{_PLUGIN} (plug-in of onnxruntime)", chosen, load)


def open_openvino(threads: int, streams: int, precision: Precision | None) -> Opened:
    """OpenVINO called directly."""
    if find_spec("openvino") is None:
        raise ProviderUnavailableError("openvino is not installed (pip install 'duotrack[cpu]')")
    has_bf16 = "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not has_bf16:
        raise ProviderUnavailableError("this CPU has no bf16 arithmetic")
    chosen: Precision = precision or ("bf16" if has_bf16 else "fp32")
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if chosen == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # Pinned, every compiled graph takes the same cores from the first on: two engines in one process would share
        # one core, at half the speed. Alone, an engine is as fast without.
        "ENABLE_CPU_PINNING": False,
    }
    return Opened("OpenVINO CPU", chosen, lambda path: OpenVinoGraph(path, config, streams))


# Best first. TensorRT and CUDA run the same graphs where onnxruntime-gpu is installed.
PROVIDERS: dict[str, Opener] = {
    "tensorrt": open_onnxruntime("TensorrtExecutionProvider"),
    "cuda": open_onnxruntime("CUDAExecutionProvider"),
    "openvino-plugin": open_plugin,
    "openvino": open_openvino,
    "cpu": open_onnxruntime("CPUExecutionProvider"),
}


def require_provider(name: str) -> None:
    """Raises ModelError where ``name`` is no provider's short name."""
    if name not in PROVIDERS:
        raise ModelError(f"unknown provider {name!r}: expected one of {', '.join(PROVIDERS)}")


def _session_options(threads: int, streams: int) -> Any:
    options = ort.SessionOptions()
    # This count includes the calling thread, and all callers share the others: together they are ``threads``.
    options.intra_op_num_threads = threads - streams + 1
    options.log_severity_level = 3
    return options


@cache
def _register_plugin() -> None:
    import onnxruntime_ep_openvino

    ort.register_execution_provider_library(_PLUGIN, onnxruntime_ep_openvino.get_library_path())


@cache
def _openvino_core() -> Any:
    import openvino

    return openvino.Core()


def _best_precision() -> Precision:
    return "bf16" if cpu_flags() & {"amx_bf16", "avx512_bf16"} else "fp32"


def cpu_flags() -> frozenset[str]:
    """Instruction sets of this machine's CPU as Linux names them; empty where that cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    lines = (line.partition(":")[2] for line in text.splitlines() if line.startswith("flags"))
    return cast("frozenset[str]", frozenset(next(lines, "").split()))
