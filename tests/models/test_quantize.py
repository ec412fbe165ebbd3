"""Int8 model folders: what is integer in them, how far they are from float, and what they are calibrated on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
import pytest

from duotrack.boxes import CropWindow
from duotrack.crops import resample_reference
from duotrack.data.images import read_boxes, validation_split
from duotrack.engine import Engine, proof
from duotrack.engine.models import ModelFolder, open_model
from duotrack.errors import ModelError, SourceError
from duotrack.export.calibration import Sample, calibration_sources, draw_samples
from duotrack.export.quantize import quantize_folder
from duotrack.network import ModelSpec, Template

if TYPE_CHECKING:
    from conftest import ExportedModel, NetworkInput


@pytest.fixture(scope="module")
def samples(network_input: NetworkInput) -> list[Sample]:
    given = network_input.template
    return [
        Sample(
            Template(*(values[index : index + 1] for values in (given.crop, given.present, given.box))),
            network_input.search[index : index + 1],
            network_input.present[index : index + 1],
        )
        for index in range(3)
    ]


@pytest.fixture(scope="module")
def source(exported: ExportedModel) -> ModelFolder:
    return open_model(exported.directory)


@pytest.fixture(scope="module")
def int8(source: ModelFolder, samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "int8"
    quantize_folder(source, directory, samples, symmetric=False)
    return directory


def dequantised(path: Path) -> dict[str, onnx.TensorProto]:
    """Integer weights by the name of what they stand for, with their scales beside them."""
    model = onnx.load(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    return {node.input[0]: (stored[node.input[0]], stored[node.input[1]]) for node in nodes}


def test_each_channel_of_a_matrix_is_rounded_on_a_scale_of_its_own(int8: Path, exported: ExportedModel) -> None:
    """By hand: a column's largest weight is 127 steps, and no weight is off by more than half a step."""
    weights = dequantised(int8 / "search.onnx")
    parameter = exported.student.get_parameter("backbone.blocks.0.mlp.fc1.weight").detach().numpy()
    integers, scales = (
        onnx.numpy_helper.to_array(tensor) for tensor in weights["backbone.blocks.0.mlp.fc1.weight.T_quantized"]
    )
    assert integers.dtype == np.int8
    assert scales == pytest.approx(np.abs(parameter).max(1) / 127, rel=1e-3)
    assert (np.abs(integers * scales - parameter.T) <= scales * 0.501).all()


def test_every_large_matrix_is_integer_and_the_last_layers_are_not(int8: Path, exported: ExportedModel) -> None:
    names = {name.removesuffix("_quantized").removesuffix(".T") for name in dequantised(int8 / "search.onnx")}
    for name, parameter in exported.student.named_parameters():
        if name.startswith("backbone.blocks") and parameter.ndim == 2:
            assert name in names, name
    assert not any("conv5" in name or "presence" in name for name in names)


def test_int8_is_near_float_in_every_runtime(int8: Path, source: ModelFolder, network_input: NetworkInput) -> None:
    """And its folder records how near, so that the proof accepts it and still refuses garbage."""
    folder = open_model(int8)
    assert 0 < folder.tolerance < 0.2
    reference = Engine.open(source.directory, provider="cpu", threads=1)
    features = reference.encode(network_input.template)
    expected = reference.search(network_input.search, network_input.present, features)
    for provider in ("cpu", "openvino"):
        try:
            engine = Engine.open(int8, provider=provider, threads=1)
        except ModelError as error:
            if "not installed" not in str(error):
                raise
            continue
        assert engine.report.precision == "int8"
        found = engine.search(network_input.search, network_input.present, engine.encode(network_input.template))
        assert np.abs(found.score_map - expected.score_map).mean() < 0.02
        assert np.abs(found.presence - expected.presence).max() < 0.1
        assert np.abs(found.score_map - expected.score_map).max() > 0  # something was rounded


def test_the_proof_of_an_int8_folder_still_refuses_garbage(int8: Path, tmp_path: Path) -> None:
    for file in int8.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    record["check"]["presence"] += record["tolerance"] + 2 * proof.TOLERANCE["bf16"]
    (tmp_path / "model.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ModelError, match="computes wrongly"):
        Engine.open(tmp_path, provider="cpu", threads=1)


def test_an_int8_folder_is_about_half_the_size(int8: Path, source: ModelFolder) -> None:
    sizes = [(folder / "weights.bin").stat().st_size for folder in (int8, source.directory)]
    assert sizes[0] < 0.65 * sizes[1]


def test_symmetric_activations_have_no_zero_point(source: ModelFolder, samples: list[Sample], tmp_path: Path) -> None:
    """TensorRT takes signed activations around zero only."""
    quantize_folder(source, tmp_path, samples[:1], symmetric=True)
    model = onnx.load(tmp_path / "search.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(nodes) > 20
    for node in nodes:
        assert stored[node.input[2]].dtype == np.int8
        assert not stored[node.input[2]].any()


def test_int8_is_not_made_twice_or_of_nothing(
    int8: Path, source: ModelFolder, samples: list[Sample], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="is int8 already"):
        quantize_folder(open_model(int8), tmp_path, samples, symmetric=False)
    with pytest.raises(ModelError, match="needs samples to measure ranges on, got none"):
        quantize_folder(source, tmp_path, [], symmetric=False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A training sequence, and one with a held-out name and other pixels."""
    rng = np.random.default_rng(4)
    held_out = validation_split()["rgb-sequences"][0]
    for name, level in (("street", 40), (held_out, 200)):
        folder = tmp_path / "rgb-sequences" / name
        (folder / "visible").mkdir(parents=True)
        for index in range(3):
            frame = rng.integers(level, level + 30, (60, 80, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "visible" / f"{index:04}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 100])
        (folder / "groundtruth.txt").write_text("30,20,16,12\n" * 3, encoding="utf-8")
    return tmp_path


def test_samples_are_crops_of_training_sequences_as_the_tracker_cuts_them(images: Path) -> None:
    spec = ModelSpec("any")
    samples = draw_samples(calibration_sources(images), spec, 6)
    folder = images / "rgb-sequences" / "street"
    frames = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in sorted((folder / "visible").iterdir())]
    box = read_boxes(folder / "groundtruth.txt")[0]
    assert box is not None
    window = CropWindow.around(box, 2.0, 128)
    expected = [resample_reference(frame, window).astype(int) for frame in frames]
    for sample in samples:
        template = sample.template
        found = template.crop[0, ..., :3].astype(int)
        assert min(np.abs(found - crop).mean() for crop in expected) < 1
        assert template.box[0] == pytest.approx(window.to_crop(box))
        assert template.present.tolist() == sample.present.tolist() == [[1, 0]]
        assert sample.search.shape == (1, 256, 256, 4)
        assert sample.search[..., :3].max() < 120  # nothing of the held-out sequence
        assert not sample.search[..., 3].any()


def test_the_same_seed_gives_the_same_samples(images: Path) -> None:
    sources = calibration_sources(images)
    first, again, other = (draw_samples(sources, ModelSpec("any"), 2, seed)[1].search for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_folder_with_nothing_to_calibrate_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has nothing to calibrate on: expected rgb-sequences, rgbt-pairs or"):
        calibration_sources(tmp_path)
