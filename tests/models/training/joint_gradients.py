"""Gradients of one joint batch, by however many processes torchrun starts: the first one writes them to a file.

With ``--apart``, each process's BatchNorm sees its own part only: what DistributedDataParallel does if left alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from conftest import BrightSquares
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate

from duotrack.nets.student import Student, StudentConfig
from duotrack.training.distributed import gathered, joined_processes, synchronise_batch_norm
from duotrack.training.loop import Part
from duotrack.training.losses import LossWeights
from duotrack.training.objective import Objective

BATCH = 8


def main(output: Path) -> None:
    torch.set_num_threads(1)
    with joined_processes(torch.device("cpu")) as processes:
        torch.manual_seed(0)
        objective = Objective(
            Student(StudentConfig(width=48, depth=2, heads=3, head_channels=16)), LossWeights(mask=2.0)
        )
        wrapped: torch.nn.Module = objective.train()
        if processes.count > 1:
            if "--apart" not in sys.argv:
                synchronise_batch_norm(objective, processes.device)
            wrapped = DistributedDataParallel(objective)
        samples = BrightSquares()
        (numbers,) = Part(2, 3, BATCH, processes)
        terms = wrapped(default_collate([samples[number] for number in numbers]), None, 0.0)
        terms["total"].backward()
        seen = gathered(numbers)
        if processes.is_first:
            gradients = {name: parameter.grad for name, parameter in objective.named_parameters()}
            torch.save({"gradients": gradients, "buffers": dict(objective.named_buffers()), "numbers": seen}, output)
        del wrapped, terms


if __name__ == "__main__":
    main(Path(sys.argv[1]))
