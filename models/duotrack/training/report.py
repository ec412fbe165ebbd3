"""Where a run says how it goes: a line of JSON for every report, TensorBoard, and the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True, slots=True)
class Report:
    """One entry of a run's log.

    Attributes:
        step: optimiser steps done.
        losses: means over the steps since the last report, ``total`` among them; empty for a validation.
        learning_rate: the largest of all groups.
        gradient_norm: mean, before clipping.
        validation: success AUC, precision and so on, each in [0, 1]; empty for a report of losses.
        steps: what the run is to have from here on, where that is not what it was to have; alone in its report.
    """

    step: int
    losses: dict[str, float] = field(default_factory=dict)
    learning_rate: float | None = None
    gradient_norm: float | None = None
    pairs_per_second: float | None = None
    validation: dict[str, float] = field(default_factory=dict)
    steps: int | None = None


class Reporter(Protocol):
    def report(self, entry: Report) -> None: ...

    def close(self) -> None: ...


class JsonLog:
    """Appends to ``log.jsonl``. Lines after the step that a run resumes from are cut: they are about to be repeated."""

    def __init__(self, path: Path, resume_from: int) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _step(line) <= resume_from] if resume_from else []
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def report(self, entry: Report) -> None:
        record = {name: value for name, value in asdict(entry).items() if value not in (None, {})}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Nothing to do: every line is written at once."""


def _step(line: str) -> int:
    """The step of a log line; a line that a kill cut short counts as beyond any step."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62


class TensorBoard:
    """Scalars under ``loss/``, ``validation/`` and ``run/``; a resumed run hides what it is about to repeat."""

    def __init__(self, folder: Path, resume_from: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=resume_from + 1 if resume_from else None)

    def report(self, entry: Report) -> None:
        scalars = {f"loss/{name}": value for name, value in entry.losses.items()}
        scalars |= {f"validation/{name}": value for name, value in entry.validation.items()}
        others = (
            ("learning_rate", entry.learning_rate),
            ("gradient_norm", entry.gradient_norm),
            (
                "pairs_per_second",
                entry.pairs_per_second,
            ),
        )
        scalars |= {f"run/{name}": value for name, value in others if value is not None}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, entry.step)

    def close(self) -> None:
        self._writer.close()


class Terminal:
    """A progress bar with the losses beside it on a terminal; a line for each report elsewhere."""

    def __init__(self, console: Console, steps: int, start: int) -> None:
        self._console = console
        self._steps = steps
        self._progress: Progress | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[state]}"),
                console=console,
            )
            self._task = self._progress.add_task("training", total=steps, completed=start, state="")
            self._progress.start()

    def report(self, entry: Report) -> None:
        if entry.steps is not None:
            self._console.print(
                f"after step {entry.step}: {entry.steps} steps in all from now on, and the learning rate of such a run",
                highlight=False,
                soft_wrap=True,
            )
            return
        text = "  ".join(f"{name} {value:.3f}" for name, value in (entry.losses or entry.validation).items())
        if entry.pairs_per_second is not None:
            text = f"{entry.pairs_per_second:.1f} pairs/s  {text}"
        if self._progress is None or entry.validation:
            kind = "validation  " if entry.validation else ""
            self._console.print(f"step {entry.step}/{self._steps}  {kind}{text}", highlight=False, soft_wrap=True)
        else:
            self._progress.update(self._task, completed=entry.step, state=text)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


@contextmanager
def closing_all(reporters: list[Reporter]) -> Iterator[list[Reporter]]:
    """Close every reporter at the end, whatever happens."""
    try:
        yield reporters
    finally:
        for reporter in reporters:
            reporter.close()
