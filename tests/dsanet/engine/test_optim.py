"""Schedule, groups and weight average against their definitions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dsanet.engine.optim import (
    OptimConfig,
    ScheduleConfig,
    WeightAverage,
    build_optimizer,
    peak_rate,
    schedule_factor,
)


def released_rate(iteration: int) -> float:
    """The authors' schedule at an iteration of their run on 8 GPUs (2,507 an epoch)."""
    rate = 0.015
    for epoch in (50, 75, 90):
        if iteration >= epoch * 2507:
            rate /= 10
    if iteration < 25070:
        rate *= 1 - (1 - iteration / 25070) * (1 - 0.01)
    return rate


@pytest.mark.parametrize("iteration", [0, 1, 2507, 25069, 25070, 125349, 125350, 188025, 225630])
def test_the_default_schedule_is_that_of_the_authors_code(iteration: int) -> None:
    rate = peak_rate(OptimConfig(), 96) * schedule_factor(ScheduleConfig(), iteration / 2507)
    assert rate == pytest.approx(released_rate(iteration), rel=1e-9)


def test_the_rate_scales_with_the_batch() -> None:
    assert peak_rate(OptimConfig(), 192) == pytest.approx(0.03)
    # The paper's 0.01 at the batch that the recipes take for it is the rate of the authors' code.
    paper = OptimConfig(lr=0.01, reference_videos=64)
    assert peak_rate(paper, 96) == pytest.approx(peak_rate(OptimConfig(), 96))


def test_cosine_ends_at_zero_and_warms_up() -> None:
    config = ScheduleConfig(epochs=10, kind="cosine", warmup_epochs=2, warmup_start=0.1)
    assert schedule_factor(config, 0) == pytest.approx(0.1)
    assert schedule_factor(config, 5) == pytest.approx(0.5)
    assert schedule_factor(config, 10) == pytest.approx(0)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_without_decay_norm_and_bias_only_kernels_decay() -> None:
    model = network()
    optimizer = build_optimizer(model, OptimConfig(decay_norm_and_bias=False), fused=False)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {id(model[0].weight), id(model[2].weight)}
    everything = build_optimizer(model, OptimConfig(), fused=False)
    assert [len(g["params"]) for g in everything.param_groups] == [6]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, overflow: bool = False) -> None:
    """One scaled step; on an overflow the scaler of fp16 has the optimiser skip it."""
    torch.manual_seed(1)
    model(torch.randn(5, 3)).square().sum().backward()
    if optimizer.defaults["fused"]:
        optimizer.grad_scale = None
        optimizer.found_inf = torch.tensor(float(overflow))
    if optimizer.defaults["fused"] or not overflow:
        optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("fused", [False, True])
def test_momentum_buffers_of_zeros_change_no_bit(fused: bool) -> None:
    ours, plain = network(), network()
    settings = {"lr": 0.015, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    torch_own = torch.optim.SGD(plain.parameters(), fused=fused, **settings)
    optimizer = build_optimizer(ours, OptimConfig(), fused=fused)
    for _ in range(3):
        step(ours, optimizer)
        step(plain, torch_own)
    assert all(map(torch.equal, ours.parameters(), plain.parameters()))


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_first_step_has_no_effect(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Uninitialised memory may hold any values.
    monkeypatch.setattr(torch, "empty_like", lambda t, **kw: torch.full_like(t, 1e9, **kw))
    skipped, plain = network(), network()
    optimizers = [build_optimizer(m, OptimConfig(), fused=fused) for m in (skipped, plain)]
    step(skipped, optimizers[0], overflow=True)
    plain[1].load_state_dict(skipped[1].state_dict())
    step(skipped, optimizers[0])
    step(plain, optimizers[1])
    assert all(map(torch.equal, skipped.parameters(), plain.parameters()))


def test_the_average_follows_its_recurrence() -> None:
    model = network()
    average = WeightAverage(model, decay=0.9)
    expected = copy.deepcopy(model.state_dict())
    for step in range(1, 30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model[1].num_batches_tracked += 1
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in average.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])
    assert average.model[1].num_batches_tracked == 29
