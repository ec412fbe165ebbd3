"""Several processes that train one network: torchrun's environment, sums over processes, synchronised BatchNorm.

Each process takes its part of every batch. Gradients are averaged by DistributedDataParallel; that average is the
gradient of the joint batch only if what is normalised over the batch is normalised over all of it: ``process_mean`` is
for losses that divide by a sum over samples, ``synchronise_batch_norm`` for BatchNorm.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: from 0; the first one writes files.
        count: number of processes.
        device: where this process computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0


@contextmanager
def joined_processes(device: torch.device | None = None) -> Iterator[Processes]:
    """Join the process group that torchrun described in the environment; alone where there is none.

    Each process takes the GPU of its local rank (NCCL), or the CPU where there is no GPU (gloo).
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None:
        device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
        dist.barrier()  # a process that leaves while another still talks to it can be aborted by gloo's threads
    finally:
        gc.collect()  # DistributedDataParallel holds the group in cycles, and its threads must end with the group
        dist.destroy_process_group()


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def process_mean(value: Tensor) -> Tensor:
    """The mean of ``value`` over all processes, without a gradient; ``value`` itself where there is one process."""
    if process_count() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / process_count()


def any_process(asks: bool, device: torch.device) -> bool:
    """Whether any process asks. Alone, nothing waits for the device."""
    return asks if process_count() == 1 else bool(process_mean(torch.tensor(float(asks), device=device)) > 0)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of each process's tensor. Every process's loss depends on every addend: gradients are summed too."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics are those of all processes' batches. torch's own SyncBatchNorm needs a GPU."""

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or process_count() == 1:
            return super().forward(features)
        values = features.float()
        count = values.numel() / values.shape[1] * process_count()
        mean = _sum(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _sum(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        normalised = centred * (variance + self.eps).rsqrt()[:, None, None]
        scaled = normalised * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(features.dtype)


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(value)  # type: ignore[no-untyped-call]
    return total


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm2d, in place, by one that sees all processes' batches; state and names stay."""
    if device.type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return synchronised
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            replacement = SynchronisedBatchNorm2d(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            replacement.load_state_dict(child.state_dict())
            replacement.train(child.training)
            setattr(module, name, replacement)
        else:
            synchronise_batch_norm(child, device)
    return module


def gathered(value: object) -> list[Any]:
    """``value`` of every process, by rank."""
    if process_count() == 1:
        return [value]
    everyone: list[Any] = [None] * process_count()
    dist.all_gather_object(everyone, value)
    return everyone
