"""Distillation losses against their formulas written as loops in float64, and what may and may not learn from them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duotrack.errors import ConfigError, ModelError
from duotrack.nets.head import HeadOutput, Trace
from duotrack.nets.student import Student, StudentConfig
from duotrack.nets.teacher import Teacher, TeacherConfig
from duotrack.training.distillation import (
    DistillationWeights,
    Distiller,
    FrozenHead,
    TeacherTrace,
    box_loss,
    cross_modal_loss,
    decayed,
    evenly_spaced,
    feature_loss,
    join_streams,
    named_tensors,
    presence_loss,
    relational_loss,
    score_loss,
    single_modality,
    teacher_trace,
    trace_from_named,
    whiten,
    whitened_loss,
)
from duotrack.training.losses import LossWeights, tracking_loss

Array = NDArray[np.float64]
Model = TypeVar("Model", bound=nn.Module)

STUDENT = StudentConfig(width=36, depth=2, heads=3, head_channels=16, template_size=32, search_size=64)
TEACHER = TeacherConfig(width=48, depth=4, heads=3, head_channels=16, template_size=32, search_size=64)
BOXES = torch.tensor([[0.5, 0.45, 0.3, 0.2], [0.2, 0.7, 0.15, 0.25], [0.8, 0.3, 0.2, 0.2]])
PRESENT = torch.tensor([1.0, 1.0, 0.0])
ALL_ON = DistillationWeights(
    feature=1.0,
    response_score=0.9,
    response_box=0.8,
    response_presence=0.7,
    frozen_head=0.6,
    relational=0.5,
    asymmetric=0.4,
    whitened=0.3,
)
RESPONSES = ["response_score", "response_box", "response_presence"]
NAMES = ["feature", *RESPONSES, "frozen_head", "relational", "asymmetric", "whitened"]


def lively(model: Model, seed: int) -> Model:
    """Fresh networks are too quiet: every weight is disturbed, and BatchNorm's statistics are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


@pytest.fixture
def student() -> Student:
    torch.manual_seed(1)
    return lively(Student(STUDENT), 1).train()


@pytest.fixture
def teacher() -> Teacher:
    torch.manual_seed(2)
    return lively(Teacher(TEACHER), 2).eval()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return random_batch(3)


def random_batch(count: int, seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "template": torch.randint(0, 256, (count, 32, 32, 4), dtype=torch.uint8, generator=generator),
        "template_present": torch.ones(count, 2),
        "template_box": torch.full((count, 4), 0.5),
        "search": torch.randint(0, 256, (count, 64, 64, 4), dtype=torch.uint8, generator=generator),
        "search_present": torch.ones(count, 2),
    }


def traced(model: Student | Teacher, batch: dict[str, Tensor]) -> Trace:
    names = ("template", "template_present", "template_box", "search", "search_present")
    return model.trace(*(batch[name] for name in names))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def double(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def softmax(values: Array) -> Array:
    powers = np.array([math.exp(value) for value in values - values.max()])
    return powers / powers.sum()


def kl(p: Array, q: Array) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def cosine(first: Array, second: Array) -> float:
    return sum(first * second) / math.sqrt(sum(first * first) * sum(second * second))


def weighted(values: list[float], weights: Tensor | None) -> float:
    given = [1.0] * len(values) if weights is None else weights.tolist()
    return sum(w * v for w, v in zip(given, values, strict=True)) / sum(given)


WEIGHTS = pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.0, 0.25])], ids=["all", "weighted"])


@WEIGHTS
def test_feature_loss_by_hand(weights: Tensor | None) -> None:
    projected, teacher = normal(3, 5, 8), 7 * normal(3, 5, 8, seed=1) + 2
    values = []
    for ours, theirs in zip(double(projected), double(teacher), strict=True):
        total = 0.0
        for token, target in zip(ours, theirs, strict=True):
            mean = sum(target) / 8
            variance = sum((target - mean) ** 2) / 8
            total += sum((token - (target - mean) / math.sqrt(variance + 1e-6)) ** 2)
        values.append(total / 40)
    assert float(feature_loss(projected, teacher, weights)) == pytest.approx(weighted(values, weights), rel=1e-5)


def test_feature_loss_does_not_depend_on_the_teachers_scale() -> None:
    projected, teacher = normal(3, 5, 8), normal(3, 5, 8, seed=1)
    assert float(feature_loss(projected, 300 * teacher - 40)) == pytest.approx(
        float(feature_loss(projected, teacher)), rel=1e-3
    )
    assert float(feature_loss(torch.zeros(3, 5, 8), teacher)) == pytest.approx(1, rel=1e-4)


def test_streams_are_averaged_or_side_by_side() -> None:
    tokens = normal(2, 2, 3, 4)
    rgb, thermal = double(tokens[:, 0]), double(tokens[:, 1])
    np.testing.assert_allclose(join_streams(tokens, "average").numpy(), (rgb + thermal) / 2, rtol=1e-6)
    np.testing.assert_allclose(join_streams(tokens, "concatenate").numpy(), np.concatenate((rgb, thermal), -1))
    assert join_streams(tokens.half(), "average").dtype == torch.float32


@WEIGHTS
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_score_loss_by_hand(temperature: float, weights: Tensor | None) -> None:
    student, teacher = 3 * normal(3, 4, 4), 3 * normal(3, 4, 4, seed=1)
    values = [
        temperature**2 * kl(softmax(theirs.ravel() / temperature), softmax(ours.ravel() / temperature))
        for ours, theirs in zip(double(student), double(teacher), strict=True)
    ]
    found = float(score_loss(student, teacher, temperature, weights))
    assert found == pytest.approx(weighted(values, weights), rel=1e-5)


def test_a_hot_score_loss_matches_logits() -> None:
    """Hinton et al. 2015, section 2.1: as T grows, T² KL tends to half the variance of the logits' differences."""
    student, teacher = normal(1, 4, 4), normal(1, 4, 4, seed=1)
    limit = double(student - teacher).var() / 2
    errors = [abs(float(score_loss(student, teacher, temperature)) - limit) for temperature in (1.0, 4.0, 30.0)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02 * limit


def test_score_loss_does_not_see_the_level() -> None:
    student, teacher = normal(2, 4, 4), normal(2, 4, 4, seed=1)
    assert float(score_loss(student + 5, teacher - 2)) == pytest.approx(float(score_loss(student, teacher)), rel=1e-5)


@WEIGHTS
def test_box_loss_by_hand(weights: Tensor | None) -> None:
    student, teacher, logits = normal(3, 4, 4, 4), normal(3, 4, 4, 4, seed=1), 2 * normal(3, 4, 4, seed=2)
    values = []
    for sample in range(3):
        mass = softmax(double(logits[sample]).ravel()).reshape(4, 4)
        value = 0.0
        for row, column in np.ndindex(4, 4):
            difference = double(student[sample, :, row, column] - teacher[sample, :, row, column])
            value += mass[row, column] * sum(abs(difference)) / 4
        values.append(value)
    assert float(box_loss(student, teacher, logits, weights)) == pytest.approx(weighted(values, weights), rel=1e-5)


def test_boxes_of_the_background_do_not_matter() -> None:
    logits = torch.full((1, 4, 4), -8.0)
    logits[0, 1, 2] = 6.0
    teacher = normal(1, 4, 4, 4)
    student = teacher.clone()
    student[0, :, 3, 3] += 0.5
    assert float(box_loss(student, teacher, logits)) < 1e-5
    student[0, :, 1, 2] += 0.5
    assert float(box_loss(student, teacher, logits)) == pytest.approx(0.5, rel=1e-3)


def test_presence_loss_is_cross_entropy_less_the_teachers_entropy() -> None:
    student, teacher = torch.tensor([-2.0, 0.3, 4.0]), torch.tensor([1.0, -3.0, 4.0])
    values = []
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-ours)), 1 / (1 + math.exp(-theirs))
        entropy = -q * math.log(q) - (1 - q) * math.log(1 - q)
        values.append(-q * math.log(p) - (1 - q) * math.log(1 - p) - entropy)
    assert float(presence_loss(student, teacher)) == pytest.approx(sum(values) / 3, rel=1e-5)
    weights = torch.tensor([0.0, 1.0, 1.0])
    assert float(presence_loss(student, teacher, weights)) == pytest.approx(weighted(values, weights), rel=1e-5)


@WEIGHTS
def test_relational_loss_by_hand(weights: Tensor | None) -> None:
    ours, theirs = (normal(3, 4, 6), normal(3, 5, 6, seed=1)), (normal(3, 4, 9, seed=2), normal(3, 5, 9, seed=3))
    values = []
    for sample in range(3):
        s, r, t, u = (double(tokens[sample]) for tokens in (*ours, *theirs))
        pairs = [(cosine(s[i], r[j]) - cosine(t[i], u[j])) ** 2 for i, j in np.ndindex(4, 5)]
        values.append(sum(pairs) / 20)
    assert float(relational_loss(*ours, *theirs, weights)) == pytest.approx(weighted(values, weights), rel=1e-5)


def rotation(width: int, seed: int = 9) -> Tensor:
    return torch.linalg.qr(normal(width, width, seed=seed))[0]


def test_relational_loss_only_sees_geometry() -> None:
    """Tokens turned together, and each made longer or shorter, stand to each other as before."""
    rows, columns = normal(2, 4, 6), normal(2, 5, 6, seed=1)
    turn, lengths = rotation(6), 0.5 + torch.rand(2, 4, 1, generator=torch.Generator().manual_seed(4))
    assert float(relational_loss(rows, columns, lengths * (rows @ turn), 3 * columns @ turn)) < 1e-10
    assert float(relational_loss(rows, columns, rows @ turn, columns)) > 1e-2


def test_whitened_tokens_have_the_unit_covariance() -> None:
    tokens = normal(4, 50, 6) * torch.tensor([10.0, 3.0, 1.0, 0.5, 0.2, 0.1]) @ rotation(6) + 4
    flat = double(whiten(tokens, 1e-6)).reshape(-1, 6)
    np.testing.assert_allclose(flat.mean(0), np.zeros(6), atol=1e-4)
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(6), atol=5e-3)


def neighbours_by_hand(tokens: Array, metric: Array, i: int, temperature: float) -> Array:
    """Softmax of the cosines of token i with all others, in the inner product x · metric · y."""

    def inner(first: Array, second: Array) -> float:
        return float(first @ metric @ second)

    cosines = [
        inner(tokens[i], other) / math.sqrt(inner(tokens[i], tokens[i]) * inner(other, other))
        for j, other in enumerate(tokens)
        if j != i
    ]
    return softmax(np.array(cosines) / temperature)


@WEIGHTS
def test_whitened_loss_by_hand(weights: Tensor | None) -> None:
    """Cosines after whitening are Mahalanobis' inner product: no eigenvectors are needed to check them."""
    shrinkage, temperature = 0.05, 0.3
    student = normal(3, 7, 5)
    teachers = normal(3, 2, 7, 4, seed=1) * torch.tensor([5.0, 2.0, 1.0, 0.3]) + 1
    values = [0.0] * 3
    for stream in range(2):
        tokens = double(teachers[:, stream])
        tokens = tokens - tokens.reshape(-1, 4).mean(0)
        covariance = sum(np.outer(token, token) for token in tokens.reshape(-1, 4)) / 21
        metric = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 4 * np.eye(4))
        for sample, i in np.ndindex(3, 7):
            p = neighbours_by_hand(tokens[sample], metric, i, temperature)
            q = neighbours_by_hand(double(student[sample]), np.eye(5), i, temperature)
            values[sample] += (kl(p, q) + kl(q, p)) / 2 / 7 / 2
    found = float(whitened_loss(student, teachers, temperature, shrinkage, weights))
    assert found == pytest.approx(weighted(values, weights), rel=1e-4)


def test_whitened_loss_does_not_see_the_teachers_frame() -> None:
    student, teachers = normal(2, 9, 5), normal(2, 2, 9, 4, seed=1)
    moved = 20 * teachers @ rotation(4) + 3
    assert float(whitened_loss(student, moved)) == pytest.approx(float(whitened_loss(student, teachers)), rel=1e-3)


def test_with_little_shrinkage_it_does_not_see_any_linear_map() -> None:
    student, teachers = normal(4, 9, 5), normal(4, 1, 9, 3, seed=1)
    stretched = teachers * torch.tensor([4.0, 1.0, 0.5])
    for shrinkage, closeness in ((1e-6, 0.01), (0.5, None)):
        first, second = (float(whitened_loss(student, tokens, 0.3, shrinkage)) for tokens in (teachers, stretched))
        assert (abs(first / second - 1) < 0.01) == (closeness is not None)


@pytest.mark.parametrize("teachers", [torch.ones(2, 2, 9, 4), torch.zeros(2, 2, 9, 4), normal(1, 2, 3, 64)])
def test_whitened_loss_is_finite_without_spread_or_with_few_tokens(teachers: Tensor) -> None:
    student = normal(len(teachers), teachers.shape[2], 5).requires_grad_()
    loss = whitened_loss(student, teachers)
    loss.backward()
    assert student.grad is not None
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(student.grad).all())


def test_both_streams_are_teachers() -> None:
    tokens = normal(2, 9, 4)
    agreeing = torch.stack((tokens, tokens), 1)
    whitened = whiten(tokens, 0.01)
    assert float(whitened_loss(whitened, agreeing)) == pytest.approx(0, abs=1e-5)
    disagreeing = torch.stack((tokens, normal(2, 9, 4, seed=5)), 1)
    assert float(whitened_loss(whitened, disagreeing)) > 0.1


# Each loss with a student's and a teacher's tensor of the same shape; the losses are smallest where those are equal.
PAIRED: dict[str, tuple[tuple[int, ...], Callable[..., Tensor]]] = {
    "score": ((3, 4, 4), lambda s, t, w=None: score_loss(s, t, 2.0, w)),
    "box": ((3, 4, 4, 4), lambda s, t, w=None: box_loss(s, t, normal(3, 4, 4, seed=8), w)),
    "presence": ((3,), presence_loss),
    "relational": ((3, 5, 6), lambda s, t, w=None: relational_loss(s, s, t, t, w)),
    "asymmetric": ((3, 5, 6), lambda s, t, w=None: relational_loss(t.detach(), s, t, t, w)),
    "feature": ((3, 5, 6), feature_loss),
    "whitened": ((3, 5, 6), lambda s, t, w=None: whitened_loss(s, t[:, None], 0.1, 0.01, w)),
    "cross_modal": ((3, 4, 4), lambda s, t, w=None: cross_modal_loss(head_output(s), head_output(t), 2.0, 5.0, w)),
}
EACH_LOSS = pytest.mark.parametrize("name", PAIRED)


def head_output(logits: Tensor) -> HeadOutput:
    return HeadOutput(logits, logits[:, None].expand(-1, 4, -1, -1).sigmoid(), logits.mean((1, 2)))


@EACH_LOSS
def test_the_teacher_gets_no_gradient(name: str) -> None:
    shape, loss = PAIRED[name]
    student, teacher = normal(*shape).requires_grad_(), normal(*shape, seed=1).requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert bool(student.grad.any())


@EACH_LOSS
def test_a_perfect_match_costs_nothing_and_anything_else_does(name: str) -> None:
    shape, loss = PAIRED[name]
    teacher = normal(*shape, seed=1)
    match = teacher
    if name == "feature":
        match = nn.functional.layer_norm(teacher, (6,), eps=1e-6)
    elif name == "whitened":
        match = whiten(teacher, 0.01)
    assert abs(float(loss(match, teacher))) < 1e-6
    for seed in range(20, 30):
        assert float(loss(match + 0.1 * normal(*shape, seed=seed), teacher)) > 1e-5


@EACH_LOSS
def test_a_sample_of_weight_zero_teaches_nothing(name: str) -> None:
    shape, loss = PAIRED[name]
    student, teacher = normal(*shape).requires_grad_(), normal(*shape, seed=1)
    value = loss(student, teacher, torch.tensor([1.0, 0.0, 1.0]))
    (gradient,) = torch.autograd.grad(value, student)
    assert not gradient[1].any()
    assert gradient[0].any()
    nothing = loss(student, teacher, torch.zeros(3))
    (gradient,) = torch.autograd.grad(nothing, student)
    assert float(nothing.detach()) == 0
    assert not gradient.any()


@pytest.mark.parametrize("name", sorted(PAIRED.keys() - {"cross_modal"}))  # which is made of two of the others
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_change_nothing_inside(name: str, dtype: torch.dtype) -> None:
    shape, loss = PAIRED[name]
    student, teacher = normal(*shape).to(dtype), normal(*shape, seed=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(student, teacher)
    assert found.dtype == torch.float32
    assert float(found) == float(loss(student.float(), teacher.float()))


@EACH_LOSS
def test_different_shapes_are_refused(name: str) -> None:
    """Broadcasting a smaller teacher would give a number, and a wrong one."""
    shape, loss = PAIRED[name]
    smaller = (3, 1, *shape[2:]) if len(shape) > 1 else (1,)
    with pytest.raises(ModelError, match=r"student's \(3.*teacher's \(.*should have the same shape"):
        loss(normal(*shape), normal(*smaller))


def test_cross_modal_loss_by_hand() -> None:
    thermal, rgb = (
        HeadOutput(normal(3, 4, 4, seed=seed), normal(3, 4, 4, 4, seed=seed + 1), normal(3)) for seed in (0, 5)
    )
    total = 0.0
    for sample in range(3):
        ours, theirs = (double(output.score_logits[sample]).ravel() for output in (thermal, rgb))
        total += 4 * kl(softmax(theirs / 2), softmax(ours / 2)) / 3
        mass = softmax(theirs).reshape(4, 4)
        distance = np.abs(double(thermal.box_map[sample] - rgb.box_map[sample])).mean(0)
        total += 3 * sum(mass[cell] * distance[cell] for cell in np.ndindex(4, 4)) / 3
    assert float(cross_modal_loss(thermal, rgb, temperature=2.0, box_weight=3.0)) == pytest.approx(total, rel=1e-5)


def test_colour_teaches_thermal_without_boxes(student: Student, batch: dict[str, Tensor]) -> None:
    shown = [traced(student, single_modality(batch, modality, ("search",))).output for modality in ("rgb", "thermal")]
    rgb, thermal = (HeadOutput(*(part.detach().requires_grad_() for part in output)) for output in shown)
    cross_modal_loss(thermal, rgb).backward()
    assert thermal.score_logits.grad is not None
    assert thermal.box_map.grad is not None
    assert all(part.grad is None for part in rgb)
    assert bool(thermal.score_logits.grad.any())


def test_a_single_modality_is_the_only_one_left(batch: dict[str, Tensor]) -> None:
    batch["search_present"][1] = torch.tensor([0.0, 1.0])
    batch["search"][1, ..., :3] = 0
    before = copy.deepcopy(batch)
    rgb, thermal = single_modality(batch, "rgb"), single_modality(batch, "thermal", ("search",))
    assert torch.equal(rgb["template"][..., :3], batch["template"][..., :3])
    assert not rgb["template"][..., 3].any()
    assert rgb["template"].dtype == torch.uint8
    assert rgb["template_present"].tolist() == [[1, 0]] * 3
    assert not rgb["search"][0, ..., 3].any()
    assert torch.equal(rgb["search"][1], batch["search"][1])  # has no colour: stays
    assert rgb["search_present"].tolist() == [[1, 0], [0, 1], [1, 0]]
    assert torch.equal(thermal["template"], batch["template"])
    assert not thermal["search"][..., :3].any()
    assert thermal["search_present"].tolist() == [[0, 1]] * 3
    assert all(torch.equal(batch[name], before[name]) for name in batch)
    single = single_modality({name: tensor[0] for name, tensor in batch.items()}, "rgb")
    assert all(torch.equal(tensor, rgb[name][0]) for name, tensor in single.items())


@pytest.mark.parametrize(
    ("depths", "pairs"),
    [
        ((2, 4), ((0, 1), (1, 3))),
        ((6, 12), ((1, 3), (3, 7), (5, 11))),
        ((12, 12), ((3, 3), (7, 7), (11, 11))),
        ((6, 8), ((1, 1), (3, 4), (5, 7))),
        ((1, 12), ((0, 11),)),
        ((4, 2), ((1, 0), (3, 1))),
    ],
)
def test_layers_at_the_same_share_of_the_depth(depths: tuple[int, int], pairs: tuple[tuple[int, int], ...]) -> None:
    assert evenly_spaced(*depths) == pairs


def test_a_trace_keeps_what_is_asked_for(teacher: Teacher, batch: dict[str, Tensor]) -> None:
    whole = traced(teacher, batch)
    kept = teacher_trace(whole, [1, 4])
    assert list(kept.layers) == [1, 4]
    assert torch.equal(kept.layers[4], whole.layers[4])
    assert kept.layers[1].shape == (3, 2, 4 + 16, 48)
    assert whole.fused.requires_grad
    assert not any(tensor.requires_grad for tensor in named_tensors(kept).values())
    assert teacher_trace(whole, [], fused=False).fused is None
    with pytest.raises(ModelError, match="no layer 5: expected 0 to 4"):
        teacher_trace(whole, [5])


def test_a_trace_goes_into_a_batch_and_comes_out_again(teacher: Teacher, batch: dict[str, Tensor]) -> None:
    for fused in (True, False):
        kept = teacher_trace(traced(teacher, batch), [1, 3], fused=fused)
        again = trace_from_named(batch | named_tensors(kept))
        assert again.layers.keys() == {1, 3}
        assert (again.fused is None) != fused
        first, second = named_tensors(kept), named_tensors(again)
        assert first.keys() == second.keys()
        assert all(first[name] is second[name] for name in first)
    with pytest.raises(ModelError, match=r"no 'teacher.score_logits', only template, .*search_present"):
        trace_from_named(batch)


def distilled(
    weights: DistillationWeights, student: Student, teacher: Teacher, batch: dict[str, Tensor], **options: Any
) -> tuple[Distiller, Trace, TeacherTrace, dict[str, Tensor]]:
    torch.manual_seed(5)
    distiller = Distiller(student.config, teacher.config, weights, teacher.box_head)
    ours = traced(student, batch)
    theirs = teacher_trace(traced(teacher, batch), distiller.teacher_layers, fused=distiller.needs_fused)
    return distiller, ours, theirs, distiller(ours, theirs, BOXES, PRESENT, **options)


def test_terms_are_named_and_total_is_their_weighted_sum(
    student: Student, teacher: Teacher, batch: dict[str, Tensor]
) -> None:
    _, _, _, terms = distilled(ALL_ON, student, teacher, batch, progress=0.25)
    assert set(terms) == {*NAMES, "total"}
    weights = asdict(ALL_ON) | {"frozen_head": 0.6 * 0.75}
    total = sum(weights[name] * float(terms[name].detach()) for name in NAMES)
    assert float(terms["total"].detach()) == pytest.approx(total, rel=1e-5)
    assert all(term.dtype == torch.float32 and term.shape == () for term in terms.values())


@pytest.mark.parametrize("streams", ["average", "concatenate"])
def test_what_each_term_compares(student: Student, teacher: Teacher, batch: dict[str, Tensor], streams: Any) -> None:
    """The distiller's own part: which layers and tokens meet. Depth 2 meets depth 4 at (0, 1) and (1, 3)."""
    weights = replace(ALL_ON, streams=streams, temperature=3.0, similarity_temperature=0.2, shrinkage=0.1)
    distiller, ours, _, terms = distilled(weights, student, teacher, batch)
    assert distiller.layers == ((0, 1), (1, 3))
    assert distiller.teacher_layers == (1, 3)
    both = traced(teacher, batch)
    project = distiller.projections
    joined = [join_streams(both.layers[number], streams) for number in (1, 3)]
    template, search = slice(0, 4), slice(4, 20)
    features = [feature_loss(project[f"feature_{place}"](ours.layers[place][:, 0]), joined[place]) for place in (0, 1)]
    last = ours.layers[1][:, 0]
    relations = (
        relational_loss(last[:, template], last[:, search], joined[1][:, template], joined[1][:, search]),
        relational_loss(ours.fused, ours.fused, both.fused, both.fused),
    )
    moved = project["asymmetric"](last[:, search])
    expected = {
        "feature": (features[0] + features[1]) / 2,
        "response_score": score_loss(ours.output.score_logits, both.output.score_logits, 3.0, PRESENT),
        "response_box": box_loss(ours.output.box_map, both.output.box_map, both.output.score_logits, PRESENT),
        "response_presence": presence_loss(ours.output.presence_logit, both.output.presence_logit),
        "relational": (relations[0] + relations[1]) / 2,
        "asymmetric": relational_loss(joined[1][:, template], moved, joined[1][:, template], joined[1][:, search]),
        "whitened": whitened_loss(project["whitened"](last), both.layers[3], 0.2, 0.1),
    }
    for name, value in expected.items():
        assert float(terms[name].detach()) == pytest.approx(float(value.detach()), rel=1e-5), name


@pytest.mark.parametrize("name", NAMES)
def test_each_loss_alone(name: str, student: Student, teacher: Teacher, batch: dict[str, Tensor]) -> None:
    """It is the only term, reaches the student and every projection, and leaves the teacher alone."""
    distiller, _, theirs, terms = distilled(DistillationWeights(**{name: 2.0}), student, teacher, batch)
    assert set(terms) == {name, "total"}
    assert float(terms["total"].detach()) == pytest.approx(2 * float(terms[name].detach()))
    assert (theirs.fused is not None) == (name == "relational")
    layers = {"feature": {1, 3}, "relational": {3}, "asymmetric": {3}, "whitened": {3}}
    assert set(theirs.layers) == layers.get(name, set())
    terms["total"].backward()
    assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in student.parameters())
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in distiller.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    unprojected: dict[str, list[str]] = {other: [] for other in (*RESPONSES, "relational")}
    assert list(distiller.projections) == (unprojected | {"feature": ["feature_0", "feature_1"]}).get(name, [name])


def test_nothing_is_on_by_default(student: Student, teacher: Teacher, batch: dict[str, Tensor]) -> None:
    distiller, _, _, terms = distilled(DistillationWeights(), student, teacher, batch)
    assert list(terms) == ["total"]
    assert float(terms["total"]) == 0
    assert list(distiller.parameters()) == []
    assert distiller.teacher_layers == ()


def test_the_weights_are_plain_data() -> None:
    weights = replace(ALL_ON, layers=((0, 1), (1, 3)))
    stored = json.loads(json.dumps(asdict(weights)))
    assert DistillationWeights(**stored | {"layers": tuple(map(tuple, stored["layers"]))}) == weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature": -1.0}, "feature: expected a weight of at least 0, got -1.0"),
        ({"cross_modal": math.nan}, "cross_modal: expected a weight of at least 0, got nan"),
        ({"temperature": 0.0}, "temperature: expected more than 0, got 0.0"),
        ({"shrinkage": 1.5}, "shrinkage: expected more than 0 and at most 1, got 1.5"),
    ],
)
def test_weights_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistillationWeights(**changes)  # type: ignore[arg-type]


def test_the_frozen_head_is_the_teachers_own(teacher: Teacher, batch: dict[str, Tensor]) -> None:
    """Teacher's tokens through an identity as the projection: the loss is that of the teacher's output itself."""
    wide = replace(STUDENT, width=48)
    distiller = Distiller(wide, TEACHER, DistillationWeights(frozen_head=1.0), teacher.box_head, LossWeights(0.5, 3, 4))
    projection = distiller.projections["frozen_head"]
    with torch.no_grad():
        projection.get_parameter("weight").copy_(torch.eye(48))
        projection.get_parameter("bias").zero_()
    trace = traced(teacher, batch)
    found = distiller(trace, teacher_trace(trace, []), BOXES, PRESENT)["frozen_head"]
    expected = tracking_loss(trace.output, BOXES, PRESENT, LossWeights(0.5, 3, 4, presence=0)).total
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    with torch.no_grad():
        projection.get_parameter("weight").neg_()
    found = distiller(trace, teacher_trace(trace, []), BOXES, PRESENT)["frozen_head"]
    silent = HeadOutput(*teacher.box_head(torch.zeros(3, 16, 48)), torch.zeros(3))  # no negative token reaches it
    expected = tracking_loss(silent, BOXES, PRESENT, LossWeights(0.5, 3, 4, presence=0)).total
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_training_step_leaves_the_frozen_head_bitwise(
    student: Student, teacher: Teacher, batch: dict[str, Tensor]
) -> None:
    teacher.train()  # even where the teacher was left in training mode, whose BatchNorm would collect statistics
    distiller = Distiller(STUDENT, TEACHER, DistillationWeights(frozen_head=1.0), teacher.box_head).train()
    head = distiller._head
    assert isinstance(head, FrozenHead)
    before = {name: tensor.clone() for name, tensor in teacher.box_head.state_dict().items()}
    optimizer = torch.optim.AdamW([*student.parameters(), *distiller.parameters()], 0.01)
    ours = traced(student, batch)
    theirs = TeacherTrace({}, None, *ours.output)
    distiller(ours, theirs, BOXES, PRESENT)["total"].backward()
    moved = distiller.projections["frozen_head"].get_parameter("weight").clone()
    optimizer.step()
    assert not torch.equal(moved, distiller.projections["frozen_head"].get_parameter("weight"))
    for module in (teacher.box_head, head._head):
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
        assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(module.training for module in head._head.modules())
    assert all(
        parameter.requires_grad for parameter in teacher.box_head.parameters()
    )  # the copy is frozen, not the teacher
    assert set(distiller.state_dict()) == {"projections.frozen_head.weight", "projections.frozen_head.bias"}
    assert len(list(distiller.parameters())) == 2
    assert not any("conv" in name for name, _ in distiller.named_modules())


@pytest.mark.parametrize(
    ("decay", "shares"), [("linear", (1, 0.75, 0.5, 0)), ("cosine", (1, (1 + math.sqrt(0.5)) / 2, 0.5, 0))]
)
def test_the_frozen_heads_weight_decays(decay: Any, shares: tuple[float, ...]) -> None:
    for progress, share in zip((0.0, 0.25, 0.5, 1.0), shares, strict=True):
        assert decayed(progress, decay) == pytest.approx(share, abs=1e-12)
    assert decayed(1.2, decay) == pytest.approx(0, abs=1e-12)


def test_only_the_frozen_heads_weight_decays(teacher: Teacher) -> None:
    distiller = Distiller(STUDENT, TEACHER, replace(ALL_ON, frozen_head_decay="cosine"), teacher.box_head)
    strengths = [distiller.strengths(progress) for progress in (0.0, 1.0)]
    assert strengths[0] == {name: getattr(ALL_ON, name) for name in NAMES}
    assert strengths[1] == strengths[0] | {"frozen_head": 0.0}


def test_unlabelled_samples_are_judged_by_no_head(student: Student, teacher: Teacher, batch: dict[str, Tensor]) -> None:
    distiller, ours, theirs, _ = distilled(ALL_ON, student, teacher, batch)
    terms = distiller(ours, theirs)
    assert set(terms) == {*NAMES, "total"} - {"frozen_head"}
    assert bool(torch.isfinite(terms["total"]))


def test_an_absent_target_teaches_no_response(student: Student, teacher: Teacher, batch: dict[str, Tensor]) -> None:
    weights = DistillationWeights(response_score=1.0, response_box=1.0)
    distiller, ours, theirs, _ = distilled(weights, student, teacher, batch)
    output = HeadOutput(*(part.detach().requires_grad_() for part in ours.output))
    distiller(ours._replace(output=output), theirs, BOXES, PRESENT)["total"].backward()
    for gradient in (output.score_logits.grad, output.box_map.grad):
        assert gradient is not None
        assert gradient[0].any()
        assert not gradient[2].any()


def test_autocast_changes_little(student: Student, teacher: Teacher, batch: dict[str, Tensor]) -> None:
    _, _, _, exact = distilled(ALL_ON, student.eval(), teacher, batch)
    with torch.autocast("cpu", torch.bfloat16):
        _, _, _, rough = distilled(ALL_ON, student.eval(), teacher, batch)
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        assert float(rough[name].detach()) == pytest.approx(float(value.detach()), rel=0.1), name


def test_it_draws_the_student_to_the_teacher(student: Student, teacher: Teacher, batch: dict[str, Tensor]) -> None:
    distiller, _, theirs, first = distilled(ALL_ON, student, teacher, batch)
    optimizer = torch.optim.AdamW([*student.parameters(), *distiller.parameters()], 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        terms = distiller(traced(student, batch), theirs, BOXES, PRESENT)
        terms["total"].backward()
        optimizer.step()
    for name in (*NAMES, "total"):
        assert float(terms[name].detach()) < 0.8 * float(first[name].detach()), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template_size": 48}, r"template grid is 3 × 3 and the teacher's 2 × 2"),
        ({"search_size": 128}, r"search grid is 8 × 8 and the teacher's 4 × 4"),
        ({"patch": 8}, r"template grid is 4 × 4 and the teacher's 2 × 2"),
    ],
)
def test_other_grids_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Distiller(replace(STUDENT, **changes), TEACHER, ALL_ON)


def test_a_trace_of_another_teacher_is_refused(student: Student, teacher: Teacher, batch: dict[str, Tensor]) -> None:
    weights = DistillationWeights(feature=1.0, relational=1.0)
    distiller, ours, theirs, _ = distilled(weights, student, teacher, batch)
    with pytest.raises(ModelError, match=r"lacks layer 3: it has \[1\]"):
        distiller(ours, theirs._replace(layers={1: theirs.layers[1]}))
    with pytest.raises(ModelError, match=r"student's \(3, 20, 48\) and the teacher's \(3, 18, 48\)"):
        distiller(ours, theirs._replace(layers={number: tokens[:, :, 2:] for number, tokens in theirs.layers.items()}))
    with pytest.raises(ModelError, match="no fused tokens: build it with fused=True"):
        distiller(ours, theirs._replace(fused=None))


def test_impossible_distillers_are_refused() -> None:
    with pytest.raises(ModelError, match=r"\(2, 5\) names layer 5 of a teacher that has 0 to 4"):
        Distiller(STUDENT, TEACHER, DistillationWeights(layers=((0, 1), (2, 5))))
    with pytest.raises(ModelError, match=r"\(3, 1\) names layer 3 of a student that has 0 to 2"):
        Distiller(STUDENT, TEACHER, DistillationWeights(layers=((3, 1),)))
    with pytest.raises(ModelError, match="needs the teacher's head"):
        Distiller(STUDENT, TEACHER, DistillationWeights(frozen_head=1.0))


def test_chosen_layers_are_compared(student: Student, teacher: Teacher, batch: dict[str, Tensor]) -> None:
    """Layer numbers 2 and 4 are the tokens after the final norms."""
    weights = DistillationWeights(feature=1.0, layers=((2, 4),))
    distiller, ours, _, terms = distilled(weights, student, teacher, batch)
    projected = distiller.projections["feature_0"](ours.layers[-1][:, 0])
    expected = feature_loss(projected, traced(teacher, batch).layers[-1].mean(1))
    assert float(terms["feature"].detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_a_joint_student_is_compared_as_well(teacher: Teacher, batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    joint = Student(replace(STUDENT, template_attention="joint"))
    _, _, _, terms = distilled(ALL_ON, joint, teacher, batch)
    assert bool(torch.isfinite(terms["total"]))
