"""Networks as model folders, which run without torch: ONNX at four precisions, and TensorRT plans.

A model is a folder::

    template.onnx   template crops (uint8), what is present, boxes → features, once per session
    search.onnx     search crops (uint8), what is present, features → score map, box map, presence
    weights.bin     the weights of both
    model.json      name, crop sizes and thresholds (``ModelSpec``), a recorded run, checksums

Both graphs take any batch size; normalisation is inside. Students and teachers look alike from outside.
"""

from __future__ import annotations

from duotrack.export.graphs import export_model
from duotrack.export.weights import is_exported, load_network, read_model

__all__ = ["export_model", "is_exported", "load_network", "read_model"]
