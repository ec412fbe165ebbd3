"""A config's student from a wider one, fitted on the config's samples."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import default_collate

from duotrack.errors import ConfigError, ModelError
from duotrack.nets.models import load_model
from duotrack.nets.narrowing import Crops, narrow
from duotrack.nets.student import Student, StudentConfig
from duotrack.training.config import RunConfig
from duotrack.training.samples import training_samples

BATCH = 16


def narrowed(config: RunConfig, source: Path, samples: int) -> Student:
    """The student that ``config.model`` describes, narrowed from the one in ``source`` on ``samples`` samples.

    Raises:
        ConfigError: the config's model is a teacher.
        ModelError: the source cannot be read, is a teacher, or cannot be narrowed to the config's student.
        SourceError: a source of samples is not as it should be.
    """
    wanted = config.model.config()
    if not isinstance(wanted, StudentConfig):
        raise ConfigError(f"model.name: only students can be narrowed, got {config.model.name!r}")
    model, name = load_model(source)
    if not isinstance(model, Student):
        raise ModelError(f"{source} holds {name!r}, a teacher: only students can be narrowed")
    data = training_samples(config.data, wanted, length=samples, seed=config.seed)
    batches = []
    for first in range(0, samples, BATCH):
        batch = default_collate([data[index] for index in range(first, min(first + BATCH, samples))])
        batches.append(Crops(*(batch[field] for field in Crops._fields)))
    return narrow(model, wanted, batches)
