"""Fitted layers against numpy's least squares, and dropped inputs against trying every choice."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from duotrack.nets.least_squares import Affine, Regression

Floats = NDArray[np.float64]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(seed: int, inputs: int = 6, outputs: int = 3, rows: int = 40) -> tuple[Affine, Tensor, Tensor]:
    """A start, inputs that are correlated, and targets that the start does not give."""
    start = Affine(normal(seed, outputs, inputs), normal(seed + 1, outputs))
    return start, normal(seed + 2, rows, inputs) @ normal(seed + 3, inputs, inputs), normal(seed + 4, rows, outputs)


def ridge_by_numpy(
    start: Affine, inputs: Tensor, targets: Tensor, ridge: float, kept: list[int]
) -> tuple[Floats, float]:
    """The minimum over the weights of ``kept`` inputs, all others zero, and its cost: (inputs + 1, outputs).

    The pull towards the start is written as further rows of an ordinary least-squares problem.
    """
    rows = np.concatenate((inputs, np.ones((len(inputs), 1))), 1)
    strength = np.sqrt(ridge * (rows**2).sum(0).mean())
    before = np.concatenate((start.weight, start.bias[:, None]), 1).T
    system = np.concatenate((rows, strength * np.eye(rows.shape[1])))
    goal = np.concatenate((targets, strength * before))
    columns = [*kept, rows.shape[1] - 1]
    found = np.zeros_like(before)
    found[columns] = np.linalg.lstsq(system[:, columns], goal, rcond=None)[0]
    return found, float(((system @ found - goal) ** 2).sum())


def together(affine: Affine) -> Floats:
    both: Floats = torch.cat((affine.weight, affine.bias[:, None]), 1).T.numpy()
    return both


@given(st.integers(0, 1000), st.sampled_from([1e-6, 1e-2, 10.0]))
def test_the_answer_is_numpys(seed: int, ridge: float) -> None:
    start, inputs, targets = problem(seed)
    regression = Regression(start, ridge)
    for part in (slice(0, 13), slice(13, None)):
        regression.add(inputs[part], targets[part])
    expected, _ = ridge_by_numpy(start, inputs, targets, ridge, list(range(6)))
    assert np.allclose(together(regression.solved()), expected, atol=1e-6 * np.abs(expected).max())


def test_importance_counts_a_row_as_often() -> None:
    start, inputs, targets = problem(0, rows=30)
    times = torch.arange(30) % 3
    weighted, repeated = Regression(start), Regression(start)
    weighted.add(inputs.reshape(5, 6, 6), targets.reshape(5, 6, 3), times.reshape(5, 6))
    repeated.add(inputs.repeat_interleave(times, 0), targets.repeat_interleave(times, 0))
    assert np.allclose(together(weighted.solved()), together(repeated.solved()), atol=1e-8)


def test_a_start_that_is_right_stays() -> None:
    """However few the rows are: what they do not tell, the start does."""
    start, inputs, _ = problem(1, rows=2)
    regression = Regression(start)
    regression.add(inputs, start(inputs))
    assert np.allclose(together(regression.solved()), together(start), atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_the_group_that_is_dropped_is_the_cheapest_of_all(seed: int) -> None:
    """Each of four groups of two tried with numpy; then each of the three that are left."""
    start, inputs, targets = problem(seed, inputs=8)
    regression = Regression(start, 1e-2)
    regression.add(inputs, targets)
    left = [0, 1, 2, 3]
    for keep in (3, 2):
        choices = {}
        for groups in combinations(left, keep):
            members = [place for group in groups for place in (2 * group, 2 * group + 1)]
            choices[groups] = members, *ridge_by_numpy(start, inputs, targets, 1e-2, members)
        best = min(choices, key=lambda groups: choices[groups][2])
        left = list(best)
        affine, kept = regression.thinned(groups=4, keep=keep)
        assert tuple(kept.tolist()) == best
        members, expected, _ = choices[best]
        assert np.allclose(together(affine), expected[[*members, 8]], atol=1e-8)


def test_of_two_copies_one_stays() -> None:
    """Either can be spared while the other is there, and only then."""
    inputs = normal(0, 50, 4)
    inputs[:, 1] = inputs[:, 0]
    start = Affine(torch.tensor([[5.0, 5.0, 1.0, 1.0]], dtype=torch.float64), normal(1, 1))
    regression = Regression(start)
    regression.add(inputs, start(inputs))
    affine, kept = regression.thinned(groups=4, keep=2)
    assert len({0, 1} & set(kept.tolist())) == 1
    assert affine.weight[0, 0] == pytest.approx(10, rel=0.05)


def test_keeping_all_groups_is_the_answer_itself() -> None:
    start, inputs, targets = problem(2)
    regression = Regression(start)
    regression.add(inputs, targets)
    affine, kept = regression.thinned(groups=3, keep=3)
    assert kept.tolist() == [0, 1, 2]
    assert np.array_equal(together(affine), together(regression.solved()))


def test_a_convolutions_map_reads_unfolded_patches() -> None:
    conv = nn.Conv2d(4, 5, 3, padding=1, dtype=torch.float64)
    maps = normal(0, 2, 4, 6, 6)
    affine = Affine.of(conv)
    found = affine(F.unfold(maps, 3, padding=1).transpose(1, 2)).transpose(1, 2).reshape(2, 5, 6, 6)
    assert torch.allclose(found, conv(maps), atol=1e-8)
    other = nn.Conv2d(4, 5, 3, padding=1, dtype=torch.float64)
    affine.write_to(other)
    assert torch.equal(other(maps), conv(maps))
