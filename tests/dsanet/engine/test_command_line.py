"""Recipe, files and single keys are merged in this order."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dsanet.engine import UsageError
from dsanet.engine.command_line import (
    build_parser,
    load_saved,
    parse_dataclass,
    parse_train,
    recipe_path,
    recipes,
)
from dsanet.engine.config import TrainConfig, dump, plain
from dsanet.errors import OptionError, require


@dataclass(frozen=True)
class Group:
    size: int = 1

    def __post_init__(self) -> None:
        require(self.size >= 1, "group.size", "be at least 1", self.size)


@dataclass(frozen=True)
class Settings:
    group: Group = field(default_factory=Group)


def demo(*more: str) -> TrainConfig:
    return parse_train(["--recipe", "demo", "--data", "d", "--out", "o", *more])


def test_the_command_line_wins_over_files_and_those_over_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lr: 0.5, momentum: 0.5}\n")
    config = parse_train(
        ["--optim.lr", "0.7", "--config", str(path), "--data=d", "--out=o", "--recipe=kinetics400"]
    )
    assert config.optim.lr == 0.7
    assert config.optim.momentum == 0.5
    assert config.optim.clip_norm == 40


def test_a_recipe_in_a_file_is_applied_before_the_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("recipe: kinetics400\noptim: {lr: 0.5}\n")
    second.write_text("recipe: demo\n")
    words = ["--data=d", "--out=o", "--model=m", f"--config={first}"]
    whole, demo_recipe = plain(parse_train(words)), plain(demo())
    assert whole["recipe"] == "kinetics400"
    assert whole["optim"]["lr"] == 0.5
    assert whole["optim"]["clip_norm"] == 40  # of the recipe
    last = plain(parse_train([*words, f"--config={second}"]))
    assert last["augment"] == demo_recipe["augment"]
    flag = parse_train([*words, "--recipe=demo"])
    assert flag.recipe == "demo"
    assert plain(flag.augment) == demo_recipe["augment"]


def test_an_unknown_recipe_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for recipe in ("kinetic400", "[1]", "3"):
        path.write_text(f"recipe: {recipe}\n")
        with pytest.raises(UsageError, match=r"^recipe .* does not exist"):
            parse_train(["--data=d", "--out=o", "--model=m", f"--config={path}"])


def test_saved_settings_are_read_without_their_recipe(tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    settings = dump(demo("--optim.lr", "0.25"))
    saved.write_text(settings.replace("recipe: demo", "recipe: of-an-older-version"))
    config = load_saved(saved)
    assert config.recipe == "of-an-older-version"
    assert config.optim.lr == 0.25


@pytest.mark.parametrize("name", recipes())
def test_the_dump_reads_back_as_the_same_settings(name: str, tmp_path: Path) -> None:
    config = parse_train(["--recipe", name, "--data", "d", "--out", "o"])
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert plain(parse_train([f"--config={path}"])) == plain(config)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"model: d\xe4\xff\n", "not UTF-8"),
        (b"seed: 1\noptim: {lr: 1\n", "in line 3, column 1"),
        (b"- 1\n", "holds no settings"),
        (b"", "holds no settings"),
    ],
)
def test_a_file_without_settings_is_named_with_the_reason(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"{path}.*{reason}"):
        demo("--config", str(path))


def test_a_run_folder_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} is not a run folder"):
        load_saved(tmp_path / "config.yaml")


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"kinetic400.*did you mean kinetics400"):
        recipe_path("kinetic400")


@pytest.mark.parametrize("flag", ["--config", "--recipe", "--out"])
def test_an_empty_flag_is_named(flag: str) -> None:
    with pytest.raises(UsageError, match=f"^{flag} must not be empty"):
        demo(flag, "")


def test_an_error_raised_by_a_group_of_settings_reaches_the_user_unchanged() -> None:
    # An OptionError is a ValueError, which a parser may take for a value of a wrong type.
    assert issubclass(OptionError, ValueError)
    parser = build_parser("program", "")
    with pytest.raises(OptionError, match=r"^group.size must be at least 1, got 0$"):
        parse_dataclass(parser, Settings, ["--group.size", "0"])
