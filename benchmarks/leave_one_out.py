"""What each source of the local mixture adds: trainings of one start, seed and budget, each without one source.

    python benchmarks/leave_one_out.py --config student-s --output runs/leave-one-out \\
        --set steps=300 --set model.start=runs/base.safetensors [--only all scenes …]

Runs that are finished are not run again, and one that was interrupted goes on. Prints a Markdown table of what the
config validates on; `one_step` tells small differences apart where `success`, which depends on single losses of a
target, does not.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from duotrack.data.sources.local import SHARES
from duotrack.training.config import RunConfig, load_config, parse_config
from duotrack.training.run import run_training

WHOLE = "all"


def without(config: RunConfig, source: str) -> RunConfig:
    """``config``, whose first source is a local folder, without one source of its mixture."""
    tree: dict[str, Any] = json.loads(config.as_json())
    tree["data"]["sources"][0]["without"] = [] if source == WHOLE else [source]
    return parse_config(tree)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="student-s")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--only", nargs="+", choices=[WHOLE, *SHARES], default=[WHOLE, *SHARES])
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    console = Console(stderr=True)
    rows = []
    for name in arguments.only:
        console.rule(name)
        outcome = run_training(without(config, name), arguments.output / name, console)
        if outcome.weights is None:
            raise SystemExit(130)
        rows.append((name, outcome.validation))
    print(f"\n{config.model.name}, {config.steps} steps of {config.batch}, seed {config.seed}; ", end="")
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    columns = list(rows[0][1])
    print("| without | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, figures in rows:
        print(f"| {'–' if name == WHOLE else name} | " + " | ".join(f"{figures[each]:.3f}" for each in columns) + " |")


if __name__ == "__main__":
    main()
