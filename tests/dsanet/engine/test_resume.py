"""A continued run takes weights, momentum and place from its checkpoint, and settings from now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dsanet.engine import EngineError
from dsanet.engine.batching import Layout
from dsanet.engine.config import TrainConfig
from dsanet.engine.execution import build_scaler
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.signals import Signals
from dsanet.engine.optim import OptimConfig, WeightAverage, build_optimizer
from dsanet.engine.report.console import Console
from dsanet.engine.resume import restore
from dsanet.engine.run_folder import RunFolder
from dsanet.engine.setup import Training

CPU = torch.device("cpu")


class Videos:
    """A split of 20 videos, as far as a checkpoint knows it."""

    classes = ("left", "right")
    manifest: dict[str, Any] = {"settings": {}}  # noqa: RUF012

    def __len__(self) -> int:
        return 20


def training(
    out: Path,
    optim: OptimConfig | None = None,
    *,
    precision: str = "fp32",
    world: World | None = None,
    resume: Path | None = None,
) -> Training:
    """A run of a linear network at its beginning."""
    optim = optim or OptimConfig()
    config = TrainConfig(data="d", model="m", out=str(out), optim=optim)
    if resume:
        config = replace(config, resume=str(resume))
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return Training(
        config, world or World(), RunFolder(out), Console(speak=False), Signals(),
        Videos(), Layout(4, 1, 4, 1, 5, 2), precision, model, model,  # type: ignore[arg-type]
        optimizer=build_optimizer(model, optim, fused=False),
        scaler=build_scaler(precision, CPU),
        loader=None,  # type: ignore[arg-type]
        average=WeightAverage(model, optim.ema) if optim.ema else None,
    )  # fmt: skip


def step(run: Training) -> None:
    run.model(torch.ones(1, 3)).sum().backward()
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.samples += run.layout.videos


def saved(out: Path, optim: OptimConfig | None = None, precision: str = "fp32") -> Training:
    """A run saved after one step."""
    run = training(out, optim, precision=precision)
    step(run)
    run.save()
    return run


def test_settings_of_the_optimiser_are_those_of_now(tmp_path: Path) -> None:
    before = saved(tmp_path)
    now = training(tmp_path, OptimConfig(momentum=0.5, weight_decay=0.25))
    restore(now)
    [group] = now.optimizer.param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.25)
    assert torch.equal(now.model.weight, before.model.weight)
    found, expected = (r.optimizer.state[r.model.weight] for r in (now, before))
    assert torch.equal(found["momentum_buffer"], expected["momentum_buffer"])
    assert now.samples == 4


def test_other_groups_of_parameters_are_one_line(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    other = OptimConfig(decay_norm_and_bias=False)
    with pytest.raises(EngineError, match="decay_norm_and_bias"):
        restore(training(tmp_path / "b", other, resume=tmp_path / "a"))


def test_momentum_switched_on_later_has_buffers(tmp_path: Path) -> None:
    saved(tmp_path, OptimConfig(momentum=0))
    now = training(tmp_path)
    restore(now)
    assert not now.optimizer.state[now.model.weight]["momentum_buffer"].any()


def test_an_average_switched_on_later_begins_with_the_weights(tmp_path: Path) -> None:
    before = saved(tmp_path)
    now = training(tmp_path, OptimConfig(ema=0.9))
    restore(now)
    assert now.average is not None
    assert torch.equal(now.average.model.weight, before.model.weight)


@dataclass
class Scaler:
    """Remembers what it is told."""

    scale: float

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]


@pytest.mark.parametrize(("precision", "scale"), [("fp16", 1024.0), ("bf16", 1.0)])
def test_the_scale_of_the_loss_is_kept_within_one_precision(
    precision: str, scale: float, tmp_path: Path
) -> None:
    before = training(tmp_path, precision="fp16")
    before.scaler = Scaler(1024.0)  # type: ignore[assignment]
    before.save()
    now = training(tmp_path, precision=precision)
    now.scaler = Scaler(1.0)  # type: ignore[assignment]
    restore(now)
    assert now.scaler.scale == scale  # type: ignore[attr-defined]


def test_a_run_folder_can_be_resumed_from(tmp_path: Path) -> None:
    before = saved(tmp_path / "a")
    now = training(tmp_path / "b", resume=tmp_path / "a")
    restore(now)
    assert torch.equal(now.model.weight, before.model.weight)


class Late(World):
    """The first of two processes; the other one stands at 8 videos."""

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        return [array, np.full_like(array, 8)]


@pytest.mark.parametrize("there", [True, False])
def test_processes_that_found_different_checkpoints_do_not_go_on(
    there: bool, tmp_path: Path
) -> None:
    if there:
        saved(tmp_path)
    run = training(tmp_path, world=Late())
    with pytest.raises(EngineError, match=f"rank 0 at {4 if there else 0}, rank 1 at 8"):
        restore(run)


def test_a_run_killed_before_its_first_checkpoint_starts_its_records_anew(tmp_path: Path) -> None:
    run = training(tmp_path)
    run.folder.add({"kind": "train", "samples": 4, "loss": 1.0})
    restore(run)
    assert run.samples == 0
    assert run.folder.metrics.read_text() == ""
