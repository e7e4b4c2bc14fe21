"""Settings are checked: ranges, choices and empty values."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dsanet.engine import UsageError
from dsanet.engine.command_line import parse_train
from dsanet.engine.config import RuntimeConfig, TrainConfig, ValidationConfig
from dsanet.engine.evaluation.config import EvalConfig, parse_eval
from dsanet.engine.optim import ScheduleConfig


def demo(*more: str) -> TrainConfig:
    return parse_train(["--recipe", "demo", "--data", "d", "--out", "o", *more])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.lr", -0.1),
        ("optim.weight_decay", -1e-4),
        ("optim.clip_norm", -1),
        ("optim.momentum", 1),
        ("optim.ema", 1),
        ("optim.ema", -0.5),
        ("optim.reference_videos", 0),
        ("schedule.epochs", 0),
        ("schedule.warmup_epochs", -1),
        ("validation.every", 0),
        ("validation.per_gpu", 0),
        ("loss.label_smoothing", 1),
        ("loss.mixup", -0.2),
        ("loss.cutmix", -1),
        ("batch.videos", 0),
        ("batch.per_gpu", 0),
        ("log.every", 0),
        ("checkpoint.keep", 0),
        ("checkpoint.every_steps", -1),
        ("runtime.timeout_minutes", 0),
        ("runtime.rendezvous_minutes", 0),
        ("runtime.watchdog_minutes", -1),
        ("runtime.bucket_mb", 0),
        ("seed", -1),
        ("epoch_limit", 0),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"^{key} must be .*, got {value}"):
        demo(f"--{key}", str(value))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (RuntimeConfig, {"precision": "fp61"}, "runtime.precision must be one of auto, fp32, bf16"),
        (ScheduleConfig, {"kind": "step"}, "schedule.kind must be one of steps, cosine"),
        (ValidationConfig, {"metric": "top5"}, "validation.metric must be one of top1, map"),
        (EvalConfig, {"data": "d", "checkpoint": "c", "crops": 2}, "crops must be one of 1, 3"),
    ],
)
def test_a_choice_is_checked_without_the_parser(
    kind: type[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}.*, got "):
        kind(**settings)


@pytest.mark.parametrize("key", ["data", "model", "out", "checkpoint"])
def test_an_empty_value_is_refused(key: str) -> None:
    given = dict.fromkeys(("data", "model", "out"), "x") | {key: ""}
    parse = parse_train
    if key == "checkpoint":
        given, parse = {"data": "x", key: ""}, parse_eval
    with pytest.raises(UsageError, match=f"^--{key} must not be empty"):
        parse([f"--{name}={value}" for name, value in given.items()])


@pytest.mark.parametrize("key", ["clips", "batch", "size"])
def test_an_evaluation_of_nothing_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=f"^{key} must be at least 1.*, got 0"):
        parse_eval(["--data", "d", "--checkpoint", "c", f"--{key}", "0"])
