"""Where training pairs come from: each source draws two views of one target."""

from duotrack.data.sources.local import local_sources
from duotrack.data.sources.moving import MovingStills
from duotrack.data.sources.objects import ObjectPairs, OutlinedStill
from duotrack.data.sources.pasted import PastedPairs
from duotrack.data.sources.scenes import EndlessScenes, ScenePairs, render_scenes
from duotrack.data.sources.sequences import SequencePairs
from duotrack.data.sources.source import AbsentSource, PairSource, draw_absent
from duotrack.data.sources.stills import StillPairs, ThermalPairs

__all__ = [
    "AbsentSource",
    "EndlessScenes",
    "MovingStills",
    "ObjectPairs",
    "OutlinedStill",
    "PairSource",
    "PastedPairs",
    "ScenePairs",
    "SequencePairs",
    "StillPairs",
    "ThermalPairs",
    "draw_absent",
    "local_sources",
    "render_scenes",
]
