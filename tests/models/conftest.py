"""Parts that tests of several modules share: a tiny student, the same student exported, and reference data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from duotrack.export import export_model
from duotrack.nets.network import TorchNetwork
from duotrack.nets.student import Student, StudentConfig
from duotrack.network import Template

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
TINY = StudentConfig(width=48, depth=2, heads=3, head_channels=16)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The networks here are too small to share out, and threads that wait for each other are slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reference_checkpoints() -> Path:
    """Networks of the public codebases with recorded inputs and outputs; outside the repository."""
    folder = SHARED / "reference" / "checkpoints"
    if not folder.is_dir():
        pytest.skip(f"no reference checkpoints: {folder} does not exist")
    return folder


def lively_student(config: StudentConfig, seed: int) -> Student:
    """A random student whose outputs really depend on its inputs, as a trained one's do.

    Fresh residual branches, positions and heads are so quiet that a network which ignored them would look right; and
    fresh BatchNorm statistics (0 and 1) would hide that they are ignored.
    """
    torch.manual_seed(seed)
    student = Student(config)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name.startswith("backbone.pos_embed") or name.endswith(("_type", "modality_mask")):
                parameter.normal_(0, 0.5)
            elif name.startswith("box_head.conv5") and name.endswith("weight"):
                parameter.normal_(0, 0.6)
            elif name == "box_head.conv5_ctr.bias":
                parameter.zero_()
            elif ".0.weight" in name and name.startswith("box_head"):
                parameter.mul_(2)
        for name, buffer in student.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return student.eval()


@pytest.fixture(scope="session")
def make_student() -> Callable[..., Student]:
    """``make_student(seed, width=…)``: a lively student of the tiny size, with some values of its config changed."""
    return lambda seed, **changes: lively_student(replace(TINY, **changes), seed)


@dataclass(frozen=True)
class ExportedModel:
    """A model folder, and the torch network that it was exported from."""

    directory: Path
    network: TorchNetwork
    student: Student


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    student = lively_student(TINY, seed=11)
    directory = tmp_path_factory.mktemp("models") / "tiny"
    export_model(student, directory, "tiny")
    return ExportedModel(directory, TorchNetwork(student, "tiny"), student)


@dataclass(frozen=True)
class NetworkInput:
    """Crops of B sessions: templates, search crops (B, S, S, 4) and what is present in them (B, 2)."""

    template: Template
    search: NDArray[np.uint8]
    present: NDArray[np.float32]


@pytest.fixture(scope="session")
def network_input() -> NetworkInput:
    """Three sessions of smooth random scenes; the second lacks thermal in its search crop, the third colour in both."""
    rng = np.random.default_rng(3)

    def crops(side: int) -> NDArray[np.uint8]:
        noise = rng.integers(0, 256, (3, side, side, 4), dtype=np.uint8)
        return np.stack([cv2.normalize(cv2.GaussianBlur(crop, (0, 0), 5), None, 0, 255, 32) for crop in noise])

    template = Template(
        crops(128),
        np.array([[1, 1], [1, 1], [0, 1]], np.float32),
        np.array([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.3, 0.8], [0.48, 0.53, 0.7, 0.35]], np.float32),
    )
    return NetworkInput(template, crops(256), np.array([[1, 1], [1, 0], [0, 1]], np.float32))
