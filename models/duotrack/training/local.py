"""The shipped student's recipe: local images and generated scenes, from pretrained layers, on any device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from duotrack.data.pairs import PairDataset
from duotrack.data.sources import local_sources
from duotrack.errors import ModelError
from duotrack.nets.student import STUDENTS, Student
from duotrack.nets.warm_start import warm_start
from duotrack.training.loop import Progress, TrainingConfig, train

# Scenes take about 9 MB each at 320×240 once decoded.
SCENES = 120


def build_student(model: str, pretrained: Path | None = None) -> tuple[Student, set[str]]:
    """A student by size name, warm-started where ``pretrained`` is given, and the names of its pretrained parameters.

    Raises:
        ModelError: the size is not known or the file does not fit.
    """
    if model not in STUDENTS:
        raise ModelError(f"unknown model {model!r}: expected one of {', '.join(STUDENTS)}")
    torch.manual_seed(0)
    student = Student(STUDENTS[model])
    return student, warm_start(student, pretrained) if pretrained is not None else set()


def load_student(model: str, weights: Path) -> Student:
    """The student ``model`` with trained ``weights`` (safetensors).

    Raises:
        ModelError: the size is not known, or the file cannot be read or does not fit.
    """
    student, _ = build_student(model)
    try:
        student.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{weights} does not hold the weights of a {model}: {error}") from error
    return student


def train_local(
    data: Path,
    pretrained: Path | None,
    output: Path,
    config: TrainingConfig,
    *,
    model: str = "student-s",
    scenes: int = SCENES,
    workers: int = 1,
    report: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Train ``model`` and write ``output/<model>.safetensors`` with its averaged weights; resumes what is there.

    Raises:
        SourceError: the data folders are incomplete.
        ModelError: the pretrained weights do not fit.
    """
    student, names = build_student(model, pretrained)
    sources, stills = local_sources(data, scenes=scenes, seed=1_000_000 + config.seed)
    dataset = PairDataset(sources, stills, length=config.steps * config.batch, seed=config.seed)
    output.mkdir(parents=True, exist_ok=True)
    log = output / "log.jsonl"

    def record(progress: Progress) -> None:
        line = {"step": progress.step, "pairs_per_second": round(progress.pairs_per_second, 2)}
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {name: round(value, 4) for name, value in progress.losses.items()}) + "\n")
        report(progress)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    averaged = train(student, names, dataset, config, output, device=device, workers=workers, report=record)
    weights = output / f"{model}.safetensors"
    save_file(averaged.cpu().state_dict(), weights)
    return weights
