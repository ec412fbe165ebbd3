"""The training loop: one process or many, resumed exactly, validated by tracking."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler

from duotrack.data.device_batches import DeviceBatches
from duotrack.data.frame_bank import FrameBank
from duotrack.data.pairs import PairDataset
from duotrack.errors import TrainingError
from duotrack.nets.models import TrackingModel
from duotrack.training.checkpoint import restore_checkpoint, save_checkpoint
from duotrack.training.config import Data, RunConfig
from duotrack.training.distributed import Processes, any_process, process_mean, synchronise_batch_norm
from duotrack.training.loader import open_loader
from duotrack.training.objective import Batch, Objective, Teaching
from duotrack.training.optimizer import learning_rate_share, parameter_groups
from duotrack.training.report import Report, Reporter, closing_all

CHECKPOINT = "checkpoint.pt"

Validate = Callable[[TrackingModel], dict[str, float]]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a run came to.

    Attributes:
        model: with the averaged weights.
        step: optimiser steps done; fewer than the config's where the run was asked to stop.
        validation: the last validation's figures.
    """

    model: TrackingModel
    step: int
    validation: dict[str, float]


@dataclass(frozen=True, slots=True)
class LastValidation:
    """The figures of the last validation, and the step that it was made after; 0 before the first."""

    step: int
    figures: dict[str, float]


class Part(Sampler[list[int]]):
    """This process's share of every batch, as sample numbers from ``start`` steps on.

    The samples of step s are numbers s · batch up to (s + 1) · batch, whatever the number of processes; with a dataset
    that is deterministic by number, resumption is exact, and two processes see what one would have seen.
    """

    def __init__(self, start: int, stop: int, batch: int, processes: Processes) -> None:
        if batch % processes.count:
            raise TrainingError(f"a batch of {batch} cannot be shared evenly among {processes.count} processes")
        self._steps = range(start, stop)
        self._batch = batch
        self._own = range(
            processes.rank * batch // processes.count,
            (processes.rank + 1) * batch // processes.count,
        )

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            yield [step * self._batch + place for place in self._own]

    def __len__(self) -> int:
        return len(self._steps)


def train(
    objective: Objective,
    pretrained: set[str],
    dataset: Dataset[Batch],
    config: RunConfig,
    output: Path,
    processes: Processes,
    *,
    teaching: Teaching | None = None,
    validate: Validate | None = None,
    reporters: Callable[[int], list[Reporter]] = lambda _: [],
    stop_after: int | None = None,
) -> Trained:
    """Train ``objective.model``, going on from ``output/checkpoint.pt`` where there is one.

    Args:
        pretrained: names of the model's parameters that learn at ``pretrained_lr``.
        dataset: samples by number, of which the run takes ``steps`` × ``batch``.
        teaching: gives the teacher's view of a batch, for distillation.
        validate: measures the averaged model; called by every process at the same steps.
        reporters: made by the first process, for a run that starts after so many steps.
        stop_after: end (with a checkpoint) after this many steps of the schedule, to go on later.

    Raises:
        CheckpointError: the checkpoint cannot be read or written, or belongs to another config.
        SourceError: a sample cannot be read.
        TrainingError: the loss is no longer finite, the batch cannot be shared among the processes, or a worker of the
            loader died.
    """
    device = processes.device
    objective.to(device).train()
    averaged = copy.deepcopy(objective.model).eval().requires_grad_(False)
    if processes.count > 1:
        synchronise_batch_norm(objective, device)
    groups = parameter_groups(objective, {f"model.{name}" for name in pretrained}, config.optimizer)
    optimizer = torch.optim.AdamW(groups)
    checkpoint = output / CHECKPOINT
    start, before, validation = 0, config.steps, LastValidation(0, {})
    if checkpoint.exists():
        start, before, notes = restore_checkpoint(checkpoint, objective, averaged, optimizer, config.as_json())
        validation = LastValidation(**notes)
    wrapped: nn.Module = objective if processes.count == 1 else DistributedDataParallel(objective)
    stop = min(config.steps, stop_after or config.steps)
    batches = batches_of(dataset, Part(start, stop, config.batch, processes), config.data, device)
    means = _Means()
    sinks = reporters(start) if processes.is_first else []
    done = start

    def save() -> None:
        if processes.is_first:
            means.require_finite(done)
            notes = asdict(validation)
            save_checkpoint(checkpoint, done, objective, averaged, optimizer, config.as_json(), notes)

    def is_due() -> bool:
        """Whether this step's validation is still to be done; a kill may have come in the middle of it."""
        if validate is None or config.validation is None or done in (0, validation.step):
            return False
        return done % config.validation.every == 0 or done == config.steps

    def check() -> None:
        nonlocal validation
        assert validate is not None
        validation = LastValidation(done, validate(averaged))
        for sink in sinks:
            sink.report(Report(done, validation=validation.figures))
        save()
        means.restart_clock()

    with closing_all(sinks):
        if before != config.steps:
            for sink in sinks:
                sink.report(Report(start, steps=config.steps))
            save()
        if is_due():
            check()
        with _stop_requests() as stop_asked, open_loader(batches) as loaded:
            for step, batch in enumerate(loaded, start):
                share = learning_rate_share(step, config.steps, config.schedule)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_lr"] * share
                on_device = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
                with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                    taught = teaching(on_device) if teaching is not None else None
                    terms: dict[str, Tensor] = wrapped(on_device, taught, step / config.steps)
                terms["total"].backward()  # type: ignore[no-untyped-call]
                norm = nn.utils.clip_grad_norm_(objective.parameters(), config.optimizer.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                update_average(averaged, objective.model, min(config.average_decay, (step + 1) / (step + 10)))
                means.add(terms, norm)
                done = step + 1
                asked = any_process(stop_asked(), device)
                last = done == stop or asked
                if done % config.log_every == 0 or last:
                    entry = means.report(done, max(group["lr"] for group in optimizer.param_groups), config.batch)
                    for sink in sinks:
                        sink.report(entry)
                if done % config.save_every == 0 or last or is_due():
                    save()
                if is_due() and not asked:
                    check()
                if asked:
                    break
    return Trained(averaged, done, validation.figures)


def batches_of(dataset: Dataset[Batch], part: Part, data: Data, device: torch.device) -> Iterable[Batch]:
    """This process's batches: augmented on the device where ``data`` says so, by the loader's workers elsewhere."""
    on_device = data.augment_on == "device" or (data.augment_on == "auto" and device.type == "cuda")
    if on_device and isinstance(dataset, PairDataset):
        numbers = [number for batch in part for number in batch]
        bank = FrameBank(device, data.bank * 1_000_000)
        own = len(numbers) // max(1, len(part))
        made = DeviceBatches(dataset, bank, batch=max(1, own), numbers=numbers, workers=max(1, data.workers))
        return cast("Iterable[Batch]", made)
    return DataLoader(
        dataset,
        batch_sampler=part,
        num_workers=data.workers,
        prefetch_factor=4 if data.workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_stopping_to_the_run,
    )


def _leave_stopping_to_the_run(_: int) -> None:
    """In a loader's worker: Ctrl-C reaches every process of the terminal, and the run still needs its next batch."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@torch.no_grad()
def update_average(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Move every weight and statistic of ``averaged`` towards ``current`` by 1 − decay; counters are copied."""
    theirs = current.state_dict()
    for name, tensor in averaged.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(theirs[name].to(tensor.dtype), 1 - decay)
        else:
            tensor.copy_(theirs[name])


class _Means:
    """Sums of losses on the device; read, and thereby waited for, only when a report is due."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._since = time.perf_counter()

    def add(self, terms: dict[str, Tensor], norm: Tensor) -> None:
        for name, value in (*terms.items(), ("gradient norm", norm)):
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value.detach().float()
        self._count += 1

    def report(self, step: int, learning_rate: float, batch: int) -> Report:
        """Means over all processes since the last report, which they start afresh."""
        names = list(self._sums)
        values = process_mean(torch.stack([self._sums[name] for name in names]) / self._count).tolist()
        losses = dict(zip(names, values, strict=True))
        norm = losses.pop("gradient norm")
        pace = self._count * batch / (time.perf_counter() - self._since)
        if not math.isfinite(losses["total"]) or not math.isfinite(norm):
            raise _not_finite(step)
        self._sums, self._count = {}, 0
        self.restart_clock()
        return Report(step, losses, learning_rate, norm, pace)

    def restart_clock(self) -> None:
        self._since = time.perf_counter()

    def require_finite(self, step: int) -> None:
        """Raise before weights are written that a diverged step has spoilt."""
        if not all(bool(torch.isfinite(value)) for value in self._sums.values()):
            raise _not_finite(step)


def _not_finite(step: int) -> TrainingError:
    return TrainingError(
        f"the loss is not finite around step {step}: lower optimizer.new_lr or optimizer.clip, or look at the data; "
        "the last checkpoint is from before"
    )


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to end after the current step; a second one ends at once."""
    asked = False

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, before[signal.Signals(number)])

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs it decides when to stop
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
