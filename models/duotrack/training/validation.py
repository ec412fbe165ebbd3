"""Validation that tracks: the averaged network follows whole held-out sequences, and is scored as a tracker."""

from __future__ import annotations

from duotrack.data.images import read_sequences
from duotrack.data.readers import open_recordings
from duotrack.data.synthetic import SceneConfig
from duotrack.errors import SourceError
from duotrack.evaluation.metrics import Scores, mean_scores
from duotrack.evaluation.run import AnnotatedPairs, GeneratedSequence, NetworkTracker, evaluate
from duotrack.nets.models import TrackingModel
from duotrack.nets.network import TorchNetwork
from duotrack.training.config import Validation
from duotrack.training.distributed import Processes, gathered

# Training scenes are drawn from other seeds (``data.sources``).
FIRST_SCENE = 500


def validation_sequences(config: Validation) -> list[AnnotatedPairs]:
    """What ``config`` says to validate on.

    Raises:
        SourceError: nothing, or a folder that is not as its convention says.
    """
    sequences: list[AnnotatedPairs] = []
    if config.root is not None and config.set == "local":
        sequences += read_sequences(config.root / "rgb-sequences", held_out=True)
    elif config.root is not None:
        sequences += open_recordings(config.set, config.root, config.split)
    sequences = sequences[: config.limit or None]
    for seed in range(FIRST_SCENE, FIRST_SCENE + config.scenes):
        sequences.append(GeneratedSequence(SceneConfig(width=320, height=240, frames=120, seed=seed, exits=False)))
    if not sequences:
        raise SourceError("validation has no sequences: give validation.root or validation.scenes")
    return sequences


class TrackingValidation:
    """Scores a model on sequences, which the processes share among them."""

    def __init__(self, sequences: list[AnnotatedPairs], frames: int, processes: Processes, *, bf16: bool) -> None:
        self._sequences = sequences
        self._frames = frames
        self._processes = processes
        self._bf16 = bf16

    def __call__(self, model: TrackingModel) -> dict[str, float]:
        """Means over sequences, the same in every process: success AUC, precision at 20 pixels, overlap.

        Where recorded and generated sequences are mixed, ``success_recorded`` and ``success_generated`` too.
        """
        tracker = NetworkTracker(TorchNetwork(model, bf16=self._bf16))
        own = [
            (isinstance(sequence, GeneratedSequence), evaluate(tracker, sequence, self._frames))
            for sequence in self._sequences[self._processes.rank :: self._processes.count]
        ]
        found: list[tuple[bool, Scores]] = [entry for part in gathered(own) for entry in part]
        mean = mean_scores([scores for _, scores in found])
        figures = {"success": mean.success, "precision": mean.precision, "overlap": mean.overlap}
        parts = {
            name: [scores for is_generated, scores in found if is_generated == wanted]
            for name, wanted in (("recorded", False), ("generated", True))
        }
        if all(parts.values()):
            figures |= {f"success_{name}": mean_scores(scores).success for name, scores in parts.items()}
        return figures
