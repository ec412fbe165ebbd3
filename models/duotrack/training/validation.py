"""Validation that tracks: the averaged network follows whole held-out sequences, and is scored as a tracker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

from duotrack.boxes import Box
from duotrack.data.images import read_sequences
from duotrack.data.readers import open_recordings
from duotrack.data.synthetic import SceneConfig
from duotrack.errors import SourceError
from duotrack.evaluation.in_memory import evaluate, overlap_in_one_step
from duotrack.evaluation.metrics import Scores, mean_scores
from duotrack.evaluation.sequences import AnnotatedPairs, GeneratedSequence
from duotrack.evaluation.trackers import NetworkTracker
from duotrack.frames import FramePair
from duotrack.nets.models import TrackingModel
from duotrack.nets.network import TorchNetwork
from duotrack.training.config import Validation
from duotrack.training.distributed import Processes, gathered

# Training scenes are drawn from other seeds (``data.sources``).
FIRST_SCENE = 500


def validation_sequences(config: Validation) -> list[AnnotatedPairs]:
    """What ``config`` says to validate on.

    Raises:
        SourceError: nothing, a folder that is not as its convention says, or none of the local sequences is held out.
    """
    sequences: list[AnnotatedPairs] = []
    if config.root is not None and config.set == "local":
        folder = config.root / "rgb-sequences"
        sequences += read_sequences(folder, held_out=True, fold=config.fold)
        if not sequences:
            raise SourceError(
                f"{folder} has none of the sequences that are held out by default: name some of its own in "
                "validation.fold, and in the fold of the source that trains on the others"
            )
    elif config.root is not None:
        sequences += open_recordings(config.set, config.root, config.split)
    sequences = sequences[: config.limit or None]
    for seed in range(FIRST_SCENE, FIRST_SCENE + config.scenes):
        sequences.append(GeneratedSequence(SceneConfig(width=320, height=240, frames=120, seed=seed, exits=False)))
    if not sequences:
        raise SourceError("validation has no sequences: give validation.root or validation.scenes")
    return sequences


@dataclass(frozen=True, slots=True)
class OneModalityPairs:
    """Another sequence without colour, or without thermal.

    Raises:
        SourceError: its first pair lacks the wanted modality.
    """

    sequence: AnnotatedPairs
    modality: Literal["rgb", "thermal"]

    def __post_init__(self) -> None:
        if getattr(self.sequence.pair(0), self.modality) is None:
            raise SourceError(f"sequence {self.name} cannot be validated on: data.modality is {self.modality}")

    @property
    def name(self) -> str:
        return self.sequence.name

    @property
    def boxes(self) -> Sequence[Box | None]:
        return self.sequence.boxes

    def pair(self, index: int) -> FramePair:
        pair = self.sequence.pair(index)
        return FramePair(pair.rgb, None) if self.modality == "rgb" else FramePair(None, pair.thermal)


class TrackingValidation:
    """Scores a model on sequences, which the processes share among them.

    Args:
        modality: what the model is shown of them.

    Raises:
        SourceError: a sequence lacks that modality.
    """

    def __init__(
        self,
        sequences: list[AnnotatedPairs],
        frames: int,
        processes: Processes,
        *,
        bf16: bool,
        modality: Literal["both", "rgb", "thermal"] = "both",
    ) -> None:
        self._sequences: list[tuple[str, AnnotatedPairs]] = [
            (
                "generated" if isinstance(sequence, GeneratedSequence) else "recorded",
                sequence if modality == "both" else OneModalityPairs(sequence, modality),
            )
            for sequence in sequences
        ]
        self._frames = frames
        self._processes = processes
        self._bf16 = bf16

    def __call__(self, model: TrackingModel) -> dict[str, float]:
        """Means over sequences, the same in every process: success AUC, precision at 20 pixels, overlap, one_step.

        ``one_step`` is ``overlap_in_one_step``. Where recorded and generated sequences are mixed, ``success`` and
        ``one_step`` come for each kind too, as ``success_recorded`` and so on.
        """
        network = TorchNetwork(model, bf16=self._bf16)
        tracker = NetworkTracker(network)
        own = [
            _Result(
                kind,
                evaluate(tracker, sequence, self._frames),
                overlap_in_one_step(network, sequence, self._frames),
            )
            for kind, sequence in self._sequences[self._processes.rank :: self._processes.count]
        ]
        found: list[_Result] = [result for part in gathered(own) for result in part]
        mean = mean_scores([result.scores for result in found])
        figures = {"success": mean.success, "precision": mean.precision, "overlap": mean.overlap}
        figures["one_step"] = fmean(result.one_step for result in found)
        kinds = sorted({result.kind for result in found})
        for kind in kinds if len(kinds) > 1 else ():
            figures[f"success_{kind}"] = fmean(result.scores.success for result in found if result.kind == kind)
            figures[f"one_step_{kind}"] = fmean(result.one_step for result in found if result.kind == kind)
        return figures


class _Result(NamedTuple):
    kind: str
    scores: Scores
    one_step: float
