"""Draws the curves of training runs from their logs: losses, and success AUC where they were validated.

    python benchmarks/training_curves.py runs/teacher-s/log.jsonl runs/student-t/log.jsonl --output curves.svg

Needs matplotlib (``pip install matplotlib``), which nothing else here does. TensorBoard shows the same figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SHOWN = ("focal", "giou", "l1", "presence")


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="an .svg or .png file")
    arguments = parser.parse_args()
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        parser.exit(1, "training_curves.py needs matplotlib: pip install matplotlib\n")
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SHOWN) + 1, figsize=(3.2 * (len(SHOWN) + 1), 2.8), layout="constrained")
    for path in arguments.logs:
        entries = read_log(path)
        steps = [(entry["step"], entry["losses"]) for entry in entries if "losses" in entry]
        for axis, name in zip(axes, SHOWN, strict=False):
            axis.plot([step for step, _ in steps], [losses[name] for _, losses in steps], label=path.parent.name)
            axis.set_title(name)
        checks = [(entry["step"], entry["validation"]["success"]) for entry in entries if "validation" in entry]
        axes[-1].plot([step for step, _ in checks], [success for _, success in checks], "o-", label=path.parent.name)
    axes[-1].set_title("success AUC, held-out sequences")
    axes[0].legend(frameon=False)
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
    figure.savefig(arguments.output)


if __name__ == "__main__":
    main()
