"""What a run minimises: the tracking loss on the true boxes, and what distillation adds to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from duotrack.data.augment_plan import MASK_CELL
from duotrack.errors import ConfigError
from duotrack.nets.head import MaskHead, Trace
from duotrack.nets.models import TrackingModel
from duotrack.training.distillation import Distiller, TeacherTrace, cross_modal_loss, single_modality
from duotrack.training.losses import LossWeights, mask_loss, tracking_loss

# A collated sample of ``data.pairs.Batchable``, and the teacher's outputs beside it where they are cached.
Batch = dict[str, Tensor]
# Gives the teacher's view of a batch.
Teaching = Callable[[Batch], TeacherTrace]

INPUTS = ("template", "template_present", "template_box", "search", "search_present")


class Objective(nn.Module):
    """The model with its losses: batch in, named scalar losses out, ``total`` among them.

    It is one module so that DistributedDataParallel sees one forward pass, the distiller's projections included.

    Args:
        modality: what the model is shown; the teacher sees both in any case.

    Raises:
        ConfigError: there is a loss of masks, and the model's patches are no whole cells of one.
    """

    def __init__(
        self,
        model: TrackingModel,
        losses: LossWeights,
        distiller: Distiller | None = None,
        modality: Literal["both", "rgb", "thermal"] = "both",
    ) -> None:
        super().__init__()
        self.model = model
        self.distiller = distiller
        self.mask_head = _mask_head(model) if losses.mask else None
        self._losses = losses
        self._modality = modality

    def forward(self, batch: Batch, taught: TeacherTrace | None, progress: float) -> dict[str, Tensor]:
        """Losses of a batch, the mean over all processes being that of the joint batch.

        Args:
            taught: the teacher's view of the batch; None without distillation.
            progress: share of the run that is over, in [0, 1].
        """
        if self._modality != "both":
            batch = single_modality(batch, self._modality)
        trace = self._trace(batch)
        own = tracking_loss(trace.output, batch["search_box"], batch["present"], self._losses)
        terms = {"focal": own.focal, "giou": own.giou, "l1": own.l1, "presence": own.presence, "total": own.total}
        if self.mask_head is not None:
            terms["mask"] = mask_loss(self.mask_head(trace.fused), batch["search_mask"], batch["mask_known"])
            terms["total"] = terms["total"] + self._losses.mask * terms["mask"]
        if self.distiller is None:
            return terms
        if taught is not None:
            learnt = self.distiller(trace, taught, batch["search_box"], batch["present"], progress)
            terms |= learnt | {"total": terms["total"] + learnt["total"]}
        weights = self.distiller.weights
        if weights.cross_modal:
            terms["cross_modal"] = self._cross_modal(batch, weights.temperature)
            terms["total"] = terms["total"] + weights.cross_modal * terms["cross_modal"]
        return terms

    def _trace(self, batch: Batch) -> Trace:
        trace: Trace = self.model.trace(*(batch[name] for name in INPUTS))
        return trace

    def _cross_modal(self, batch: Batch, temperature: float) -> Tensor:
        """Of the samples that have both modalities in the search crop; boxes are not looked at."""
        both = batch["search_present"].prod(1)
        with torch.no_grad():
            rgb = self._trace(single_modality(batch, "rgb", ("search",))).output
        thermal = self._trace(single_modality(batch, "thermal", ("search",))).output
        return cross_modal_loss(thermal, rgb, temperature, weights=both)


def _mask_head(model: TrackingModel) -> MaskHead:
    cells, rest = divmod(model.config.patch, MASK_CELL)
    if rest:
        raise ConfigError(
            f"losses.mask: masks come in cells of {MASK_CELL} pixels, which patches of {model.config.patch} are no "
            "multiple of: set it to 0"
        )
    return MaskHead(model.config.width, cells)
