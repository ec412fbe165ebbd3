"""The distillation losses of a training step, with the projections that they learn along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from duotrack.errors import ModelError
from duotrack.nets.head import CenterHead, Trace
from duotrack.nets.student import StudentConfig
from duotrack.nets.teacher import TeacherConfig
from duotrack.training.distillation.features import feature_loss, join_streams
from duotrack.training.distillation.frozen_head import FrozenHead, decayed
from duotrack.training.distillation.relations import relational_loss, whitened_loss
from duotrack.training.distillation.response import box_loss, presence_loss, score_loss
from duotrack.training.distillation.traces import TeacherTrace
from duotrack.training.distillation.weights import TERMS, DistillationWeights, evenly_spaced
from duotrack.training.losses import LossWeights, tracking_loss


class Distiller(nn.Module):
    """Compares a student's pass with a teacher's. Its parameters are projections, which are thrown away after training.

    Args:
        head: the teacher's ``box_head``, for the ``frozen_head`` loss; it is copied, frozen, and is no part of this
            module's parameters or state.
        losses: weights of the tracking loss that the frozen head's output is measured by. Presence is left out: public
            teachers have none.

    Attributes:
        layers: the pairs of a student's and a teacher's layer that are compared.
        teacher_layers: the teacher's layers that a ``TeacherTrace`` has to hold.
        needs_fused: whether it has to hold the fused tokens.

    Raises:
        ModelError: grids differ, a layer does not exist, or the head is needed and missing.
    """

    def __init__(
        self,
        student: StudentConfig,
        teacher: TeacherConfig,
        weights: DistillationWeights,
        head: CenterHead | None = None,
        losses: LossWeights | None = None,
    ) -> None:
        super().__init__()
        self.weights = weights
        self.layers = weights.layers or evenly_spaced(student.depth, teacher.depth)
        _check_grids(student, teacher)
        _check_layers(self.layers, student.depth, teacher.depth)
        if weights.frozen_head and head is None:
            raise ModelError("the frozen_head loss needs the teacher's head: give Distiller its box_head")
        self._template_tokens = student.template_grid**2
        self._head = FrozenHead(head) if head is not None and weights.frozen_head else None
        self._losses = replace(losses or LossWeights(), presence=0.0)
        joined = teacher.width * (2 if weights.streams == "concatenate" else 1)
        widths = {f"feature_{place}": joined for place in range(len(self.layers)) if weights.feature}
        if weights.frozen_head:
            widths["frozen_head"] = teacher.width
        if weights.asymmetric:
            widths["asymmetric"] = joined
        if weights.whitened:
            widths["whitened"] = teacher.width
        self.projections = nn.ModuleDict({name: nn.Linear(student.width, width) for name, width in widths.items()})
        last = self.layers[-1][1]
        related = weights.relational or weights.asymmetric or weights.whitened
        self.teacher_layers = tuple(
            sorted({number for _, number in self.layers} if weights.feature else {last} if related else set())
        )
        self.needs_fused = bool(weights.relational)

    def forward(
        self,
        student: Trace,
        teacher: TeacherTrace,
        boxes: Tensor | None = None,
        present: Tensor | None = None,
        progress: float = 0.0,
    ) -> dict[str, Tensor]:
        """Every loss that is switched on, by its name in ``DistillationWeights``, and their weighted sum ``total``.

        Args:
            boxes: (B, 4) true boxes as for ``tracking_loss``. Without boxes and ``present``, as for unlabelled samples,
                the ``frozen_head`` loss is left out.
            present: (B,) 1 where the target is in the crop; where it is not, score and box maps teach nothing.
            progress: share of the run that is over, in [0, 1].

        Raises:
            ModelError: the teacher's trace lacks a layer or has another number of tokens.
        """
        losses: dict[str, Callable[[], Tensor]] = {
            "feature": lambda: self._feature(student, teacher),
            "response_score": lambda: score_loss(
                student.output.score_logits, teacher.score_logits, self.weights.temperature, present
            ),
            "response_box": lambda: box_loss(student.output.box_map, teacher.box_map, teacher.score_logits, present),
            "response_presence": lambda: presence_loss(student.output.presence_logit, teacher.presence_logit),
            "relational": lambda: self._relational(student, teacher),
            "asymmetric": lambda: self._asymmetric(student, teacher),
            "whitened": lambda: self._whitened(student, teacher),
        }
        if boxes is not None and present is not None:
            losses["frozen_head"] = lambda: self._judged(student, boxes, present)
        strengths = self.strengths(progress)
        terms = {name: losses[name]() for name in TERMS if name in losses and getattr(self.weights, name)}
        total = sum((strengths[name] * term for name, term in terms.items()), student.fused.new_zeros(()).float())
        return terms | {"total": total}

    def strengths(self, progress: float) -> dict[str, float]:
        """The weight of each loss at a share ``progress`` of the run: only that of ``frozen_head`` changes."""
        strengths: dict[str, float] = {name: getattr(self.weights, name) for name in TERMS}
        strengths["frozen_head"] *= decayed(progress, self.weights.frozen_head_decay)
        return strengths

    def _feature(self, student: Trace, teacher: TeacherTrace) -> Tensor:
        total = student.fused.new_zeros(()).float()
        for place, (ours, theirs) in enumerate(self.layers):
            projected = self.projections[f"feature_{place}"](student.layers[ours][:, 0])
            total = total + feature_loss(projected, join_streams(_layer(teacher, theirs), self.weights.streams))
        return total / len(self.layers)

    def _judged(self, student: Trace, boxes: Tensor, present: Tensor) -> Tensor:
        assert self._head is not None
        # The teacher's own tokens come out of a ReLU, so its head has never seen a negative one.
        tokens = self.projections["frozen_head"](student.fused).relu()
        return tracking_loss(self._head(tokens), boxes, present, self._losses).total

    def _relational(self, student: Trace, teacher: TeacherTrace) -> Tensor:
        """Template against search at the last pair of layers, and search against search as the heads read it."""
        if teacher.fused is None:
            raise ModelError("the teacher's trace holds no fused tokens: build it with fused=True")
        template, search = self._split(self._last(student))
        their_template, their_search = self._split(self._joined(teacher))
        across = relational_loss(template, search, their_template, their_search)
        return (across + relational_loss(student.fused, student.fused, teacher.fused, teacher.fused)) / 2

    def _asymmetric(self, student: Trace, teacher: TeacherTrace) -> Tensor:
        _, search = self._split(self.projections["asymmetric"](self._last(student)))
        their_template, their_search = self._split(self._joined(teacher))
        return relational_loss(their_template, search, their_template, their_search)

    def _whitened(self, student: Trace, teacher: TeacherTrace) -> Tensor:
        projected = self.projections["whitened"](self._last(student))
        teachers = _layer(teacher, self.layers[-1][1])
        return whitened_loss(projected, teachers, self.weights.similarity_temperature, self.weights.shrinkage)

    def _last(self, student: Trace) -> Tensor:
        return student.layers[self.layers[-1][0]][:, 0]

    def _joined(self, teacher: TeacherTrace) -> Tensor:
        return join_streams(_layer(teacher, self.layers[-1][1]), self.weights.streams)

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Template and search tokens."""
        return tokens[:, : self._template_tokens], tokens[:, self._template_tokens :]


def _layer(teacher: TeacherTrace, number: int) -> Tensor:
    if number not in teacher.layers:
        raise ModelError(f"the teacher's trace lacks layer {number}: it has {sorted(teacher.layers) or 'none'}")
    return teacher.layers[number]


def _check_grids(student: StudentConfig, teacher: TeacherConfig) -> None:
    for part in ("template", "search"):
        ours, theirs = getattr(student, f"{part}_grid"), getattr(teacher, f"{part}_grid")
        if ours != theirs:
            raise ModelError(
                f"the student's {part} grid is {ours} × {ours} and the teacher's {theirs} × {theirs}: "
                "distillation compares them token by token, so they should be the same"
            )


def _check_layers(pairs: tuple[tuple[int, int], ...], student_depth: int, teacher_depth: int) -> None:
    for pair in pairs:
        for number, depth, whose in zip(pair, (student_depth, teacher_depth), ("student", "teacher"), strict=True):
            if not 0 <= number <= depth:
                raise ModelError(f"layers: {pair} names layer {number} of a {whose} that has 0 to {depth}")
