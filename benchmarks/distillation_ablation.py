"""What each distillation loss adds: students of one seed and one budget, told apart by their losses alone.

    python benchmarks/distillation_ablation.py --config student-t-distilled --output runs/ablation \\
        --set steps=500 --set distillation.cache_samples=5000 [--only base feature …] [--seeds 0 1]

The teacher's outputs are computed once, for all runs. Runs that are finished are not run again, and one that was
interrupted goes on. Prints a Markdown table: success AUC of the averaged weights on the config's validation sequences.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from duotrack.training.config import RunConfig, load_config, parse_config
from duotrack.training.run import run_training

# Weights of the losses of each run. The first two are the ends of the comparison, the others add one loss to the base.
RUNS: dict[str, dict[str, float]] = {
    "base": {},
    "feature": {"feature": 1.0},
    "response": {"response_score": 1.0, "response_box": 5.0},
    "frozen head": {"frozen_head": 1.0},
    "relational": {"relational": 5.0},
    "asymmetric": {"asymmetric": 5.0},
    "whitened": {"whitened": 1.0},
    "cross-modal": {"cross_modal": 0.5},
    "feature + response": {"feature": 1.0, "response_score": 1.0, "response_box": 5.0},
}


def ablated(config: RunConfig, weights: dict[str, float], seed: int) -> RunConfig:
    """``config`` with these distillation losses. The base keeps the teacher's samples, and learns nothing from it."""
    tree: dict[str, Any] = json.loads(config.as_json())
    tree["seed"] = seed
    tree["distillation"]["weights"] = weights
    return parse_config(tree)


def prepare_cache(config: RunConfig, output: Path, console: Console) -> None:
    """One step of a run with every loss that needs something of the teacher, so that the cache holds it all."""
    everything = {"feature": 1.0, "relational": 1.0, "asymmetric": 1.0, "whitened": 1.0, "response_score": 1.0}
    run_training(ablated(config, everything, config.seed), output / "cache-run", console, stop_after=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="student-t-distilled")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    arguments = parser.parse_args()
    cache = json.dumps(str(arguments.output / "cache"))
    config = load_config(arguments.config, [*arguments.overrides, f"distillation.cache={cache}"])
    console = Console(stderr=True)
    prepare_cache(config, arguments.output, console)
    rows = []
    for name in arguments.only:
        console.rule(name)
        outcome = run_training(
            ablated(config, RUNS[name], config.seed), arguments.output / name.replace(" ", "-"), console
        )
        rows.append((name, outcome.validation))
        console.print(name, outcome.validation)
    pairs = config.steps * config.batch
    print(
        f"\n{config.model.name}, {config.steps} steps of {config.batch} ({pairs} pairs), seed {config.seed}; ", end=""
    )
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    columns = list(rows[0][1])
    print("| losses | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, figures in rows:
        print(f"| {name} | " + " | ".join(f"{figures[column]:.3f}" for column in columns) + " |")


if __name__ == "__main__":
    main()
