"""A continued run: weights, momentum and position of its checkpoint, settings as given now."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dsanet.engine import EngineError
from dsanet.engine.batching import Layout
from dsanet.engine.config import TrainConfig, plain
from dsanet.engine.execution import build_scaler
from dsanet.engine.launch.distributed import World
from dsanet.engine.launch.signals import Signals
from dsanet.engine.optim import OptimConfig, ScheduleConfig, WeightAverage, build_optimizer
from dsanet.engine.report.console import Console
from dsanet.engine.resume import changed_settings, restore
from dsanet.engine.run_folder import RunFolder
from dsanet.engine.run_state import RunState
from dsanet.engine.setup import Training

CPU = torch.device("cpu")


class Videos:
    """What a checkpoint records of a split, here of 20 videos."""

    classes = ("left", "right")
    name = "train"

    def __init__(self, effective: str | None = "abc", first: int = 0) -> None:
        self.manifest: dict[str, Any] = {"settings": {}}
        if effective:
            self.manifest["effective_sha256"] = effective
        self.first = first

    def __len__(self) -> int:
        return 20

    def key(self, index: int) -> str:
        return f"video{(index + self.first) % 20}"


class FewerVideos(Videos):
    def __len__(self) -> int:
        return 19


def training(
    out: Path,
    optim: OptimConfig | None = None,
    *,
    precision: str = "fp32",
    world: World | None = None,
    resume: Path | None = None,
) -> Training:
    """A run of a linear network before its first step."""
    optim = optim or OptimConfig()
    config = TrainConfig(data="d", model="m", out=str(out), optim=optim)
    if resume:
        config = replace(config, resume=str(resume))
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    state = RunState(
        config,
        Videos(),  # type: ignore[arg-type]
        Layout(4, 1, 4, 1, 5, 2),
        precision,
        model,
        optimizer=build_optimizer(model, optim, fused=False),
        scaler=build_scaler(precision, CPU),
        average=WeightAverage(model, optim.ema) if optim.ema else None,
    )
    services = (world or World(), Console(enabled=False), Signals(), RunFolder(out))
    return Training(config, *services, state, model, loader=None)  # type: ignore[arg-type]


def step(run: Training) -> None:
    state = run.state
    state.model(torch.ones(1, 3)).sum().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.samples += state.layout.videos


def saved(out: Path, optim: OptimConfig | None = None, precision: str = "fp32") -> Training:
    """A run saved after one step."""
    run = training(out, optim, precision=precision)
    step(run)
    run.save()
    return run


def test_settings_of_the_optimiser_come_from_the_new_command(tmp_path: Path) -> None:
    before = saved(tmp_path).state
    run = training(tmp_path, OptimConfig(momentum=0.5, weight_decay=0.25))
    restore(run)
    now = run.state
    [group] = now.optimizer.param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.25)
    assert torch.equal(now.model.weight, before.model.weight)
    loaded, expected = (r.optimizer.state[r.model.weight] for r in (now, before))
    assert torch.equal(loaded["momentum_buffer"], expected["momentum_buffer"])
    assert now.samples == 4


def test_changed_settings_are_printed_with_both_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path)
    capsys.readouterr()
    unchanged = training(tmp_path)
    unchanged.console = Console()
    restore(unchanged)
    assert "changed since" not in capsys.readouterr().out
    run = training(tmp_path, OptimConfig(lr=0.5))
    run.console = Console()
    run.config = replace(
        run.config, schedule=ScheduleConfig(epochs=7, kind="cosine"), weights="w.pt"
    )
    restore(run)
    out = " ".join(capsys.readouterr().out.split())
    before = TrainConfig(data="d", model="m", out="o")
    assert f"schedule.epochs: {before.schedule.epochs} -> 7" in out
    assert f"schedule.kind: {before.schedule.kind} -> cosine" in out
    assert f"optim.lr: {before.optim.lr} -> 0.5" in out
    assert "weights:" not in out


def test_a_setting_that_the_checkpoint_does_not_know_is_not_a_change() -> None:
    now = plain(TrainConfig(data="d", model="m", out="o"))
    older = {key: value for key, value in now.items() if key != "validation"}
    assert changed_settings(older, now) == []


def test_a_damaged_newest_checkpoint_of_another_run_is_passed_over(tmp_path: Path) -> None:
    first = saved(tmp_path / "a")
    step(first)
    first.save()
    RunFolder(tmp_path / "a").checkpoints.files()[-1].write_bytes(b"nonsense")
    run = training(tmp_path / "b", resume=tmp_path / "a")
    restore(run)
    assert run.state.samples == 4


def test_other_groups_of_parameters_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    other = OptimConfig(decay_norm_and_bias=False)
    with pytest.raises(EngineError, match="decay_norm_and_bias"):
        restore(training(tmp_path / "b", other, resume=tmp_path / "a"))


def test_momentum_switched_on_later_has_buffers(tmp_path: Path) -> None:
    saved(tmp_path, OptimConfig(momentum=0))
    run = training(tmp_path)
    restore(run)
    assert not run.state.optimizer.state[run.state.model.weight]["momentum_buffer"].any()


def test_an_average_switched_on_later_starts_from_the_weights(tmp_path: Path) -> None:
    before = saved(tmp_path).state
    run = training(tmp_path, OptimConfig(ema=0.9))
    restore(run)
    assert run.state.average is not None
    assert torch.equal(run.state.average.model.weight, before.model.weight)


@dataclass
class Scaler:
    """Keeps a scale, as torch's GradScaler does."""

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
    before.state.scaler = Scaler(1024.0)  # type: ignore[assignment]
    before.save()
    now = training(tmp_path, precision=precision)
    now.state.scaler = Scaler(1.0)  # type: ignore[assignment]
    restore(now)
    assert now.state.scaler.scale == scale  # type: ignore[attr-defined]


def test_a_run_folder_can_be_resumed_from(tmp_path: Path) -> None:
    before = saved(tmp_path / "a").state
    run = training(tmp_path / "b", resume=tmp_path / "a")
    restore(run)
    assert torch.equal(run.state.model.weight, before.model.weight)


class SecondProcess(World):
    """Rank 1 of two processes, to which rank 0 sends the name of a checkpoint."""

    def __init__(self, name: Path) -> None:
        super().__init__(1, 2)
        self.name = name

    def broadcast(self, data: bytes) -> bytes:
        return json.dumps({"result": str(self.name), "error": "", "exit_code": 0}).encode()

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        return [np.array([True]), array]


def test_all_processes_load_the_checkpoint_that_rank_0_has_chosen(tmp_path: Path) -> None:
    saved(tmp_path)
    [first] = RunFolder(tmp_path).checkpoints.files()
    later = saved(tmp_path)
    step(later)
    later.save()
    run = training(tmp_path, world=SecondProcess(first))
    restore(run)
    assert run.state.samples == 4


def test_a_process_that_does_not_see_the_chosen_checkpoint_stops(tmp_path: Path) -> None:
    missing = tmp_path / "checkpoints" / "step-000000001-0123456789abcdef.pt"
    with pytest.raises(EngineError, match=f"{missing}.*rank 1 does not"):
        restore(training(tmp_path, world=SecondProcess(missing)))


def test_other_data_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    run = training(tmp_path)
    run.state.split = FewerVideos()  # type: ignore[assignment]
    with pytest.raises(EngineError, match="trained on 20 videos of 2 classes, d has 19"):
        restore(run)


@pytest.mark.parametrize(
    ("split", "difference"),
    [(Videos(first=1), "the same videos in another order"), (Videos("def"), "def, not abc")],
)
def test_other_videos_of_the_same_number_are_refused(
    split: Videos, difference: str, tmp_path: Path
) -> None:
    saved(tmp_path)
    run = training(tmp_path)
    run.state.split = split  # type: ignore[assignment]
    run.state.config = replace(run.state.config, data="elsewhere")
    with pytest.raises(EngineError, match="trained on train of d, train of elsewhere") as refusal:
        restore(run)
    assert difference in str(refusal.value)


@pytest.mark.parametrize("split", [Videos(), Videos(None)])
def test_a_copy_of_the_data_and_a_checkpoint_that_does_not_know_them_go_on(
    split: Videos, tmp_path: Path
) -> None:
    before = training(tmp_path)
    step(before)
    content: dict[str, Any] = {**before.state.state_dict()}
    if split.manifest.get("effective_sha256") is None:
        del content["data"]  # as older versions wrote it
    before.folder.checkpoints.save(1, content)
    run = training(tmp_path)
    run.state.split = split  # type: ignore[assignment]
    restore(run)
    assert run.state.samples == 4


def test_a_run_killed_before_its_first_checkpoint_starts_its_records_anew(tmp_path: Path) -> None:
    run = training(tmp_path)
    run.folder.add({"kind": "train", "samples": 4, "loss": 1.0})
    restore(run)
    assert run.state.samples == 0
    assert run.folder.metrics.read_text() == ""
