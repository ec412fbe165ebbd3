"""Whether an imported network computes what the original code computed: the same inputs, and the outputs compared."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duotrack.errors import ModelError
from duotrack.nets.head import Trace
from duotrack.nets.models import TrackingModel
from duotrack.nets.student import Student
from duotrack.nets.teacher import Teacher

Arrays = Mapping[str, NDArray[np.generic]]

OUTPUTS = ("pred_boxes", "score_map", "size_map", "offset_map", "tokens")


def read_record(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a recorded run (``.npz``): inputs as ``run_reference`` takes them, and outputs as it gives them.

    Raises:
        ModelError: the file cannot be read, or holds something other than arrays of numbers.
    """
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("expected an .npz file with arrays by name")
            return {name: arrays[name] for name in arrays.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot read the recorded run {path}: {error}") from error


@torch.inference_mode()
def run_reference(model: TrackingModel, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
    """Run ``model`` as the public code runs its own: on images that are normalised already.

    Args:
        inputs: float images (B, 3, S, S), of S the model's template or search size: ``template`` and ``search`` for a
            student, to which thermal is then absent; ``template_rgb``, ``template_thermal``, ``search_rgb`` and
            ``search_thermal`` for a teacher. Other arrays are ignored.

    Returns:
        With G the search grid and N the template and search tokens together:
            pred_boxes: (B, 1, 4), cx cy w h from 0 to 1, of the best cell;
            score_map: (B, 1, G, G);
            size_map: (B, 2, G, G), from 0 to 1;
            offset_map: (B, 2, G, G), x y within the cell, in cells;
            tokens: (B, N, C) after the last norm; of a teacher (B, 2·N, C), colour first.

    Raises:
        ModelError: an image is missing or of the wrong shape.
    """
    model.eval()
    trace = _trace_teacher(model, inputs) if isinstance(model, Teacher) else _trace_student(model, inputs)
    grid = model.config.search_grid
    scores, boxes = trace.output.score_map, trace.output.box_map
    best = scores.flatten(1).argmax(1)
    outputs = {
        "pred_boxes": boxes.flatten(2)[torch.arange(len(boxes)), :, best].unsqueeze(1),
        "score_map": scores.unsqueeze(1),
        "size_map": boxes[:, 2:],
        "offset_map": boxes[:, :2] * grid - model.box_head.cells,
        "tokens": trace.layers[-1].flatten(1, 2),
    }
    return {name: tensor.float().cpu().numpy() for name, tensor in outputs.items()}


def largest_differences(outputs: Arrays, recorded: Arrays) -> dict[str, float]:
    """The largest absolute difference of each output from the recorded one.

    Raises:
        ModelError: an output was not recorded or has another shape, or one of the two is not finite.
    """
    differences = {}
    for name in OUTPUTS:
        if name not in recorded:
            raise ModelError(f"the recorded run has no {name!r}: expected {', '.join(OUTPUTS)}")
        found, expected = outputs[name], recorded[name]
        if found.shape != expected.shape or expected.dtype.kind != "f":
            raise ModelError(
                f"the recorded {name} is {expected.shape} of {expected.dtype}, expected {found.shape} of float32"
            )
        difference = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
        if not np.isfinite(difference):
            raise ModelError(f"{name} is not finite")
        differences[name] = difference
    return differences


def differences_from(model: TrackingModel, record: Path) -> dict[str, float]:
    """``largest_differences`` of ``model``'s outputs from those that ``record`` (``.npz``) has for the same inputs.

    Raises:
        ModelError: the record cannot be read, or lacks arrays or has them in other shapes.
    """
    recorded = read_record(record)
    return largest_differences(run_reference(model, recorded), recorded)


def _trace_student(model: Student, inputs: Arrays) -> Trace:
    config, backbone = model.config, model.backbone
    template = _image(inputs, "template", config.template_size)
    search = _image(inputs, "search", config.search_size, len(template))
    present = template.new_tensor([[1.0, 0.0]]).expand(len(template), 2)
    # The student normalises pixels itself: these are the pixels, as floats, that it turns into the given images.
    crops = [
        torch.cat((image, torch.zeros_like(image[..., :1])), 3) * backbone.std.cpu() + backbone.mean.cpu()
        for image in (template, search)
    ]
    box = template.new_tensor([[0.5, 0.5, 0.5, 0.5]]).expand(len(template), 4)
    device = backbone.mean.device
    return model.trace(*(tensor.to(device) for tensor in (crops[0], present, box, crops[1], present)))


def _trace_teacher(model: Teacher, inputs: Arrays) -> Trace:
    config, backbone = model.config, model.backbone
    tokens: list[tuple[Tensor, Tensor]] = []
    count: int | None = None
    for part, size in (("template", config.template_size), ("search", config.search_size)):
        # Past the teacher's own embedding, which makes three equal channels of thermal: here they may differ.
        rgb = _image(inputs, f"{part}_rgb", size, count)
        count = len(rgb)
        thermal = _image(inputs, f"{part}_thermal", size, count)
        device = backbone.mean.device
        tokens.append((backbone.patch_embed(rgb.to(device)), backbone.patch_embed(thermal.to(device))))
    template, search = tokens
    return model.trace_tokens(template, search, torch.zeros_like(template[0]))


def _image(inputs: Arrays, name: str, size: int, count: int | None = None) -> Tensor:
    """The images ``name`` as (B, S, S, 3)."""
    if name not in inputs:
        raise ModelError(f"there is no array {name!r} among {', '.join(sorted(inputs)) or 'none'}")
    array = inputs[name]
    shape = array.shape
    if shape[1:] != (3, size, size) or shape[0] != (count or shape[0]) or shape[0] < 1 or array.dtype.kind != "f":
        expected = f"({count or 'B'}, 3, {size}, {size})"
        raise ModelError(f"{name} is {shape} of {array.dtype}, expected {expected} of float32")
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).permute(0, 2, 3, 1)
