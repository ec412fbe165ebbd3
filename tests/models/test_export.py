"""The exported graphs against the torch networks, and what a model folder holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from duotrack.boxes import Box
from duotrack.engine import Engine
from duotrack.errors import ModelError
from duotrack.export import export_model, read_model
from duotrack.export.folder import read_graph, read_record, write_folder
from duotrack.frames import FramePair
from duotrack.nets.network import TorchNetwork
from duotrack.nets.student import Student
from duotrack.nets.teacher import Teacher, TeacherConfig
from duotrack.network import ModelSpec, Prediction, Template
from duotrack.tracker import Tracker

if TYPE_CHECKING:
    from conftest import ExportedModel, NetworkInput


@dataclass(frozen=True)
class ExportedTeacher:
    directory: Path
    model: Teacher


@pytest.fixture(scope="module")
def engine(exported: ExportedModel) -> Engine:
    return Engine.open(exported.directory, provider="cpu", threads=1)


def make_lively(model: Teacher) -> None:
    """Move every parameter, so that no two are equal, and let the score head really depend on what it sees."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
            if name.startswith("box_head") and name.endswith(".0.weight"):
                parameter.mul_(2)
            elif name.startswith("box_head.conv5") and name.endswith("weight"):
                parameter.normal_(0, 0.6)
            elif name.startswith(("box_head.conv5", "backbone.pos_embed")):
                parameter.normal_(0, 0.5)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> ExportedTeacher:
    torch.manual_seed(2)
    model = Teacher(TeacherConfig(width=48, depth=2, heads=3, head_channels=16, weighing=True)).eval()
    make_lively(model)
    directory = tmp_path_factory.mktemp("models") / "teacher"
    export_model(model, directory, "tiny-teacher")
    return ExportedTeacher(directory, model)


def part(template: Template, sessions: slice) -> Template:
    return Template(template.crop[sessions], template.present[sessions], template.box[sessions])


def assert_close(found: Prediction, expected: Prediction, tolerance: float) -> None:
    for name in ("score_map", "box_map", "presence"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.shape == theirs.shape, name
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() <= tolerance, name


@pytest.mark.parametrize("sessions", [slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 3)], ids=str)
def test_onnx_computes_what_torch_computes(
    engine: Engine, exported: ExportedModel, network_input: NetworkInput, sessions: slice
) -> None:
    """Each of the three inputs lacks other modalities and has another template box; alone and as a batch."""
    template = part(network_input.template, sessions)
    crop, present = network_input.search[sessions], network_input.present[sessions]
    expected_features = exported.network.encode(template)
    features = engine.encode(template)
    assert features.shape == expected_features.shape
    assert np.abs(features - expected_features).max() < 1e-3
    expected = exported.network.search(crop, present, expected_features)
    assert_close(engine.search(crop, present, features), expected, 1e-3)
    assert expected.score_map.std() > 1e-2  # outputs that could differ at all


def test_features_of_one_session_are_those_in_a_batch(engine: Engine, network_input: NetworkInput) -> None:
    together = engine.encode(network_input.template)
    for session in range(3):
        alone = engine.encode(part(network_input.template, slice(session, session + 1)))
        assert np.abs(alone[0] - together[session]).max() < 1e-5


def test_template_boxes_reach_the_outputs(engine: Engine, network_input: NetworkInput) -> None:
    template = part(network_input.template, slice(0, 1))
    other = Template(template.crop, template.present, np.array([[0.5, 0.5, 0.1, 0.1]], np.float32))
    assert np.abs(engine.encode(template) - engine.encode(other)).max() > 1e-2


def test_pixels_of_an_absent_modality_do_not_matter(engine: Engine, network_input: NetworkInput) -> None:
    features = engine.encode(part(network_input.template, slice(0, 1)))
    crop, present = network_input.search[:1], np.array([[1, 0]], np.float32)
    other = crop.copy()
    other[..., 3] = 255 - other[..., 3]
    assert_close(engine.search(other, present, features), engine.search(crop, present, features), 0)


def test_crops_need_not_be_contiguous(engine: Engine, network_input: NetworkInput) -> None:
    features = engine.encode(network_input.template)
    expected = engine.search(network_input.search, network_input.present, features)
    mirrored = np.ascontiguousarray(network_input.search[:, :, ::-1])[:, :, ::-1]
    assert not mirrored.flags.c_contiguous
    assert_close(engine.search(mirrored, network_input.present, features), expected, 0)


def test_weights_are_stored_once_and_in_half_precision(exported: ExportedModel) -> None:
    parameters = sum(parameter.numel() for parameter in exported.student.parameters())
    size = (exported.directory / "weights.bin").stat().st_size
    assert 0.9 * 2 * parameters < size < 1.1 * 2 * parameters
    for graph in ("template", "search"):
        assert (exported.directory / f"{graph}.onnx").stat().st_size < 200_000


def test_both_graphs_point_into_one_file(exported: ExportedModel) -> None:
    """The transformer blocks' matrices are used by both, at the same place."""
    places: dict[str, set[tuple[str, str]]] = {}
    for graph in ("template", "search"):
        model = onnx.load(exported.directory / f"{graph}.onnx", load_external_data=False)
        places[graph] = set()
        for tensor in model.graph.initializer:
            external = {entry.key: entry.value for entry in tensor.external_data}
            if external:
                assert external["location"] == "weights.bin"
                assert tensor.data_type == onnx.TensorProto.FLOAT16
                places[graph].add((external["offset"], external["length"]))
    matrices = 4 * exported.student.config.depth  # qkv, proj, fc1, fc2 of each block
    assert (
        len(places["template"] & places["search"]) >= matrices - 4
    )  # the last block's are not all needed for a template


def test_the_stored_numbers_are_the_parameters(exported: ExportedModel) -> None:
    content = (exported.directory / "weights.bin").read_bytes()
    for name, parameter in exported.student.named_parameters():
        if "blocks" in name and parameter.ndim == 2:
            values = parameter.detach().half().numpy()
            assert values.tobytes() in content or np.ascontiguousarray(values.T).tobytes() in content, name


def test_the_graphs_take_any_batch_and_raw_pixels(exported: ExportedModel) -> None:
    model = onnx.load(exported.directory / "search.onnx", load_external_data=False)
    shapes = {value.name: value.type.tensor_type for value in model.graph.input}
    assert shapes["search"].elem_type == onnx.TensorProto.UINT8
    for tensor in shapes.values():
        assert tensor.shape.dim[0].dim_param
    assert [dim.dim_value for dim in shapes["search"].shape.dim][1:] == [256, 256, 4]


def test_export_rounds_the_student_to_half_precision(exported: ExportedModel) -> None:
    for parameter in exported.student.parameters():
        assert torch.equal(parameter, parameter.half().float())


def test_model_json_describes_the_model(exported: ExportedModel) -> None:
    record = json.loads((exported.directory / "model.json").read_text(encoding="utf-8"))
    assert record["format"] == 1
    assert ModelSpec.from_json(record["spec"]) == exported.network.spec
    assert record["network"] == asdict(exported.student.config)
    for name in ("template.onnx", "search.onnx", "weights.bin"):
        content = (exported.directory / name).read_bytes()
        assert record["sha256"][name] == hashlib.sha256(content).hexdigest()
    assert np.array(record["check"]["score_map"]).shape == (16, 16)
    assert np.array(record["check"]["box_map"]).shape == (4, 16, 16)


@pytest.mark.parametrize("sessions", [slice(0, 1), slice(0, 3)], ids=["one", "three"])
def test_a_teacher_computes_what_torch_computes(
    teacher: ExportedTeacher, network_input: NetworkInput, sessions: slice
) -> None:
    engine = Engine.open(teacher.directory, provider="cpu", threads=1)
    network, template = TorchNetwork(teacher.model), part(network_input.template, sessions)
    crop, present = network_input.search[sessions], network_input.present[sessions]
    features = engine.encode(template)
    assert features.shape == (len(crop), 3, 64, 48)  # colour, thermal and target types
    assert np.abs(features - network.encode(template)).max() < 1e-3
    expected = network.search(crop, present, features)
    assert expected.score_map.std() > 1e-2
    assert_close(engine.search(crop, present, features), expected, 1e-3)


def test_a_joint_student_in_bf16_computes_what_torch_computes(
    make_student: Callable[..., Student], network_input: NetworkInput, tmp_path: Path
) -> None:
    """Other attention, no layer scale, and weights that are rounded to and stored in bf16."""
    student = make_student(7, depth=1, template_attention="joint", layer_scale=False)
    before = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
    export_model(student, tmp_path, "joint", "bf16")
    for name, parameter in student.named_parameters():
        assert torch.equal(parameter, before[name].bfloat16().float()), name
    size, count = (tmp_path / "weights.bin").stat().st_size, sum(value.numel() for value in before.values())
    assert 0.9 * 2 * count < size < 1.1 * 2 * count
    network, engine = TorchNetwork(student), Engine.open(tmp_path, provider="cpu", threads=1)
    features = engine.encode(network_input.template)
    expected = network.search(network_input.search, network_input.present, network.encode(network_input.template))
    assert expected.score_map.std() > 1e-2
    assert_close(engine.search(network_input.search, network_input.present, features), expected, 1e-3)


def test_an_exported_teacher_tracks(teacher: ExportedTeacher) -> None:
    """On the default provider, and step by step as the torch network does on the same frames."""
    rng = np.random.default_rng(0)
    frames = [
        FramePair(rng.integers(0, 256, (96, 128, 3), np.uint8), rng.integers(0, 256, (96, 128), np.uint8))
        for _ in range(3)
    ]
    found = []
    for network in (Engine.open(teacher.directory, precision="fp32", threads=1), TorchNetwork(teacher.model)):
        tracker = Tracker(network)
        tracker.init(frames[0], Box(40, 30, 24, 30))
        found.append([tracker.update(frame).box.xywh for frame in frames[1:]])
    assert np.array(found[0]) == pytest.approx(np.array(found[1]), abs=0.5)


def test_initialisers_are_named_after_parameters(exported: ExportedModel) -> None:
    """So that a folder says which numbers are what; matrices are transposed for MatMul, and say so."""
    model = onnx.load(exported.directory / "search.onnx")
    stored = {tensor.name.removesuffix(".fp16"): tensor for tensor in model.graph.initializer}
    for name, parameter in exported.student.named_parameters():
        if ".blocks." in name and parameter.ndim == 2:
            values = onnx.numpy_helper.to_array(stored[f"{name}.T"])
            assert np.array_equal(values, parameter.detach().half().numpy().T), name


def test_a_folder_becomes_a_torch_network_again(teacher: ExportedTeacher, network_input: NetworkInput) -> None:
    again = TorchNetwork(read_model(teacher.directory))
    network, template = TorchNetwork(teacher.model), network_input.template
    expected = network.search(network_input.search, network_input.present, network.encode(template))
    found = again.search(network_input.search, network_input.present, again.encode(template))
    assert_close(found, expected, 1e-3)


def test_equal_parameters_come_back_too(exported: ExportedModel) -> None:
    """The exporter merges them: fresh norms and gains are all equal."""
    again = read_model(exported.directory).state_dict()
    for name, parameter in exported.student.named_parameters():
        if "box_head" not in name:  # its BatchNorms are folded into its convolutions
            assert torch.equal(again[name], parameter), name


def test_a_folder_without_names_says_what_is_missing(exported: ExportedModel, tmp_path: Path) -> None:
    for file in exported.directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    (tmp_path / "model.json").write_text(json.dumps(record | {"architecture": "pupil"}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"does not say which network it was exported from: .*pupil"):
        read_model(tmp_path)


def test_float32_weights_are_stored_unrounded(exported: ExportedModel, tmp_path: Path) -> None:
    graphs = {graph: read_graph(exported.directory / f"{graph}.onnx") for graph in ("template", "search")}
    write_folder(tmp_path, graphs, "fp32", read_record(exported.directory))
    size = (exported.directory / "weights.bin").stat().st_size
    assert 1.9 * size < (tmp_path / "weights.bin").stat().st_size < 2.1 * size
    weight = exported.student.get_parameter("backbone.blocks.1.mlp.fc2.weight").detach().numpy()
    assert np.ascontiguousarray(weight.T).tobytes() in (tmp_path / "weights.bin").read_bytes()
    assert Engine.open(tmp_path, provider="cpu", threads=1).report.precision == "fp32"
