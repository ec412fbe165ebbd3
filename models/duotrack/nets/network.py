"""A torch network behind the tracker's ``Network`` protocol: for validation, and as the engine's reference."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from duotrack.nets.models import TrackingModel
from duotrack.network import ModelSpec, Prediction, Template


class TorchNetwork:
    """Runs a student or a teacher in float32, or under bf16 autocast. Implements ``Network``."""

    def __init__(self, model: TrackingModel, name: str = "model", *, bf16: bool = False) -> None:
        config = model.config
        self.spec = ModelSpec(
            name=name,
            template_size=config.template_size,
            search_size=config.search_size,
            template_factor=config.template_factor,
            search_factor=config.search_factor,
            widening=config.widening,
            grid=config.search_grid,
        )
        self._model = model.eval()
        self._device = next(model.parameters()).device
        self._bf16 = bf16

    @torch.inference_mode()
    def encode(self, template: Template) -> NDArray[np.float32]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            features = self._model.encode(
                self._tensor(template.crop), self._tensor(template.present), self._tensor(template.box)
            )
        return features.float().cpu().numpy()

    @torch.inference_mode()
    def search(
        self, crop: NDArray[np.uint8], present: NDArray[np.float32], features: NDArray[np.float32]
    ) -> Prediction:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            output = self._model.search(self._tensor(crop), self._tensor(present), self._tensor(features))
        return Prediction(
            output.score_map.cpu().numpy(),
            output.box_map.float().cpu().numpy(),
            output.presence_logit.float().sigmoid().cpu().numpy(),
        )

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
