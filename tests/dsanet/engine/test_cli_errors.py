"""A refused command line is explained in one line that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from dsanet.engine import UsageError
from dsanet.engine.cli_errors import describe
from dsanet.engine.command_line import parse_train
from dsanet.engine.config import TrainConfig
from dsanet.engine.evaluation.config import parse_eval


def demo(*more: str) -> TrainConfig:
    return parse_train(["--recipe", "demo", "--data", "d", "--out", "o", *more])


def refusal(*words: str) -> str:
    with pytest.raises(UsageError) as error:
        demo(*words)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epoch_limit", "abc", "epoch_limit must be a whole number or null, got 'abc'"),
        ("compile", "maybe", "compile must be true or false or null, got 'maybe'"),
        ("optim.lr", "fast", "optim.lr must be a number, got 'fast'"),
        ("schedule.steps", "3", "schedule.steps must be a list, such as [3, 4], got 3"),
        (
            "runtime.precision",
            "fp61",
            "runtime.precision must be one of auto, fp32, bf16, fp16, got 'fp61'",
        ),
        ("network.blocks", "[1, 2]", "network.blocks must be a list of 4 or null, got [1, 2]"),
        ("augment.scale", "[1]", "augment.scale must be a list of 2, got [1]"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_what_is_allowed(
    key: str, value: str, message: str
) -> None:
    assert refusal(f"--{key}", value) == message
    assert refusal(f"--{key}={value}") == message


@pytest.mark.parametrize(
    ("words", "key", "hint"),
    [
        (("--lr", "1"), "lr", "did you mean optim.lr?"),
        (("--epochs=1",), "epochs", "did you mean schedule.epochs?"),
        (("--optim.lrr", "1"), "optim.lrr", "did you mean optim.lr?"),
        (("--momentun", "1"), "momentun", "did you mean optim.momentum?"),
        (("--gpus", "1"), "gpus", "--help lists all keys"),
        (("--see", "8"), "see", "did you mean seed?"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(
    words: tuple[str, ...], key: str, hint: str
) -> None:
    assert refusal(*words) == f"unknown key {key}; {hint}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("optim: {momentun: 0.8}", "unknown key optim.momentun; did you mean optim.momentum?"),
        ("optim: {lr: fast}", "optim.lr must be a number, got 'fast'"),
        ("log: {ids: 3}", "log.ids must be true or false, got 3"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    assert refusal("--config", str(path)) == f"{path}: {message}"


def test_a_missing_file_is_named() -> None:
    assert refusal("--config", "nowhere.yaml").startswith("nowhere.yaml: no such file")


def test_a_group_takes_a_file_or_single_keys() -> None:
    assert refusal("--network", "3").startswith("network must be a mapping, such as {alpha: ...}")


def test_a_key_without_a_value_and_a_stray_word_are_named() -> None:
    assert "--optim.lr" in refusal("--optim.lr")
    assert "fast" in refusal("fast")


def test_missing_keys_are_named() -> None:
    with pytest.raises(UsageError, match=r"^--data, --model, --out must be given"):
        parse_train([])
    with pytest.raises(UsageError, match=r"^--model, --out must be given"):
        parse_train(["--data", "d"])


def test_an_evaluation_knows_its_own_keys_alone() -> None:
    with pytest.raises(UsageError, match=r"^unknown key recipe; --help lists all keys"):
        parse_eval(["--data", "d", "--checkpoint", "c", "--recipe", "demo"])


def test_types_are_described_in_words() -> None:
    assert describe(Path | None) == "a path or null"
    assert describe(Literal[1, 3]) == "one of 1, 3"
    assert describe(tuple[float, float]) == "a list of 2"
