"""What a one-stream student learns from a two-stream teacher: the losses, and the module that sums them up."""

from duotrack.training.distillation.distiller import Distiller
from duotrack.training.distillation.features import feature_loss, join_streams
from duotrack.training.distillation.frozen_head import FrozenHead, decayed
from duotrack.training.distillation.modalities import single_modality
from duotrack.training.distillation.relations import relational_loss, whiten, whitened_loss
from duotrack.training.distillation.response import box_loss, cross_modal_loss, presence_loss, score_loss
from duotrack.training.distillation.traces import TeacherTrace, named_tensors, teacher_trace, trace_from_named
from duotrack.training.distillation.weights import DistillationWeights, evenly_spaced

__all__ = [
    "DistillationWeights",
    "Distiller",
    "FrozenHead",
    "TeacherTrace",
    "box_loss",
    "cross_modal_loss",
    "decayed",
    "evenly_spaced",
    "feature_loss",
    "join_streams",
    "named_tensors",
    "presence_loss",
    "relational_loss",
    "score_loss",
    "single_modality",
    "teacher_trace",
    "trace_from_named",
    "whiten",
    "whitened_loss",
]
