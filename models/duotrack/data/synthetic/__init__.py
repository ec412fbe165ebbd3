"""Synthetic scenes in colour and thermal with exact boxes, from a seed: something to test and to train on."""

from duotrack.data.synthetic.config import SceneConfig
from duotrack.data.synthetic.scene import Scene, SceneFrame
from duotrack.data.synthetic.stage import Sight
from duotrack.data.synthetic.writer import GENERATOR_VERSION, write_scene

__all__ = ["GENERATOR_VERSION", "Scene", "SceneConfig", "SceneFrame", "Sight", "write_scene"]
