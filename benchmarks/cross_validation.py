"""Success on sequences that were not trained on, over several splits: a training for each fold of the local sequences.

    python benchmarks/cross_validation.py --config student-s --output runs/folds --folds 5 \\
        --set steps=600 --set model.start=runs/no-sequences.safetensors

The start must not have seen the sequences: a pretrained ViT, or a run with `without: [sequences]`. Fold k of n holds
out every n-th sequence in sorted order, from the k-th. Runs that are finished are not run again, and one that was
interrupted goes on. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from rich.console import Console

from duotrack.training.config import LocalData, RunConfig, load_config, parse_config
from duotrack.training.run import run_training


def with_fold(config: RunConfig, fold: list[str]) -> RunConfig:
    """``config``, whose first source is a local folder, with ``fold`` held out of it and validated on."""
    tree: dict[str, Any] = json.loads(config.as_json())
    tree["data"]["sources"][0]["fold"] = fold
    tree["validation"] = {"root": tree["data"]["sources"][0]["root"], "every": config.steps, "fold": fold}
    return parse_config(tree)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="student-s")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    source = config.data.sources[0]
    if not isinstance(source, LocalData):
        parser.error(f"the config's first source is {source.kind}: expected local")
    names = sorted(path.name for path in (source.root / "rgb-sequences").iterdir() if path.is_dir())
    console = Console(stderr=True)
    rows = []
    for number in range(arguments.folds):
        fold = names[number :: arguments.folds]
        console.rule(f"fold {number + 1}: {', '.join(fold)}")
        outcome = run_training(with_fold(config, fold), arguments.output / f"fold-{number + 1}", console)
        if outcome.weights is None:
            raise SystemExit(130)
        rows.append((fold, outcome.validation))
    print(f"\n{config.model.name}, {config.steps} steps of {config.batch}, seed {config.seed}; ", end="")
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    columns = list(rows[0][1])
    print("| held out | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for fold, figures in rows:
        print(f"| {', '.join(fold)} | " + " | ".join(f"{figures[each]:.3f}" for each in columns) + " |")
    for title, reduce in (("mean", fmean), ("deviation", stdev)):
        values = [reduce([figures[each] for _, figures in rows]) for each in columns]
        print(f"| **{title}** | " + " | ".join(f"{value:.3f}" for value in values) + " |")


if __name__ == "__main__":
    main()
