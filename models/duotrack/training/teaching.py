"""Where the teacher's view of a batch comes from: the teacher itself, or what it once said, from a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import cast

import torch
from torch.utils.data import Dataset

from duotrack.data.pairs import Batchable
from duotrack.errors import SourceError
from duotrack.nets.teacher import Teacher
from duotrack.network import CropShapes
from duotrack.training.config import RunConfig
from duotrack.training.distillation import Distiller, TeacherTrace, teacher_trace, trace_from_named
from duotrack.training.objective import INPUTS, Batch, Teaching
from duotrack.training.teacher_cache import CachedSamples, TeacherCache, build_cache, cache_fingerprint

# What the samples of a number depend on, besides the config.
SAMPLES_VERSION = 3


def live_teaching(teacher: Teacher, distiller: Distiller) -> Teaching:
    """Run ``teacher`` on every batch."""

    @torch.no_grad()
    def teach(batch: Batch) -> TeacherTrace:
        trace = teacher.trace(*(batch[name] for name in INPUTS))
        return teacher_trace(trace, distiller.teacher_layers, fused=distiller.needs_fused)

    return teach


def cached_teaching(batch: Batch) -> TeacherTrace:
    """What the cache put beside the samples."""
    return trace_from_named(batch)


def cached_samples(
    folder: Path,
    count: int,
    teacher: Teacher,
    distiller: Distiller,
    dataset: Dataset[Batch],
    config: RunConfig,
    report: Callable[[int, int], None],
) -> CachedSamples:
    """Samples with the teacher's outputs, computed first where ``folder`` does not have all of them yet.

    A complete cache with more layers than this run needs will do.

    Raises:
        SourceError: the folder cannot be read or written.
        ModelError: it holds the outputs of another teacher, or for other samples.
    """
    data = config.data.model_dump(mode="json", exclude={"workers", "augment_on", "bank"})
    if data["modality"] == "both":
        del data["modality"]  # caches that were made before samples depended on it
    crops = config.model.config()
    fingerprint = cache_fingerprint(
        teacher,
        {
            "version": SAMPLES_VERSION,
            "data": data,
            "seed": config.seed,
            "samples": count,
            "precision": config.precision,
            "crops": {field.name: getattr(crops, field.name) for field in fields(CropShapes)},
        },
    )
    try:
        cache = TeacherCache.open(folder, fingerprint)
    except SourceError:
        cache = None
    if cache is None or not _suffices(cache, count, distiller):
        cache = build_cache(
            folder,
            teacher,
            cast("Dataset[Batchable]", dataset),
            fingerprint,
            count=count,
            layers=distiller.teacher_layers,
            fused=distiller.needs_fused,
            store_samples=True,
            bf16=config.precision == "bf16",
            workers=config.data.workers,
            report=report,
        )
    return CachedSamples(cache, length=count)


def _suffices(cache: TeacherCache, count: int, distiller: Distiller) -> bool:
    fused = bool(cache.record.contents["fused"]) or not distiller.needs_fused
    return len(cache) >= count and set(distiller.teacher_layers) <= set(cache.layers) and fused
