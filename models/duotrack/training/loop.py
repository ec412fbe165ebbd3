"""The training loop: AdamW with warm-up and cosine, bf16 autocast, averaged weights, exact resumption."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from duotrack.data.pairs import Batchable
from duotrack.nets.student import Student
from duotrack.nets.warm_start import parameter_groups
from duotrack.training.losses import LossTerms, LossWeights, tracking_loss


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that shapes a run, apart from the data.

    Attributes:
        steps: number of optimiser steps of the whole schedule.
        new_lr, pretrained_lr: peak learning rates of parameters that start at random and from pretrained weights.
        average_decay: decay per step of the averaged weights, which are what is validated and exported.
    """

    steps: int = 2000
    batch: int = 32
    new_lr: float = 6e-4
    pretrained_lr: float = 1e-4
    weight_decay: float = 0.05
    warmup: int = 100
    clip: float = 1.0
    average_decay: float = 0.998
    seed: int = 0
    log_every: int = 20
    save_every: int = 200
    losses: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True, slots=True)
class Progress:
    """Means since the last report."""

    step: int
    pairs_per_second: float
    learning_rate: float
    losses: dict[str, float]


class _Consecutive(Sampler[int]):
    """Sample numbers in order from ``start``: with a dataset that is deterministic by number, resumption is exact."""

    def __init__(self, start: int, stop: int) -> None:
        self._range = range(start, stop)

    def __iter__(self) -> Iterator[int]:
        return iter(self._range)

    def __len__(self) -> int:
        return len(self._range)


def schedule(step: int, config: TrainingConfig) -> float:
    """Share of the peak learning rate at ``step``: linear warm-up, then a cosine to one per cent."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(
    student: Student,
    pretrained: set[str],
    dataset: Dataset[Batchable],
    config: TrainingConfig,
    output: Path,
    *,
    device: torch.device | None = None,
    workers: int = 1,
    report: Callable[[Progress], None] = lambda _: None,
    stop_after: int | None = None,
) -> Student:
    """Train ``student`` and return its averaged copy; resumes from ``output/checkpoint.pt`` where there is one.

    Args:
        pretrained: names of parameters that learn at ``pretrained_lr``.
        stop_after: end the run (with a checkpoint) after this many steps of the schedule, to go on later.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(config.seed)
    student.to(device).train()
    averaged = copy.deepcopy(student).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        parameter_groups(
            student,
            pretrained,
            pretrained_lr=config.pretrained_lr,
            new_lr=config.new_lr,
            weight_decay=config.weight_decay,
        )
    )
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    checkpoint = output / "checkpoint.pt"
    start = _restore(checkpoint, student, averaged, optimizer) if checkpoint.exists() else 0
    last = min(config.steps, stop_after or config.steps)
    loader = DataLoader(
        dataset,
        batch_size=config.batch,
        sampler=_Consecutive(start * config.batch, last * config.batch),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        drop_last=True,
    )
    totals: dict[str, float] = {}
    summed = 0
    since = time.perf_counter()
    for step, batch in enumerate(loader, start):
        share = schedule(step, config)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
        terms = training_step(student, {name: tensor.to(device) for name, tensor in batch.items()}, config)
        terms.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _average(averaged, student, min(config.average_decay, (step + 1) / (step + 10)))
        for name in ("focal", "giou", "l1", "presence", "total"):
            totals[name] = totals.get(name, 0.0) + float(getattr(terms, name).detach())
        summed += 1
        done = step + 1
        if done % config.log_every == 0:
            elapsed, since = time.perf_counter() - since, time.perf_counter()
            means = {name: total / summed for name, total in totals.items()}
            report(Progress(done, summed * config.batch / elapsed, config.new_lr * share, means))
            totals, summed = {}, 0
        if done % config.save_every == 0 or done == last:
            _save(checkpoint, student, averaged, optimizer, done, config)
    return averaged


def training_step(student: Student, batch: dict[str, Tensor], config: TrainingConfig) -> LossTerms:
    """Forward pass under bf16 autocast and the loss in float32."""
    with torch.autocast(batch["search"].device.type, dtype=torch.bfloat16):
        output = student(
            batch["template"],
            batch["template_present"],
            batch["template_box"],
            batch["search"],
            batch["search_present"],
        )
    return tracking_loss(output, batch["search_box"], batch["present"], config.losses)


@torch.no_grad()
def _average(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    theirs = current.state_dict()
    for name, tensor in averaged.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(theirs[name].to(tensor.dtype), 1 - decay)
        else:
            tensor.copy_(theirs[name])


def _save(
    path: Path,
    student: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: TrainingConfig,
) -> None:
    """Write the whole state beside ``path`` and rename it into place, so that a kill never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state: dict[str, Any] = {
        "step": step,
        "student": student.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "config": asdict(config),
    }
    torch.save(state, partial)
    partial.replace(path)


def _restore(path: Path, student: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    state = torch.load(path, map_location="cpu", weights_only=True)
    student.load_state_dict(state["student"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
