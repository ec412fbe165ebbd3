"""What a network costs: multiply-accumulates of a template and a search pass, by formula and by torch's own counter.

Counted are matrix products and convolutions. Norms, softmax, activations and pooling are not: together a few per cent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from duotrack.nets.models import ModelConfig, TrackingModel
from duotrack.nets.student import StudentConfig
from duotrack.nets.teacher import TeacherConfig

PRESENCE_HIDDEN = 128
CHANNEL_RATIO = 8
SPATIAL_KERNEL = 7
MLP_RATIO = 4


@dataclass(frozen=True, slots=True)
class Macs:
    """Multiply-accumulates of one template (once per session) and of one search crop (every frame)."""

    template: int
    search: int


def macs(config: ModelConfig) -> Macs:
    """The cost of the network that ``config`` describes, by hand."""
    template, search = config.template_grid**2, config.search_grid**2
    if isinstance(config, TeacherConfig):
        return Macs(2 * _embedding(config, template, 3), _teacher_search(config, template, search))
    isolated = config.template_attention == "isolated"
    own_pass = config.depth * block_macs(config.width, template, template) if isolated else 0
    tokens = search if isolated else template + search
    blocks = config.depth * block_macs(config.width, tokens, template + search)
    return Macs(
        _embedding(config, template, 4) + own_pass, _embedding(config, search, 4) + blocks + _heads(config, search)
    )


def count_macs(model: TrackingModel) -> Macs:
    """The same, counted by ``torch.utils.flop_counter`` while ``model`` runs on one session."""
    config = model.config
    present, box = torch.ones(1, 2), torch.full((1, 4), 0.5)
    template = torch.zeros(1, config.template_size, config.template_size, 4, dtype=torch.uint8)
    search = torch.zeros(1, config.search_size, config.search_size, 4, dtype=torch.uint8)
    # The counter knows the parts of attention, not torch's fused CPU kernel.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as in_template:
            features = model.encode(template, present, box)
        with FlopCounterMode(display=False) as in_search:
            model.search(search, present, features)
    return Macs(in_template.get_total_flops() // 2, in_search.get_total_flops() // 2)


def _embedding(config: ModelConfig, tokens: int, channels: int) -> int:
    """Patches through a linear map, and the row that stands for absent modalities."""
    masks = 2 * config.width if isinstance(config, StudentConfig) else 0
    return tokens * config.patch**2 * channels * config.width + masks


def block_macs(width: int, tokens: int, seen: int) -> int:
    """A transformer block: four products of ``tokens`` × ``width``, attention over ``seen`` tokens, and the MLP."""
    return tokens * (4 * width**2 + 2 * seen * width + 2 * MLP_RATIO * width**2)


def _convolution(places: int, inputs: int, outputs: int, kernel: int) -> int:
    return places * inputs * outputs * kernel**2


def _heads(config: ModelConfig, places: int) -> int:
    """Three towers of the centre head, and the presence head."""
    channels = config.head_channels
    sizes = [config.width, channels, channels // 2, channels // 4, channels // 8]
    tower = sum(_convolution(places, sizes[layer], sizes[layer + 1], 3) for layer in range(4))
    outputs = sum(_convolution(places, sizes[4], count, 1) for count in (1, 2, 2))
    presence = places * config.width + (2 * config.width + 1) * PRESENCE_HIDDEN + PRESENCE_HIDDEN
    return 3 * tower + outputs + presence


def _teacher_search(config: TeacherConfig, template: int, search: int) -> int:
    width, tokens = config.width, template + search
    attended = sum(_attended(width, places) for places in (template, search))
    weighing = 2 * (2 * width * (width // CHANNEL_RATIO) + 2 * (width // CHANNEL_RATIO)) if config.weighing else 0
    prompts = 2 * (2 * attended + (config.depth - 1) * (3 * attended + weighing))
    blocks = 2 * config.depth * block_macs(width, tokens, tokens)
    fusion = _convolution(search, 2 * width, width, 3)
    return 2 * _embedding(config, search, 3) + prompts + blocks + fusion + _heads(config, search)


def _attended(width: int, places: int) -> int:
    """Channel attention (the first map on mean and maximum, the second on their sum), then spatial attention."""
    return 3 * width * (width // CHANNEL_RATIO) + _convolution(places, 2, 1, SPATIAL_KERNEL)
