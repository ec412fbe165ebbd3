"""A run's state on disk: written beside and renamed into place, and only ever continued by the run that wrote it.

That run may have become shorter or longer; nothing else that its steps depend on may have changed.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from duotrack.errors import CheckpointError

FORMAT_VERSION = 2
# What may differ between the run that wrote a checkpoint and the one that continues it.
FREE_KEYS = {"steps", "log_every", "save_every", "validation", "data.workers", "data.augment_on", "data.bank"}


class Restored(NamedTuple):
    """Where a run goes on: the steps done, the steps that it was to have, and the loop's notes."""

    step: int
    steps: int
    notes: dict[str, Any]


def save_checkpoint(
    path: Path,
    step: int,
    objective: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: str,
    notes: dict[str, Any],
) -> None:
    """Write everything that the next step depends on. A kill leaves the previous file, or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {
        "format": FORMAT_VERSION,
        "step": step,
        "objective": objective.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "config": config,
        "notes": notes,
    }
    try:
        torch.save(state, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write checkpoint {path}: {error}") from error


def restore_checkpoint(
    path: Path,
    objective: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: str,
) -> Restored:
    """Load what ``save_checkpoint`` wrote.

    Raises:
        CheckpointError: the file is damaged, of another format, or from a run with another config, whose keys the
            message names; or more steps are done than ``config`` has.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["format"]
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error!r}") from error
    if found != FORMAT_VERSION:
        raise CheckpointError(f"{path} has checkpoint format {found}, this DuoTrack reads format {FORMAT_VERSION}")
    before, now = json.loads(state["config"]), json.loads(config)
    differing = changed_keys(before, now)
    if differing:
        raise CheckpointError(
            f"the run in {path.parent} was started with another config ({'; '.join(differing)}): "
            "continue it with its own config, or choose another output folder"
        )
    if state["step"] > now["steps"]:
        raise CheckpointError(
            f"the run in {path.parent} has done {state['step']} steps, of {now['steps']} that it is to have: "
            f"set steps to {state['step']} or more, or choose another output folder"
        )
    objective.load_state_dict(state["objective"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return Restored(state["step"], before["steps"], state["notes"])


def changed_keys(before: Any, now: Any, place: str = "") -> list[str]:
    """``key: before → now`` for every leaf that differs, apart from ``FREE_KEYS``."""
    if place in FREE_KEYS or before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        parts = (changed_keys(before.get(key), now.get(key), f"{place}.{key}".lstrip(".")) for key in keys)
        return [line for part in parts for line in part]
    return [f"{place}: {json.dumps(before)} → {json.dumps(now)}"]
