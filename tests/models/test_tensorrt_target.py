"""The TensorRT target: what it says where TensorRT is not there, and the calls that it makes where it is.

No machine with TensorRT has run this: the builder here is a hand-written stand-in that records the calls, and what it
cannot show is whether TensorRT accepts the graphs.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from duotrack.engine import Engine, proof
from duotrack.engine.models import open_model
from duotrack.errors import ModelError
from duotrack.export import tensorrt
from duotrack.export.source import ExportOptions, export_from
from duotrack.export.tensorrt import build_plans, missing_parts

if TYPE_CHECKING:
    from conftest import ExportedModel


def has_cuda() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def test_what_is_missing_here_is_named_with_what_to_install(exported: ExportedModel, tmp_path: Path) -> None:
    """By real absence, and before anything is read or written."""
    if find_spec("tensorrt") is not None or has_cuda():
        pytest.skip("TensorRT or an NVIDIA driver is installed here")
    assert missing_parts() == [
        "the Python module tensorrt is not installed (pip install 'tensorrt>=10,<11')",
        "no CUDA device: NVIDIA's driver (libcuda.so.1) is not installed",
    ]
    with pytest.raises(ModelError, match=r"cannot build TensorRT plans here: .*tensorrt is not installed.*; no CUDA"):
        export_from(str(exported.directory), tmp_path / "plan", ExportOptions(target="tensorrt"))
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("found", ["8.6.1", "9.3.0.1", "11.0.0"])
def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    install(monkeypatch, Calls(found))
    monkeypatch.setattr(tensorrt, "_missing_device", list)
    assert missing_parts() == [f"tensorrt is {found}, which is not from 10.0 to 10.x (pip install 'tensorrt>=10,<11')"]


def test_a_library_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real module that fails as TensorRT's does."""
    text = "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    (tmp_path / "tensorrt.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(tensorrt, "_missing_device", list)
    (missing,) = missing_parts()
    assert "libnvinfer cannot be loaded: libnvinfer.so.10: cannot open" in missing


class Calls:
    """A stand-in for the module ``tensorrt`` that reads the graph's inputs with onnx and records what is asked."""

    def __init__(self, version: str = "10.8.0", plan: bytes | None = b"a plan", errors: tuple[str, ...] = ()) -> None:
        self.__version__ = version
        self.plan, self.errors = plan, errors
        self.flags: list[str] = []
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
        self.parsed: list[str] = []
        self.inputs: list[Any] = []
        self.BuilderFlag = SimpleNamespace(FP16="FP16", BF16="BF16", INT8="INT8")
        self.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda *_: None})

    def Builder(self, _: Any) -> Calls:  # noqa: N802 - TensorRT's name
        return self

    def OnnxParser(self, network: Calls, _: Any) -> Calls:  # noqa: N802 - TensorRT's name
        return network

    def create_network(self, flags: int) -> Calls:
        assert flags == 0
        return self

    def parse_from_file(self, path: str) -> bool:
        self.parsed.append(path)
        graph = onnx.load(path, load_external_data=False).graph
        dims = [[dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim] for value in graph.input]
        names = [value.name for value in graph.input]
        self.inputs = [SimpleNamespace(name=name, shape=shape) for name, shape in zip(names, dims, strict=True)]
        return not self.errors

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> str:
        return self.errors[index]

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def create_builder_config(self) -> Calls:
        return self

    def create_optimization_profile(self) -> Calls:
        return self

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def set_shape(self, name: str, smallest: Any, usual: Any, largest: Any) -> None:
        self.shapes[name] = (smallest, usual, largest)

    def add_optimization_profile(self, profile: Calls) -> None:
        assert profile is self

    def build_serialized_network(self, network: Calls, config: Calls) -> bytes | None:
        assert network is config is self
        return self.plan


def install(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    module = ModuleType("tensorrt")
    module.__dict__.update({name: getattr(calls, name) for name in dir(calls) if not name.startswith("__")})
    module.__dict__["__version__"] = calls.__version__
    module.__spec__ = SimpleNamespace(name="tensorrt", loader=None)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "tensorrt", module)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    recorded = Calls()
    install(monkeypatch, recorded)
    monkeypatch.setattr(tensorrt, "_missing_device", list)
    return recorded


def test_plans_are_built_for_batches_and_precision(calls: Calls, exported: ExportedModel, tmp_path: Path) -> None:
    build_plans(open_model(exported.directory), tmp_path, "bf16")
    assert calls.parsed == [str(exported.directory / name) for name in ("template.onnx", "search.onnx")]
    assert calls.flags == ["BF16", "BF16"]
    assert calls.shapes["search"] == ((1, 256, 256, 4), (1, 256, 256, 4), (8, 256, 256, 4))
    assert calls.shapes["features"] == ((1, 2, 2, 3, 64, 16), (1, 2, 2, 3, 64, 16), (8, 2, 2, 3, 64, 16))
    assert (tmp_path / "search.plan").read_bytes() == b"a plan"


def test_the_folder_points_onnx_runtime_to_the_plans(calls: Calls, exported: ExportedModel, tmp_path: Path) -> None:
    build_plans(open_model(exported.directory), tmp_path, "fp16")
    assert calls.flags == ["FP16", "FP16"]
    folder = open_model(tmp_path)
    assert folder.arithmetic == "fp16 plan"
    assert folder.tolerance == proof.TOLERANCE["bf16"]
    for name in ("template", "search"):
        original = onnx.load(exported.directory / f"{name}.onnx", load_external_data=False).graph
        graph = onnx.load(tmp_path / f"{name}.onnx").graph
        (node,) = graph.node
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        assert (node.op_type, node.domain) == ("EPContext", "com.microsoft")
        assert attributes == {"main_context": 1, "embed_mode": 0, "ep_cache_context": f"{name}.plan".encode()}
        assert list(graph.input) == list(original.input)
        assert list(graph.output) == list(original.output)


@pytest.mark.usefixtures("calls")
def test_a_plan_needs_the_tensorrt_provider(exported: ExportedModel, tmp_path: Path) -> None:
    build_plans(open_model(exported.directory), tmp_path, "fp16")
    with pytest.raises(ModelError, match=r"no provider can run tiny: cpu: failed to load the model: .*EPContext"):
        Engine.open(tmp_path, provider="cpu", threads=1)
    (tmp_path / "search.plan").write_bytes(b"another plan")
    with pytest.raises(ModelError, match=r"search\.plan is damaged"):
        open_model(tmp_path)


def test_int8_plans_need_int8_graphs(calls: Calls, exported: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has float graphs, of which no int8 plan can be built"):
        build_plans(open_model(exported.directory), tmp_path, "int8")
    assert calls.parsed == []


@pytest.mark.usefixtures("calls")
def test_what_tensorrt_says_is_passed_on(
    exported: ExportedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_model(exported.directory)
    install(monkeypatch, Calls(errors=("node 3: no importer for Gelu", "node 9: bad")))
    with pytest.raises(ModelError, match=r"10\.8\.0 cannot read .*template\.onnx: node 3: no importer for Gelu; node"):
        build_plans(source, tmp_path, "fp16")
    install(monkeypatch, Calls(plan=None))
    with pytest.raises(ModelError, match=r"cannot build .*template\.onnx in fp16; its log above says why"):
        build_plans(source, tmp_path, "fp16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tensorrt", "precision": "fp32"}, "computes in fp16, bf16 or int8, not in fp32"),
        ({"precision": "int8"}, "int8 needs training images to measure ranges on: --calibrate DATA"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ExportOptions(**options)


def test_a_folder_is_not_exported_again(exported: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is exported already; of it can be made --precision int8, or --target"):
        export_from(str(exported.directory), tmp_path, ExportOptions())
