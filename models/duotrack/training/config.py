"""What a training run is, as data: YAML checked against these types before anything is loaded.

Every field has a default that works, except where the data lies. Unknown keys, wrong types and values out of range are
refused, with the place in the file. ``${NAME}`` in a string stands for an environment variable.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from duotrack.data.augment_plan import SEARCH_JITTER, CropJitter
from duotrack.errors import ConfigError
from duotrack.nets.models import ModelConfig, named_config
from duotrack.nets.student import StudentConfig
from duotrack.nets.teacher import TeacherConfig
from duotrack.training.distillation import DistillationWeights
from duotrack.training.losses import LossWeights

Share = Annotated[float, Field(gt=0)]


class Record(BaseModel):
    """Base of all parts: immutable, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelChoice(Record):
    """A size by name, and what differs from it.

    Attributes:
        name: ``student-t``, ``teacher-s``, ….
        overrides: fields of ``StudentConfig`` or ``TeacherConfig`` with other values, as ``depth: 8``.
        start: weights to start from: a pretrained ViT, a public checkpoint, DuoTrack's own (docs/checkpoints.md), an
            exported model's folder, or the name of a model that ships.
    """

    name: str
    overrides: dict[str, Any] = {}
    start: Path | None = None

    def config(self) -> ModelConfig:
        """The config of the network.

        Raises:
            ConfigError: an override is not a field of the network, or has the wrong type.
            ModelError: there is no such size.
        """
        base = named_config(self.name)
        kind: type[ModelConfig] = type(base)
        fields = {name: getattr(base, name) for name in kind.__dataclass_fields__}
        unknown = sorted(self.overrides.keys() - fields.keys())
        if unknown:
            raise ConfigError(f"model.overrides.{unknown[0]}: {_unknown(unknown[0], fields)}")
        try:
            return cast("ModelConfig", _DATACLASSES[kind].validate_python(fields | self.overrides))
        except ValidationError as error:
            raise ConfigError(_message(error, "model.overrides.")) from error


_DATACLASSES: dict[type[ModelConfig], TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (StudentConfig, TeacherConfig)
}


class LocalData(Record):
    """The folders of docs/training.md, and so many generated scenes over the run.

    Attributes:
        objects: folder in which ``duotrack discover`` outlined the objects of the stills.
        shares: sources of the mix that are to have another share than docs/training.md's, as ``{scenes: 0.2}``; what
            matters is how they compare with those of the others.
        without: sources of the mix that are left out, as ``scenes``: what is one worth?
        fold: sequences held out in place of the split's, for cross-validation; ``validation.fold`` tracks them.
    """

    kind: Literal["local"]
    root: Path
    objects: Path | None = None
    scenes: int = Field(default=2000, ge=0)
    shares: dict[str, Share] = {}
    without: tuple[str, ...] = ()
    fold: tuple[str, ...] = ()
    share: Share = 1.0


class GeneratedScenes(Record):
    """The synthetic generator as an endless set."""

    kind: Literal["synthetic"]
    share: Share = 1.0


class PublicSet(Record):
    """A public set in its own folder convention (docs/datasets.md)."""

    kind: Literal["recordings"]
    set: str
    root: Path
    split: str | None = None
    largest_gap: int = Field(default=100, ge=1)
    share: Share = 1.0


class CachedSet(Record):
    """Frames that ``duotrack prepare`` decoded, mapped into memory."""

    kind: Literal["cache"]
    root: Path
    largest_gap: int = Field(default=100, ge=1)
    share: Share = 1.0


class Shards(Record):
    """Clips that ``duotrack shard`` wrote, for clusters."""

    kind: Literal["shards"]
    root: Path
    largest_gap: int = Field(default=100, ge=1)
    share: Share = 1.0


Source = Annotated[LocalData | GeneratedScenes | PublicSet | CachedSet | Shards, Field(discriminator="kind")]


class Data(Record):
    """Where samples come from.

    Attributes:
        absent: share of samples whose search crop lacks the target; they teach presence.
        jitter: how far search crops differ from the one around the target, as ``{center: 0.6, scale: 0.2, …}``
            (``CropJitter``): what a tracker may be off by, and no more than that (docs/training.md). Aerial
            frames of the local folders have one of their own.
        modality: ``rgb`` or ``thermal`` trains a student that never sees the other one.
        augment_on: ``cpu`` in the loader's workers, ``device`` in batches, ``auto`` the device where it is a GPU. Both
            give the same crops, to a few grey levels.
        bank: pixels of decoded frames that stay on the device, in millions; each takes 5 bytes.
    """

    sources: tuple[Source, ...] = Field(min_length=1)
    absent: float = Field(default=0.28, ge=0, lt=1)
    jitter: CropJitter = SEARCH_JITTER
    modality: Literal["both", "rgb", "thermal"] = "both"
    workers: int = Field(default=1, ge=0)
    augment_on: Literal["auto", "cpu", "device"] = "auto"
    bank: int = Field(default=400, ge=1)


class Optimizer(Record):
    """AdamW.

    Attributes:
        new_lr, pretrained_lr: peak learning rates of parameters that start at random, and from pretrained weights.
        layer_decay: factor on the rate of pretrained parameters from each block to the one before it; 1 is off.
        clip: largest norm of the gradient of all parameters together.
    """

    new_lr: float = Field(default=6e-4, gt=0)
    pretrained_lr: float = Field(default=1e-4, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0)
    clip: float = Field(default=1.0, gt=0)


class Schedule(Record):
    """Learning rate over the steps: linear warm-up, then a cosine to ``floor``, or ``factor`` at each of ``drops``.

    Attributes:
        drops: where the rate falls, as shares of all steps (OSTrack: one drop at 0.8).
        floor: share of the peak rate at the end of the cosine.
    """

    kind: Literal["cosine", "step"] = "cosine"
    warmup: int = Field(default=100, ge=0)
    floor: float = Field(default=0.01, ge=0, le=1)
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.8,)
    factor: float = Field(default=0.1, gt=0, lt=1)


class Distillation(Record):
    """Learning from a teacher.

    Attributes:
        teacher: its weights (``duotrack train`` or ``duotrack import`` wrote them).
        cache: folder for the teacher's outputs: computed once for ``cache_samples`` samples, which the run goes
            through again and again. For small machines. Without it, the teacher runs along.
        weights: which losses, and how strong.
    """

    teacher: Path
    cache: Path | None = None
    cache_samples: int = Field(default=8000, ge=1)
    weights: DistillationWeights = DistillationWeights()


class Validation(Record):
    """Tracking whole sequences with the averaged weights, every ``every`` steps and at the end.

    Attributes:
        root: the local data folder, whose held-out ``rgb-sequences`` are tracked in colour only.
        fold: names of those sequences, where they are not the split's.
        set: with ``root``, a public set instead.
        scenes: held-out generated scenes, in colour and thermal.
        limit, frames: at most so many sequences, and frames of each; 0 is all.
    """

    every: int = Field(default=1000, ge=1)
    root: Path | None = None
    set: str = "local"
    split: str | None = None
    fold: tuple[str, ...] = ()
    scenes: int = Field(default=0, ge=0)
    limit: int = Field(default=0, ge=0)
    frames: int = Field(default=0, ge=0)


class RunConfig(Record):
    """One training run.

    Attributes:
        steps: optimiser steps of the whole schedule.
        batch: pairs in a step, over all processes together.
        precision: ``bf16`` runs the forward pass under autocast; losses and weights are float32 either way.
        average_decay: decay per step of the averaged weights, which are what is validated and written at the end.
    """

    model: ModelChoice
    data: Data
    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=32, ge=1)
    seed: int = Field(default=0, ge=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    log_every: int = Field(default=20, ge=1)
    save_every: int = Field(default=200, ge=1)
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    losses: LossWeights = LossWeights()
    distillation: Distillation | None = None
    validation: Validation | None = None

    @model_validator(mode="after")
    def _warms_up_before_the_end(self) -> RunConfig:
        if self.schedule.warmup >= self.steps:
            raise ValueError(f"schedule.warmup ({self.schedule.warmup}) must be shorter than steps ({self.steps})")
        return self

    def as_json(self) -> str:
        """The whole config, defaults included."""
        return self.model_dump_json()


def shipped_configs() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _configs().iterdir() if path.name.endswith(".yaml"))


def load_config(
    name_or_path: str, overrides: Iterable[str] = (), environment: Mapping[str, str] = os.environ
) -> RunConfig:
    """Read a YAML file, or a shipped config by name, and apply ``key.key=value`` overrides (values are YAML).

    Raises:
        ConfigError: there is no such file, it is not YAML, a ``${NAME}`` is not set, or a key or value does not fit.
    """
    path = Path(name_or_path)
    if not path.is_file() and name_or_path in shipped_configs():
        text = (_configs() / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            known = ", ".join(shipped_configs())
            raise ConfigError(f"cannot read config {path}: {reason}; shipped configs are {known}") from error
    try:
        tree = yaml.safe_load(text)
        for override in overrides:
            _override(tree, override)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name_or_path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{name_or_path}: expected a mapping of keys, got {type(tree).__name__}")
    return parse_config(_expanded(tree, environment), name_or_path)


def parse_config(tree: Mapping[str, Any], origin: str = "config") -> RunConfig:
    """Check a mapping.

    Raises:
        ConfigError: a key or value does not fit; every fault is named, one a line.
    """
    try:
        config = RunConfig.model_validate_json(json.dumps(tree), strict=False)
    except (ValidationError, TypeError) as error:
        message = _message(error, "") if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{origin}: {message}") from error
    config.model.config()
    return config


def _configs() -> Traversable:
    return files("duotrack.training") / "configs"


def _override(tree: Any, override: str) -> None:
    keys, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"expected KEY=VALUE, got {override!r}")
    *parents, last = keys.split(".")
    place = tree
    for key in parents:
        if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
            place = place[int(key)]
        elif isinstance(place, dict):
            place = place.setdefault(key, {})
        else:
            raise ConfigError(f"{keys}: there is no {key!r} to set")
    parsed = yaml.safe_load(value)
    if isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = parsed
    elif isinstance(place, dict):
        place[last] = parsed
    else:
        raise ConfigError(f"{keys}: there is no {last!r} to set")


def _expanded(tree: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(tree, dict):
        return {key: _expanded(value, environment) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_expanded(value, environment) for value in tree]
    if not isinstance(tree, str):
        return tree

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise ConfigError(f"{tree!r}: the environment variable {match[1]} is not set")
        return environment[match[1]]

    return re.sub(r"\$\{(\w+)\}", look_up, tree)


def _message(error: ValidationError, prefix: str) -> str:
    """All faults, each as ``place: what was expected, what came``."""
    faults = []
    for fault in error.errors(include_url=False):
        if fault["type"] == "too_short" and fault["input"]:
            continue  # its items are there, and their faults are named
        tags = {"local", "synthetic", "recordings", "cache", "shards"}
        place = ".".join(str(part) for part in fault["loc"] if part not in tags or fault["loc"][-1] == part)
        if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            faults.append(f"{prefix}{place}: {_unknown(str(fault['loc'][-1]), _known_keys())}")
        else:
            whole = fault["type"] == "missing" or isinstance(fault["input"], dict)
            given = "" if whole else f", got {fault['input']!r}"
            faults.append(f"{prefix}{place}: {fault['msg'].removeprefix('Value error, ')}{given}".removeprefix(": "))
    return "; ".join(faults)


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), 1)
    return "unknown key" + (f"; did you mean {close[0]}?" if close else "")


def _known_keys() -> set[str]:
    """Every key of every part."""
    keys: set[str] = set()
    pending: list[Any] = [RunConfig, LocalData, GeneratedScenes, PublicSet, CachedSet, Shards]
    while pending:
        kind = pending.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys |= kind.model_fields.keys()
            pending += [field.annotation for field in kind.model_fields.values()]
        elif isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
            keys |= kind.__dataclass_fields__.keys()
        else:
            pending += get_args(kind)
    return keys
