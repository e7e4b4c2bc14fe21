"""Recipes: the settings of the paper and of the released code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import dsanet
from dsanet.engine.batching import plan_steps
from dsanet.engine.command_line import RECIPES, parse_train, recipes
from dsanet.engine.config import TrainConfig
from dsanet.engine.optim import peak_rate
from dsanet.engine.setup import build_network

# Recipe: network, U x T frames at a stride, sampling mode, epochs, warm-up, drops of the rate.
PAPER = {
    "kinetics400": ("dsa_i3d_r50", 4, 4, 8, "segments", 100, 10, (50, 75, 90)),
    "kinetics400-t8": ("dsa_i3d_r50", 4, 8, 8, "segments", 100, 10, (50, 75, 90)),
    "kinetics400-tsm": ("dsa_tsm_r50", 4, 8, 8, "segments", 100, 10, (50, 75, 90)),
    "mini-kinetics200": ("dsa_i3d_r50", 4, 4, 8, "segments", 70, 7, (40, 60)),
    "mini-kinetics200-tsm": ("dsa_tsm_r50", 4, 8, 8, "segments", 70, 7, (40, 60)),
    "mini-kinetics200-i3d-16x1": ("i3d_r18", 1, 16, 4, "segments", 70, 7, (40, 60)),
    "mini-kinetics200-i3d-4x1": ("i3d_r18", 1, 4, 8, "segments", 70, 7, (40, 60)),
    "somethingv1": ("dsa_i3d_r50", 4, 4, 1, "spread", 50, 5, (30, 40, 45)),
    "activitynet": ("dsa_i3d_r50", 4, 4, 8, "segments", 200, 0, (80, 160)),
}
TRAINING_PAGE = Path(__file__).resolve().parents[2] / "docs/training.md"
COMMON = [*PAPER, "kinetics400-modern"]


def recipe(name: str, *more: str) -> TrainConfig:
    return parse_train(["--recipe", name, "--data", "d", "--out", "o", *more])


def test_the_tables_name_every_recipe() -> None:
    assert set(recipes()) == {*COMMON, "demo"}


@pytest.mark.parametrize("name", PAPER)
def test_network_sampling_and_schedule(name: str) -> None:
    config = recipe(name)
    sampling, schedule = config.sampling, config.schedule
    assert schedule.kind == "steps"
    assert PAPER[name] == (
        config.model, sampling.segments, sampling.frames, sampling.stride, sampling.mode,
        schedule.epochs, schedule.warmup_epochs, tuple(schedule.steps),
    )  # fmt: skip
    assert (schedule.gamma, schedule.warmup_start) == (0.1, 0.01)
    loss = config.loss
    assert (loss.label_smoothing, loss.mixup, loss.cutmix, config.optim.ema) == (0, 0, 0, 0)
    assert config.optim.decay_norm_and_bias


@pytest.mark.parametrize("name", COMMON)
def test_augmentation_and_optimiser(name: str) -> None:
    config = recipe(name)
    augment, optim, network = config.augment, config.optim, config.network
    assert (augment.size, augment.kind, augment.flip) == (224, "random_resized_crop", 0.5)
    assert augment.scale == (0.08, 1.0)
    assert augment.ratio == pytest.approx((3 / 4, 4 / 3))
    rule = "swap_directional" if name == "somethingv1" else "all"
    assert augment.flip_classes == rule
    assert (config.batch.videos, config.batch.per_gpu) == (96, 12)
    assert peak_rate(optim, config.batch.videos) == pytest.approx(0.015)
    assert (optim.momentum, optim.nesterov, optim.weight_decay) == (0.9, True, 1e-4)
    assert optim.clip_norm == 40
    assert (network.alpha, network.beta, network.position) == (2, 0.125, "II")
    assert (network.stages, network.every, network.dropout) == ((3, 4), 2, 0.5)
    assert config.validation.every == 10
    assert config.validation.metric == ("map" if name == "activitynet" else "top1")


def test_the_modern_recipe() -> None:
    config = recipe("kinetics400-modern")
    assert (config.schedule.kind, config.schedule.epochs) == ("cosine", 100)
    loss = config.loss
    assert (loss.label_smoothing, loss.mixup, loss.cutmix) == (0.1, 0.2, 0)
    assert (config.optim.ema, config.optim.decay_norm_and_bias) == (0.9998, False)


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_builds_its_network_and_divides_its_batch(name: str) -> None:
    config = recipe(name, "--network.width", "8")
    assert config.model in dsanet.list_models()
    assert sum(p.numel() for p in build_network(config, 10).parameters()) > 0
    for processes in (1, 2, 4, 8):
        plan_steps(config, processes, 10_000)


@pytest.mark.parametrize("name", recipes())
def test_the_layouts_in_the_header_divide_the_batch(name: str) -> None:
    """The header says "96 videos a step: 8 GPUs x 12, ... or 1 GPU x 12 x 8 accumulated"."""
    config, text = recipe(name), (RECIPES / f"{name}.yaml").read_text()
    [(videos, layouts)] = re.findall(r"^# (\d+) videos a step: (.*)$", text, re.MULTILINE)
    assert int(videos) == config.batch.videos
    layouts = re.findall(r"(\d+) (?:GPU|process)(?:s|es)? x (\d+)(?: x (\d+) accum)?", layouts)
    assert len(layouts) >= 2
    for processes, micro, passes in layouts:
        layout = plan_steps(config, int(processes), 10_000)
        assert (layout.micro, layout.accumulation) == (int(micro), int(passes or 1))


def test_the_options_for_other_data_sets_are_valid() -> None:
    rows = re.findall(r"^\| [^|]+ \| `(--recipe [^`]+)` \|", TRAINING_PAGE.read_text("utf-8"), re.M)
    assert len(rows) == 3
    for row in rows:
        config = parse_train([*shlex.split(row), "--data", "d", "--out", "o"])
        plan_steps(config, 8, 3_500)
        assert config.schedule.epochs > max(config.schedule.steps)
    assert peak_rate(config.optim, config.batch.videos) == pytest.approx(0.0015)
