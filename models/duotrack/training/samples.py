"""The samples of a run: its config's sources, mixed, as one dataset by number."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset, default_collate

from duotrack.data.augment_plan import CropJitter
from duotrack.data.frame_cache import FrameCache
from duotrack.data.images import Pixels
from duotrack.data.pairs import PairDataset
from duotrack.data.readers import open_recordings
from duotrack.data.recordings import RecordingPairs
from duotrack.data.shards import ShardPairs
from duotrack.data.sources import EndlessScenes, PairSource, local_sources
from duotrack.data.sources.local import JITTERS
from duotrack.nets.models import ModelConfig
from duotrack.nets.narrowing import Crops
from duotrack.training.config import CachedSet, Data, GeneratedScenes, LocalData, PublicSet, Shards
from duotrack.training.objective import Batch

# Generated scenes for training start here; validation's have small seeds.
SCENE_SEED = 1_000_000
MEASURED_AT_ONCE = 16


def training_samples(data: Data, model: ModelConfig, *, length: int, seed: int) -> PairDataset:
    """Samples for a network of ``model``'s crop sizes.

    Raises:
        SourceError: a source's folder is not as it should be.
    """
    sources: dict[str, tuple[PairSource, float]] = {}
    jitters: dict[str, CropJitter] = {}
    occluders: list[Pixels] = []
    for number, source in enumerate(data.sources):
        if isinstance(source, LocalData):
            found, stills = local_sources(
                source.root,
                scenes=source.scenes,
                seed=SCENE_SEED + seed,
                objects=source.objects,
                shares=source.shares,
                without=source.without,
                fold=source.fold,
            )
            whole = sum(share for _, share in found.values())
            for name, (part, share) in found.items():
                sources[f"{number} {name}"] = part, source.share * share / whole
                if name in JITTERS:
                    jitters[f"{number} {name}"] = JITTERS[name]
            occluders += stills
        else:
            sources[f"{number} {source.kind}"] = _source(source, length, seed), source.share
    return PairDataset(
        sources,
        occluders,
        length=length,
        seed=seed,
        crops=model,
        modality=data.modality,
        absent=data.absent,
        jitter=data.jitter,
        jitters=jitters,
    )


def training_crops(data: Data, model: ModelConfig, *, count: int, seed: int) -> list[Crops]:
    """The first ``count`` samples as batches of what a network sees of them, to measure it on.

    Raises:
        SourceError: a source's folder is not as it should be.
    """
    samples = training_samples(data, model, length=count, seed=seed)
    batches = []
    for first in range(0, count, MEASURED_AT_ONCE):
        batch = default_collate([samples[number] for number in range(first, min(first + MEASURED_AT_ONCE, count))])
        batches.append(Crops(*(batch[field] for field in Crops._fields)))
    return batches


def _source(source: GeneratedScenes | PublicSet | CachedSet | Shards, length: int, seed: int) -> PairSource:
    if isinstance(source, GeneratedScenes):
        return EndlessScenes(seed=SCENE_SEED + seed)
    if isinstance(source, Shards):
        return ShardPairs(source.root, seed=seed, samples=length, largest_gap=source.largest_gap)
    if isinstance(source, CachedSet):
        return RecordingPairs(FrameCache.open(source.root).sequences, largest_gap=source.largest_gap)
    recordings = open_recordings(source.set, source.root, source.split)
    return RecordingPairs(recordings, largest_gap=source.largest_gap)


class Epochs(Dataset[Batch]):
    """A finite dataset as an endless one: numbers run through it again and again, in a new order every time."""

    def __init__(self, dataset: Dataset[Batch], count: int, seed: int) -> None:
        self._dataset = dataset
        self._count = count
        self._seed = seed
        self._epoch = -1
        self._order = np.arange(count)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Batch:
        epoch, place = divmod(number, self._count)
        if epoch != self._epoch:
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
            self._epoch = epoch
        return self._dataset[int(self._order[place])]
