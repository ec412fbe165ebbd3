"""A config's student from a wider one, fitted on the config's samples."""

from __future__ import annotations

from pathlib import Path

from duotrack.errors import ConfigError, ModelError
from duotrack.export.weights import load_network
from duotrack.nets.narrowing import narrow, require_narrower
from duotrack.nets.student import Student, StudentConfig
from duotrack.training.config import RunConfig
from duotrack.training.samples import training_crops


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
    model, name = load_network(source)
    if not isinstance(model, Student):
        raise ModelError(f"{source} holds {name!r}, a teacher: only students can be narrowed")
    require_narrower(model.config, wanted)  # before minutes go into samples
    return narrow(model, wanted, training_crops(config.data, wanted, count=samples, seed=config.seed))
