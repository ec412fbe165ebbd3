"""Linear layers fitted to data: ridge regression towards a start, and which of the inputs can be spared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Part of the inputs' mean power that holds a fitted layer near its start.
RIDGE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A linear map: ``weight`` (outputs, inputs), and ``bias`` (outputs,)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: nn.Linear | nn.Conv2d) -> Affine:
        """A layer's map; a convolution's inputs are the patches that ``F.unfold`` cuts, channel by channel."""
        return cls(layer.weight.detach().flatten(1), _bias(layer))

    def __call__(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight, self.bias)

    def write_to(self, layer: nn.Linear | nn.Conv2d) -> None:
        layer.weight.data.copy_(self.weight.reshape(layer.weight.shape))
        _bias(layer).copy_(self.bias)

    def rows(self, kept: Tensor) -> Affine:
        return Affine(self.weight[kept], self.bias[kept])


class Regression:
    """Collects inputs and targets, then gives the map between them that is least squares, held near ``start``.

    Minimises Σ |W x + b − target|² + λ |(W, b) − start|², where λ is ``ridge`` × the mean power of an input. Where the
    start is already right, the answer is the start. Sums and solutions are in float64.
    """

    def __init__(self, start: Affine, ridge: float = RIDGE) -> None:
        outputs, inputs = start.weight.shape
        self._start = start
        self._ridge = ridge
        self._moment = start.weight.new_zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self._cross = start.weight.new_zeros(inputs + 1, outputs, dtype=torch.float64)

    def add(self, inputs: Tensor, targets: Tensor, importance: Tensor | None = None) -> None:
        """Inputs (…, inputs) with what they should give (…, outputs), and how much each error counts (…)."""
        left = (targets - self._start(inputs)).flatten(0, -2)
        constant = torch.cat((inputs, torch.ones_like(inputs[..., :1])), -1).flatten(0, -2)
        weighted = constant if importance is None else constant * importance.flatten()[:, None]
        self._moment += weighted.T @ constant
        self._cross += weighted.T @ left

    def solved(self) -> Affine:
        return self._affine(self._solution())

    def thinned(self, groups: int, keep: int) -> tuple[Affine, Tensor]:
        """The map from ``keep`` of the inputs' ``groups``, which lie one after the other, and the numbers of those.

        One group after the other is dropped: that whose loss costs least once all other weights have made up for it
        (Hassibi & Stork, *Second Order Derivatives for Network Pruning: Optimal Brain Surgeon*, NeurIPS 1992).
        """
        weight, inverse = self._solution(), torch.linalg.inv(self._held())
        inputs = len(weight) - 1
        members = torch.arange(inputs, device=weight.device).reshape(groups, -1)
        size = members.shape[1]
        blocks = inverse[members[:, :, None], members[:, None, :]]
        # What the groups that are gone take off the inverse, as a product with its own transpose.
        gone = inverse.new_zeros(inputs + 1, (groups - keep) * size)
        left = torch.ones(groups, dtype=torch.bool, device=weight.device)
        for count in range(0, gone.shape[1], size):
            costs = torch.linalg.solve_triangular(torch.linalg.cholesky(blocks), weight[members], upper=False)
            spared = int(costs.square().sum((1, 2)).masked_fill(~left, torch.inf).argmin())
            left[spared] = False
            own = members[spared]
            columns = inverse[:, own] - gone[:, :count] @ gone[own, :count].T
            root = torch.linalg.cholesky(columns[own])
            step = torch.linalg.solve_triangular(root.T, columns, upper=True, left=False)
            gone[:, count : count + size] = step
            weight = weight - step @ torch.linalg.solve_triangular(root, weight[own], upper=False)
            blocks = blocks - step[members] @ step[members].mT
            blocks[~left] = torch.eye(size, dtype=blocks.dtype, device=blocks.device)
        kept = left.nonzero().flatten()
        constant = members.new_full((1,), inputs)
        return self._affine(weight[torch.cat((members[kept].flatten(), constant))]), kept

    def _held(self) -> Tensor:
        strength = self._ridge * self._moment.diagonal().mean()
        return self._moment + strength * torch.eye(len(self._moment), dtype=torch.float64, device=self._moment.device)

    def _solution(self) -> Tensor:
        """(inputs + 1, outputs): the weights, and last the bias."""
        start = torch.cat((self._start.weight, self._start.bias[:, None]), 1).T.double()
        change: Tensor = torch.linalg.solve(self._held(), self._cross)
        return start + change

    def _affine(self, solution: Tensor) -> Affine:
        values = solution.T.to(self._start.weight.dtype)
        return Affine(values[:, :-1].contiguous(), values[:, -1].contiguous())


def _bias(layer: nn.Linear | nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias.data
