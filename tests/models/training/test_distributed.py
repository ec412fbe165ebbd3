"""Two processes on one machine give what one process gives for the joint batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from duotrack.training.distributed import SynchronisedBatchNorm2d, process_mean, synchronise_batch_norm

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def under_torchrun(processes: int, *command: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [*TORCHRUN, "--nproc-per-node", str(processes), *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def joint_gradients(folder: Path, processes: int, *options: str) -> dict[str, Any]:
    output = folder / f"{processes}{''.join(options)}.pt"
    under_torchrun(processes, str(Path(__file__).with_name("joint_gradients.py")), str(output), *options)
    found: dict[str, Any] = torch.load(output, weights_only=True)
    return found


def largest_difference(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Over all tensors, the norm of the difference relative to the norm.

    Biases that BatchNorm cancels, and masks of modalities that are there, have no gradient but rounding's.
    """
    return max(
        float((actual[name] - tensor).norm() / tensor.norm().clamp(min=1e-2)) for name, tensor in expected.items()
    )


def test_two_processes_have_the_gradients_of_one_with_the_joint_batch(tmp_path: Path) -> None:
    one, two = joint_gradients(tmp_path, 1), joint_gradients(tmp_path, 2)
    assert one["numbers"] == [list(range(16, 24))]
    assert two["numbers"] == [list(range(16, 20)), list(range(20, 24))]
    assert len(one["gradients"]) > 60
    # What is left is float32's rounding, in another order of sums.
    assert largest_difference(two["gradients"], one["gradients"]) < 2e-3
    for name, expected in one["buffers"].items():
        assert torch.allclose(two["buffers"][name].float(), expected.float(), rtol=1e-4, atol=1e-6), name
    apart = joint_gradients(tmp_path, 2, "--apart")
    assert largest_difference(apart["gradients"], one["gradients"]) > 0.1


def test_a_run_under_torchrun_is_the_run_of_one_process(tmp_path: Path) -> None:
    config = {
        "model": {"name": "student-t", "overrides": {"width": 48, "depth": 2, "heads": 3, "head_channels": 16}},
        "data": {"sources": [{"kind": "synthetic"}], "workers": 0},
        "steps": 4,
        "batch": 4,
        "log_every": 1,
        "precision": "fp32",
        "schedule": {"warmup": 2},
        "validation": {"scenes": 2, "frames": 4},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    logs = {}
    for count in (1, 2):
        output = tmp_path / str(count)
        under_torchrun(count, "-m", "duotrack", "train", str(tmp_path / "run.yaml"), "--output", str(output))
        logs[count] = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["step"] for entry in logs[2]] == [1, 2, 3, 4, 4]
    for alone, together in zip(logs[1], logs[2], strict=True):
        assert together.get("losses", {}) == pytest.approx(alone.get("losses", {}), rel=2e-3)
        assert together.get("validation", {}) == pytest.approx(alone.get("validation", {}), abs=0.05)
    assert (tmp_path / "2" / "student-t.safetensors").exists()


def test_alone_everything_is_itself() -> None:
    value = torch.tensor(3.0, requires_grad=True)
    assert process_mean(value) is value
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    synchronised = synchronise_batch_norm(nn.Sequential(*plain), torch.device("cpu"))
    assert type(synchronised.get_submodule("1")) is SynchronisedBatchNorm2d
    features = torch.randn(2, 3, 8, 8)
    assert synchronised.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(plain(features), synchronised(features))
