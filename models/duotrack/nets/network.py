"""A torch student behind the tracker's ``Network`` protocol: for validation, and as the engine's reference."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from duotrack.nets.student import Student
from duotrack.network import ModelSpec, Prediction, Template


class TorchNetwork:
    """Runs ``student`` in float32, or under bf16 autocast. Implements ``Network``."""

    def __init__(self, student: Student, name: str = "student", *, bf16: bool = False) -> None:
        config = student.config
        self.spec = ModelSpec(
            name=name, template_size=config.template_size, search_size=config.search_size, grid=config.search_grid
        )
        self._student = student.eval()
        self._device = next(student.parameters()).device
        self._bf16 = bf16

    @torch.inference_mode()
    def encode(self, template: Template) -> NDArray[np.float32]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            features = self._student.encode(
                self._tensor(template.crop), self._tensor(template.present), self._tensor(template.box)
            )
        return features.float().cpu().numpy()

    @torch.inference_mode()
    def search(
        self, crop: NDArray[np.uint8], present: NDArray[np.float32], features: NDArray[np.float32]
    ) -> Prediction:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            output = self._student.search(self._tensor(crop), self._tensor(present), self._tensor(features))
        return Prediction(
            output.score_map.cpu().numpy(),
            output.box_map.float().cpu().numpy(),
            output.presence_logit.float().sigmoid().cpu().numpy(),
        )

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
