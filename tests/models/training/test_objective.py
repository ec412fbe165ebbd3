"""The objective: the tracking loss alone, with a teacher, and what each modality option shows the student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from duotrack.errors import ConfigError
from duotrack.nets.student import Student, StudentConfig
from duotrack.nets.teacher import Teacher, TeacherConfig
from duotrack.training.distillation import DistillationWeights, Distiller, single_modality
from duotrack.training.losses import LossWeights, tracking_loss
from duotrack.training.objective import INPUTS, Batch, Objective
from duotrack.training.teaching import live_teaching

SHAPE = StudentConfig(width=48, depth=2, heads=3, head_channels=16)
TEACHER_SHAPE = TeacherConfig(width=48, depth=3, heads=3, head_channels=16)
LOSSES = LossWeights()
MakeSamples = Callable[..., Dataset[Batch]]


@pytest.fixture
def batch(bright_squares: MakeSamples) -> Batch:
    samples = bright_squares()
    collated: Batch = default_collate([samples[number] for number in range(4)])
    return collated


def student() -> Student:
    torch.manual_seed(0)
    return Student(SHAPE).eval()


def taught(weights: DistillationWeights) -> tuple[Objective, Callable[[Batch], object]]:
    torch.manual_seed(1)
    teacher = Teacher(TEACHER_SHAPE).eval().requires_grad_(False)
    distiller = Distiller(SHAPE, TEACHER_SHAPE, weights, teacher.box_head, LOSSES)
    return Objective(student(), LOSSES, distiller), live_teaching(teacher, distiller)


def test_without_a_teacher_it_is_the_tracking_loss(batch: Batch) -> None:
    network = student()
    terms = Objective(network, LOSSES)(batch, None, 0.0)
    expected = tracking_loss(network(*(batch[name] for name in INPUTS)), batch["search_box"], batch["present"], LOSSES)
    assert terms.keys() == {"focal", "giou", "l1", "presence", "total"}
    for name, value in terms.items():
        assert torch.equal(value, getattr(expected, name)), name


def test_a_mask_head_adds_its_loss_and_learns_where_the_target_is(batch: Batch) -> None:
    torch.manual_seed(2)
    objective = Objective(student(), LossWeights(mask=3.0))
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    found = []
    for _ in range(40):
        terms = objective(batch, None, 0.0)
        found.append(terms["mask"].item())
        others = LOSSES.focal * terms["focal"] + 2 * terms["giou"] + 5 * terms["l1"] + terms["presence"]
        assert terms["total"].item() == pytest.approx((others + 3 * terms["mask"]).item(), rel=1e-5)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
    assert found[-1] < 0.3 * found[0]


def test_a_mask_that_no_cells_of_a_patch_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"losses\.mask: .* patches of 14 .* set it to 0"):
        Objective(Student(replace(SHAPE, patch=14, template_size=56, search_size=112)), LossWeights(mask=1.0))


def test_a_teacher_with_no_loss_switched_on_changes_nothing(batch: Batch) -> None:
    objective, teach = taught(DistillationWeights())
    terms = objective(batch, teach(batch), 0.0)
    alone = Objective(student(), LOSSES)(batch, None, 0.0)
    assert terms.keys() == alone.keys()
    assert all(torch.equal(value, alone[name]) for name, value in terms.items())


def test_the_total_is_the_weighted_sum_of_all_terms(batch: Batch) -> None:
    weights = DistillationWeights(feature=0.5, response_score=2.0, response_box=3.0, frozen_head=0.25, cross_modal=4.0)
    objective, teach = taught(weights)
    terms = {name: value.detach() for name, value in objective(batch, teach(batch), 0.4).items()}
    own = terms["focal"] + 2 * terms["giou"] + 5 * terms["l1"] + terms["presence"]
    learnt = 0.5 * terms["feature"] + 2 * terms["response_score"] + 3 * terms["response_box"]
    decayed = 0.25 * (1 - 0.4) * terms["frozen_head"]
    assert float(terms["total"]) == pytest.approx(float(own + learnt + decayed + 4 * terms["cross_modal"]), rel=1e-5)
    assert all(float(terms[name]) > 0 for name in ("feature", "response_score", "response_box", "cross_modal"))


def test_the_cross_modal_loss_needs_both_modalities_and_no_boxes(batch: Batch) -> None:
    objective, teach = taught(DistillationWeights(cross_modal=1.0))
    views = teach(batch)
    moved = batch | {"search_box": batch["search_box"].flip(0)}
    assert torch.equal(objective(moved, views, 0.0)["cross_modal"], objective(batch, views, 0.0)["cross_modal"])
    single = batch | {"search_present": torch.tensor([[1.0, 0.0]]).expand(4, 2)}
    assert not objective(single, views, 0.0)["cross_modal"].any()


@pytest.mark.parametrize(("modality", "hidden"), [("rgb", 3), ("thermal", 0)])
def test_a_student_of_one_modality_does_not_see_the_other(batch: Batch, modality: str, hidden: int) -> None:
    objective = Objective(student(), LOSSES, modality=modality)  # type: ignore[arg-type]

    def total(changed: Batch) -> Tensor:
        terms: dict[str, Tensor] = objective(changed, None, 0.0)
        return terms["total"]

    search = batch["search"].clone()
    search[..., hidden] = 255 - search[..., hidden]
    assert torch.equal(total(batch | {"search": search}), total(batch))
    other = batch["search"].clone()
    other[..., 3 - hidden] = 255 - other[..., 3 - hidden]
    assert not torch.equal(total(batch | {"search": other}), total(batch))
    only = single_modality(batch, modality)  # type: ignore[arg-type]
    assert torch.equal(total(batch), Objective(student(), LOSSES)(only, None, 0.0)["total"])


def test_only_the_student_and_the_projections_learn(batch: Batch) -> None:
    objective, teach = taught(DistillationWeights(feature=1.0, frozen_head=1.0, response_score=1.0))
    objective(batch, teach(batch), 0.0)["total"].backward()
    without = {name for name, parameter in objective.named_parameters() if parameter.grad is None}
    assert without == set()
    assert all(name.startswith(("model.", "distiller.projections.")) for name, _ in objective.named_parameters())
