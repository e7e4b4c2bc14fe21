"""Merging of settings, and errors in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dsanet.engine import UsageError
from dsanet.engine.config import (
    RuntimeConfig,
    TrainConfig,
    ValidationConfig,
    dump,
    parse_train,
    plain,
    recipes,
)
from dsanet.engine.evaluation.evaluate import EvalConfig, parse_eval
from dsanet.engine.optim import ScheduleConfig


def recipe(name: str, *more: str) -> TrainConfig:
    return parse_train(["--recipe", name, "--data", "d", "--out", "o", *more])


def test_the_command_line_wins_over_files_and_those_over_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lr: 0.5, momentum: 0.5}\n")
    config = parse_train(
        ["--optim.lr", "0.7", "--config", str(path), "--data=d", "--out=o", "--recipe=kinetics400"]
    )
    assert config.optim.lr == 0.7
    assert config.optim.momentum == 0.5
    assert config.optim.clip_norm == 40


@pytest.mark.parametrize("name", recipes())
def test_the_dump_reads_back_as_the_same_settings(name: str, tmp_path: Path) -> None:
    config = recipe(name)
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert plain(parse_train([f"--config={path}"])) == plain(config)


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
        recipe("demo", f"--{key}", str(value))


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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--epoch_limit", "abc"], "--epoch_limit abc: must be a whole number or null"),
        (["--compile", "maybe"], "--compile maybe: must be true or false or null"),
        (["--optim.lr", "fast"], "--optim.lr fast: must be a number"),
        (["--schedule.steps", "3"], "--schedule.steps 3: must be a list, such as [3, 4]"),
        (
            ["--runtime.precision", "fp61"],
            "--runtime.precision fp61: must be one of auto, fp32, bf16, fp16",
        ),
        (["--lr", "1"], "unrecognized arguments: --lr 1; did you mean optim.lr?"),
        (["--epochs", "1"], "unrecognized arguments: --epochs 1; did you mean schedule.epochs?"),
        (["--optim.lrr", "1"], "unrecognized arguments: --optim.lrr 1; did you mean optim.lr?"),
        (["--momentun", "1"], "unrecognized arguments: --momentun 1; did you mean optim.momentum?"),
        (["--gpus", "1"], "unrecognized arguments: --gpus 1; --help lists all keys"),
        (["--optim.lr"], "argument --optim.lr: expected one argument"),
        (["--see", "8"], "unrecognized arguments: --see 8; did you mean seed?"),
        (
            ["--network", "3"],
            "--network 3: must be a YAML file; or give single keys, --network.KEY",
        ),
        (["--network.blocks", "[1, 2]"], "--network.blocks [1, 2]: must be a list of 4 or null"),
        (["--augment.scale", "[1]"], "--augment.scale [1]: must be a list of 2"),
    ],
)
def test_a_mistake_is_told_in_the_words_of_who_typed_it(words: list[str], told: str) -> None:
    with pytest.raises(UsageError) as error:
        recipe("demo", *words)
    assert str(error.value) == told


@pytest.mark.parametrize("key", ["data", "model", "out", "checkpoint"])
def test_what_is_given_empty_is_named(key: str) -> None:
    given = dict.fromkeys(("data", "model", "out"), "x") | {key: ""}
    parse = parse_train
    if key == "checkpoint":
        given, parse = {"data": "x", key: ""}, parse_eval
    with pytest.raises(UsageError, match=f"^--{key} must not be empty"):
        parse([f"--{name}={value}" for name, value in given.items()])


def test_what_must_be_given_is_named() -> None:
    with pytest.raises(UsageError, match=r"^--data, --model, --out must be given"):
        parse_train([])
    with pytest.raises(UsageError, match="--recipe demo; --help lists all keys"):
        parse_eval(["--data", "d", "--checkpoint", "c", "--recipe", "demo"])


@pytest.mark.parametrize("key", ["clips", "batch", "size"])
def test_an_evaluation_of_nothing_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=f"^{key} must be at least 1.*, got 0"):
        parse_eval(["--data", "d", "--checkpoint", "c", f"--{key}", "0"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"model: d\xe4\xff\n", "it is no text in UTF-8"),
        (b"seed: 1\noptim: {lr: 1\n", r"',' or '}'.* in line 3, column 1"),
        (b"- 1\n", "holds no settings"),
        (b"", "holds no settings"),
    ],
)
def test_a_file_that_holds_no_settings_is_one_line(
    content: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"{path}.*{told}"):
        recipe("demo", "--config", str(path))
