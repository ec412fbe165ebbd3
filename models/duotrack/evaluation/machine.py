"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from duotrack import __version__


def cpu_name() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def describe_machine() -> dict[str, str]:
    """Named lines on the machine and the versions."""
    return {
        "hardware": f"{cpu_name()}, {os.cpu_count()} cores",
        "software": f"duotrack {__version__}, Python {platform.python_version()}, {platform.system()}",
    }
