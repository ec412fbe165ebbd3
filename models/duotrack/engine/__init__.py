"""Running exported models: which provider, at which precision, and the proof that it computes what it should."""

import os
import sys

# Both runtimes report their use to their makers unless told not to, and perimeters and drones must not call out.
# OpenVINO has no switch but a missing telemetry package, for which it has a stub.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

from duotrack.engine.engine import Engine  # noqa: E402 - after the switches
from duotrack.engine.models import available_models  # noqa: E402
from duotrack.engine.providers import EngineReport  # noqa: E402
from duotrack.network import DEFAULT_MODEL  # noqa: E402

__all__ = ["DEFAULT_MODEL", "Engine", "EngineReport", "available_models"]
