"""Running exported models: which provider, at which precision, and the proof that it computes what it should."""

from duotrack.engine.engine import Engine
from duotrack.engine.models import DEFAULT_MODEL, available_models
from duotrack.engine.providers import EngineReport

__all__ = ["DEFAULT_MODEL", "Engine", "EngineReport", "available_models"]
