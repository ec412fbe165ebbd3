"""BatchNorms that an export folded away: given back, so that the network can be trained on."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from duotrack.export import read_model
from duotrack.nets.batch_norms import unfold_batch_norms
from duotrack.nets.models import TrackingModel
from duotrack.nets.narrowing import Crops

if TYPE_CHECKING:
    from conftest import ExportedModel


@torch.no_grad()
def score_logits(model: TrackingModel, crops: Crops) -> Tensor:
    logits: Tensor = model(*crops).score_logits
    return logits


def test_in_use_nothing_changes_and_in_training_little(exported: ExportedModel, crops: Crops) -> None:
    """By the batch that was measured, training normalises as use does; BatchNorms that do nothing would rescale."""
    plain = read_model(exported.directory)
    unfolded = copy.deepcopy(plain)
    unfold_batch_norms(unfolded, [crops])
    expected = score_logits(plain, crops)
    assert (score_logits(unfolded, crops) - expected).abs().max() < 1e-4
    assert (score_logits(unfolded.train(), crops) - expected).abs().max() < 1e-3
    assert (score_logits(plain.train(), crops) - expected).abs().max() > 0.1


def test_statistics_are_of_all_batches(exported: ExportedModel, crops: Crops) -> None:
    first, second = (Crops(*(tensor[part] for tensor in crops)) for part in (slice(0, 1), slice(1, 3)))
    model = read_model(exported.directory)
    seen = []
    norm = model.get_submodule("box_head.conv1_ctr.1")
    hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    score_logits(model, first), score_logits(model, second)
    hook.remove()
    unfold_batch_norms(model, [first, second, second])
    values = torch.cat((seen[0], seen[1], seen[1])).movedim(1, 0).flatten(1).double()
    assert torch.allclose(norm.running_mean.double(), values.mean(1), atol=1e-5)
    assert torch.allclose(norm.running_var.double(), values.var(1, correction=0), rtol=1e-3)
