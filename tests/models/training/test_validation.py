"""Validation by tracking: what is scored, and that processes share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.images import Pixels, read_sequences
from duotrack.data.readers import open_recordings
from duotrack.data.recordings import RecordingPairs
from duotrack.data.sources import PairSource, SequencePairs
from duotrack.data.synthetic import SceneConfig
from duotrack.errors import SourceError
from duotrack.evaluation.in_memory import evaluate, overlap_in_one_step
from duotrack.evaluation.sequences import GeneratedSequence
from duotrack.evaluation.trackers import NetworkTracker
from duotrack.frames import FramePair
from duotrack.nets.network import TorchNetwork
from duotrack.nets.student import Student
from duotrack.network import ModelSpec, Prediction, Template
from duotrack.training.config import Validation
from duotrack.training.distributed import Processes
from duotrack.training.held_out import require_held_out
from duotrack.training.validation import FIRST_SCENE, TrackingValidation, validation_sequences

Floats = NDArray[np.float32]
MakeStudent = Callable[..., Student]
ALONE = Processes(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class Recorded:
    """A sequence of grey frames; the boxes are what matters."""

    name: str
    boxes: Sequence[Box | None]

    def pair(self, index: int) -> FramePair:
        return FramePair(np.full((120, 160, 3), 60 + index, np.uint8), None)


class MiddleOfTheCrop:
    """A network that always answers with a box in the middle of the crop, a quarter of its side wide and high."""

    spec = ModelSpec("middle")

    def encode(self, template: Template) -> Floats:
        return np.zeros((len(template.crop), 1), np.float32)

    def search(self, crop: Pixels, present: Floats, features: Floats) -> Prediction:
        assert crop.shape == (1, 256, 256, 4)
        assert present.tolist() == [[1.0, 0.0]]
        assert features.shape == (1, 1)
        score_map = np.zeros((1, 16, 16), np.float32)
        score_map[0, 8, 8] = 1
        box_map = np.broadcast_to(np.array([0.5, 0.5, 0.25, 0.25], np.float32)[:, None, None], (1, 4, 16, 16))
        return Prediction(score_map, box_map, np.ones(1, np.float32))


def test_one_step_is_the_overlap_around_the_true_box_before() -> None:
    """The search crop's side is four times the (square) box before: the answer is that box again."""
    boxes = [
        Box(40, 40, 20, 20),
        Box(40, 40, 20, 20),
        Box(50, 40, 20, 20),
        None,
        Box(90, 40, 20, 20),
        Box(92, 40, 20, 20),
    ]
    # Still: 1. Moved by half its width: 10 / 30. Frames beside the absent one do not count. By a tenth: 18 / 22.
    expected = np.mean([1.0, 10 / 30, 18 / 22])
    assert overlap_in_one_step(MiddleOfTheCrop(), Recorded("r", boxes)) == pytest.approx(expected, abs=1e-3)
    assert overlap_in_one_step(MiddleOfTheCrop(), Recorded("r", boxes), frames=2) == pytest.approx(1, abs=1e-3)


def test_one_step_takes_thermal_of_16_bits() -> None:
    seen = []

    class Seeing(MiddleOfTheCrop):
        def search(self, crop: Pixels, present: Floats, features: Floats) -> Prediction:
            seen.append((present.tolist(), int(np.ptp(crop[..., 3]))))
            return super().search(crop, np.array([[1.0, 0.0]], np.float32), features)

    scene = SceneConfig(width=320, height=240, frames=2, seed=3, thermal_bits=16, exits=False)
    overlap_in_one_step(Seeing(), GeneratedSequence(scene))
    ((present, levels),) = seen
    assert present == [[1.0, 1.0]]
    assert levels > 100


def test_a_sequence_must_start_with_its_target() -> None:
    sequence = Recorded("late", [None, Box(1, 1, 5, 5)])
    with pytest.raises(SourceError, match="sequence late starts without its target"):
        overlap_in_one_step(MiddleOfTheCrop(), sequence)
    with pytest.raises(SourceError, match="sequence late starts without its target"):
        evaluate(NetworkTracker(MiddleOfTheCrop()), sequence)


def test_the_figures_are_means_over_sequences_and_kinds(make_student: MakeStudent) -> None:
    student = make_student(3)
    recorded = Recorded("r", [Box(40 + 2 * index, 40, 20, 24) for index in range(5)])
    (generated,) = validation_sequences(Validation(scenes=1))
    assert isinstance(generated, GeneratedSequence)
    figures = TrackingValidation([recorded, generated], 4, ALONE, bf16=False)(student)
    network = TorchNetwork(student)
    tracker = NetworkTracker(network)
    first, second = (evaluate(tracker, sequence, 4) for sequence in (recorded, generated))
    steps = [overlap_in_one_step(network, sequence, 4) for sequence in (recorded, generated)]
    assert figures == pytest.approx(
        {
            "success": (first.success + second.success) / 2,
            "precision": (first.precision + second.precision) / 2,
            "overlap": (first.overlap + second.overlap) / 2,
            "one_step": (steps[0] + steps[1]) / 2,
            "success_recorded": first.success,
            "success_generated": second.success,
            "one_step_recorded": steps[0],
            "one_step_generated": steps[1],
        }
    )
    assert figures["success_recorded"] != figures["success_generated"]


@pytest.mark.parametrize("modality", ["rgb", "thermal"])
def test_a_model_of_one_modality_is_shown_no_other(
    make_student: MakeStudent, modality: Literal["rgb", "thermal"]
) -> None:
    """As a scene whose other frames are gone."""
    (scene,) = validation_sequences(Validation(scenes=1))

    class Single:
        name, boxes = scene.name, scene.boxes

        def pair(self, index: int) -> FramePair:
            pair = scene.pair(index)
            return FramePair(pair.rgb, None) if modality == "rgb" else FramePair(None, pair.thermal)

    student = make_student(3)
    figures = TrackingValidation([scene], 4, ALONE, bf16=False, modality=modality)(student)
    assert figures == TrackingValidation([Single()], 4, ALONE, bf16=False)(student)
    assert figures["one_step"] != TrackingValidation([scene], 4, ALONE, bf16=False)(student)["one_step"]


def test_sequences_without_the_modality_are_no_validation() -> None:
    grey = Recorded("grey", [Box(40, 40, 20, 24)])
    with pytest.raises(SourceError, match=r"sequence grey cannot be validated on: data\.modality is thermal"):
        TrackingValidation([grey], 4, ALONE, bf16=False, modality="thermal")


def test_scenes_are_held_out_and_differ() -> None:
    first, second = validation_sequences(Validation(scenes=2))
    assert [first.name, second.name] == [f"synthetic-{FIRST_SCENE}", f"synthetic-{FIRST_SCENE + 1}"]
    assert first.boxes[0] is not None
    assert list(first.boxes) != list(second.boxes)


def test_nothing_to_validate_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"validation has no sequences: give validation.root or validation.scenes"):
        validation_sequences(Validation())
    with pytest.raises(SourceError, match="does not exist"):
        validation_sequences(Validation(root=tmp_path / "none"))


def local_data(root: Path, *names: str) -> None:
    for name in names:
        folder = root / "rgb-sequences" / name
        (folder / "visible").mkdir(parents=True)
        assert cv2.imwrite(str(folder / "visible" / "1.jpg"), np.full((24, 32, 3), 90, np.uint8))
        (folder / "groundtruth.txt").write_text("4,5,6,7\n", encoding="utf-8")


def test_sequences_that_are_trained_on_are_no_validation(tmp_path: Path) -> None:
    """Whatever they are read as, and by whatever way to their folder; another of the same name is another one."""
    local_data(tmp_path, "one", "two")
    local_data(tmp_path / "other", "two")
    (tmp_path / "link").symlink_to(tmp_path)
    folded = read_sequences(tmp_path / "rgb-sequences", held_out=False, fold=("one",))
    whole = open_recordings("local", tmp_path / "link")
    sources: list[tuple[PairSource, str]] = [(SequencePairs(folded), "two"), (RecordingPairs(whole), "one, two")]
    both = validation_sequences(Validation(root=tmp_path, fold=("one", "two"), scenes=1))
    for source, names in sources:
        with pytest.raises(SourceError, match=rf"of 2 sequences to validate on are trained on \({names}\): give"):
            require_held_out([source], both)
    require_held_out([SequencePairs(folded)], validation_sequences(Validation(root=tmp_path, fold=("one",))))
    require_held_out([SequencePairs(folded)], open_recordings("local", tmp_path / "other"))


def test_a_folder_of_which_nothing_is_held_out_is_no_validation(tmp_path: Path) -> None:
    local_data(tmp_path, "one")
    with pytest.raises(SourceError, match=r"rgb-sequences has none of the sequences .* validation\.fold, and in"):
        validation_sequences(Validation(root=tmp_path, scenes=1))
