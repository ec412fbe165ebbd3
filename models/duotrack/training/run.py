"""One training run from its config: data, network, teacher, loop, and the weights at the end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from torch.utils.data import Dataset

from duotrack.data.pairs import PairDataset
from duotrack.data.recordings import RecordingPairs, notes_of
from duotrack.errors import ConfigError
from duotrack.export.weights import is_exported, load_network
from duotrack.nets.batch_norms import unfold_batch_norms
from duotrack.nets.checkpoint_file import Checkpoint
from duotrack.nets.models import TrackingModel, build_model, described, save_model
from duotrack.nets.student import Student
from duotrack.nets.teacher import Teacher
from duotrack.nets.warm_start import warm_start
from duotrack.training.config import Distillation, RunConfig
from duotrack.training.distillation import Distiller
from duotrack.training.distributed import Processes, gathered, joined_processes
from duotrack.training.held_out import require_held_out
from duotrack.training.loop import Validate, train
from duotrack.training.objective import Batch, Objective, Teaching
from duotrack.training.report import JsonLog, Reporter, TensorBoard, Terminal
from duotrack.training.samples import Epochs, training_crops, training_samples
from duotrack.training.teaching import cached_samples, cached_teaching, live_teaching
from duotrack.training.validation import TrackingValidation, validation_sequences

# Samples that the statistics of an exported network's BatchNorms are taken over.
MEASURED = 128


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        weights: the averaged weights; None where the run was asked to stop before its end.
        step: optimiser steps done.
        validation: figures of the last validation.
    """

    weights: Path | None
    step: int
    validation: dict[str, float]


def run_training(
    config: RunConfig,
    output: Path,
    console: Console,
    *,
    device: torch.device | None = None,
    stop_after: int | None = None,
) -> Outcome:
    """Carry out a run, or go on with the one in ``output``.

    Writes ``config.json``, ``checkpoint.pt``, ``log.jsonl``, ``tensorboard/`` and, at the end, ``NAME.safetensors``.
    Under torchrun every process calls this.

    Raises:
        DuoTrackError: config, data, weights or checkpoint do not fit; the message says what.
    """
    with joined_processes(device) as processes:
        torch.manual_seed(config.seed)
        model, pretrained = build_started(config)
        length = config.steps * config.batch
        if config.distillation is not None and config.distillation.cache is not None:
            length = config.distillation.cache_samples
        samples = training_samples(config.data, model.config, length=length, seed=config.seed)
        dataset = cast("Dataset[Batch]", samples)
        trained_on = [source.recordings for source in samples.sources if isinstance(source, RecordingPairs)]
        for note in notes_of(chain(*trained_on)) if processes.is_first else ():
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        validate = _validation(config, samples, processes)
        teaching: Teaching | None
        if config.distillation is None:
            objective, teaching = Objective(model, config.losses, modality=config.data.modality), None
        else:
            objective, teaching, dataset = _taught(config, config.distillation, model, dataset, processes, console)
        if processes.is_first:
            output.mkdir(parents=True, exist_ok=True)

        def reporters(start: int) -> list[Reporter]:
            (output / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
            return [
                JsonLog(output / "log.jsonl", start),
                TensorBoard(output / "tensorboard", start),
                Terminal(console, config.steps, start),
            ]

        trained = train(
            objective,
            pretrained,
            dataset,
            config,
            output,
            processes,
            teaching=teaching,
            validate=validate,
            reporters=reporters,
            stop_after=stop_after,
        )
        if trained.step < config.steps:
            return Outcome(None, trained.step, trained.validation)
        weights = output / f"{config.model.name}.safetensors"
        if processes.is_first:
            save_model(trained.model, weights, config.model.name)
        return Outcome(weights, trained.step, trained.validation)


def build_started(config: RunConfig) -> tuple[TrackingModel, set[str]]:
    """The network of ``config``, with the weights it starts from, and the names of those that are pretrained.

    Raises:
        ModelError: the weights to start from do not fit.
    """
    model, start = build_model(config.model.config()), config.model.start
    if start is None:
        return model, set()
    return model, warm_start(model, _exported(start, config) if is_exported(start) else start)


def _exported(start: Path, config: RunConfig) -> Checkpoint:
    """What a model folder's network, or a shipped one, would have left as a weights file."""
    exported, name = load_network(start)
    unfold_batch_norms(exported, training_crops(config.data, exported.config, count=MEASURED, seed=config.seed))
    return Checkpoint(start, exported.state_dict(), described(exported, name))


def _validation(config: RunConfig, samples: PairDataset, processes: Processes) -> Validate | None:
    if config.validation is None:
        return None
    sequences = validation_sequences(config.validation)
    require_held_out(samples.sources, sequences)
    return TrackingValidation(
        sequences,
        config.validation.frames,
        processes,
        bf16=config.precision == "bf16",
        modality=config.data.modality,
    )


def _taught(
    config: RunConfig,
    distillation: Distillation,
    model: TrackingModel,
    dataset: Dataset[Batch],
    processes: Processes,
    console: Console,
) -> tuple[Objective, Teaching, Dataset[Batch]]:
    """The objective with distillation, what gives the teacher's view, and the samples (epochs of the cached ones)."""
    if not isinstance(model, Student):
        raise ConfigError(f"distillation needs a student as model.name, got {config.model.name!r}")
    teacher, _ = load_network(distillation.teacher)
    if not isinstance(teacher, Teacher):
        raise ConfigError(f"distillation.teacher: {distillation.teacher} holds a student, expected a teacher")
    teacher.to(processes.device).eval().requires_grad_(False)
    distiller = Distiller(model.config, teacher.config, distillation.weights, teacher.box_head, config.losses)
    objective = Objective(model, config.losses, distiller, config.data.modality)
    if distillation.cache is None:
        return objective, live_teaching(teacher, distiller), dataset

    def report(done: int, count: int) -> None:
        console.print(f"teacher's outputs: {done} of {count} samples", highlight=False)

    folder, count = distillation.cache, distillation.cache_samples
    if not processes.is_first:
        gathered(None)  # wait until the first one has written everything
    samples = cached_samples(folder, count, teacher, distiller, dataset, config, report)
    if processes.is_first:
        gathered(None)
    return objective, cached_teaching, Epochs(samples, count, config.seed)
