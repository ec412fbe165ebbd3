"""The mean of several trainings' weights: of runs that left one start it is often better than each (a model soup)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from duotrack.errors import ModelError
from duotrack.nets.models import TrackingModel, build_model, load_model
from duotrack.training.config import RunConfig
from duotrack.training.run import build_started


def averaged(sources: Sequence[Path], start: RunConfig | None = None) -> tuple[TrackingModel, str]:
    """The network whose every weight and statistic is the mean of those in the weights files ``sources``; its name.

    Wortsman et al. 2022, "Model soups", uniform. The files must come from one start: networks that learnt apart from
    each other have no mean that means anything, which nobody here can see.

    Args:
        start: counts as one more source: the weights that a run of this config starts from.

    Raises:
        ModelError: a file cannot be read, they are of different networks, or it is but one.
        SourceError: ``start`` needs samples, and a source of them is not as it should be.
    """
    loaded = [(str(path), *load_model(path)) for path in sources]
    if start is not None:
        torch.manual_seed(start.seed)
        loaded.append((f"the start of {start.model.name}", build_started(start)[0], start.model.name))
    if len(loaded) < 2:
        raise ModelError(f"a mean needs two networks at least, got {len(loaded)}")
    (first, model, name), *others = loaded
    for origin, other, _ in others:
        if other.config != model.config:
            raise ModelError(f"{origin} and {first} are different networks: {other.config} and {model.config}")
    states = [network.state_dict() for _, network, _ in loaded]
    mean = build_model(model.config)
    mean.load_state_dict(
        {
            key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
            for key, value in states[0].items()
        }
    )
    return mean.eval(), name
