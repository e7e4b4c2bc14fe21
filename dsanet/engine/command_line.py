"""Parsing of the command line: single keys override YAML files, which override a recipe."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from dsanet.engine.cli_errors import check_group_files, explain_refusal
from dsanet.engine.config import TrainConfig
from dsanet.engine.errors import UsageError
from dsanet.engine.settings_file import read_settings_file
from dsanet.errors import UserError

Settings = TypeVar("Settings")
RECIPES = Path(__file__).parent.parent / "recipes"


def recipes() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """File of a recipe.

    Raises:
        UsageError: for an unknown name; the message names the nearest recipe.
    """
    known = recipes()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"the recipes are {', '.join(known)}"
        raise UsageError(f"recipe {name!r} does not exist; {hint}")
    return RECIPES / f"{name}.yaml"


def parse_train(argv: Sequence[str] | None = None) -> TrainConfig:
    """Settings of a training run, merged from its recipe, its files and the command line.

    argv: the words after `train.py`; None takes those of this process.

    Raises:
        UsageError: for an unknown key or a wrong value; the message names the key.
    """
    return _parse(*_split_off_files(sys.argv[1:] if argv is None else argv))


def _parse(files: Sequence[Path], words: Sequence[str]) -> TrainConfig:
    """Settings merged from files, in their order, and the other words of a command line."""
    for path in files:
        check_group_files(TrainConfig, path)
    parser = build_parser(
        "train.py", "Train a network on a shard set; run the same command again to continue."
    )
    parser.add_argument(
        "--config", action="config", help="YAML file of settings; the last of several has priority"
    )
    return parse_dataclass(parser, TrainConfig, words, files)


def build_parser(program: str, description: str) -> ArgumentParser:
    """A parser without keys that raises its errors and takes no abbreviated keys."""
    return ArgumentParser(
        prog=program, description=description, exit_on_error=False, allow_abbrev=False
    )


def parse_dataclass(
    parser: ArgumentParser, kind: type[Settings], argv: Sequence[str], files: Sequence[Path] = ()
) -> Settings:
    """Parse a command line into a dataclass; each of its fields is a key.

    files: YAML files of settings, which the command line overrides.

    Raises:
        UsageError: for an unknown key or a wrong value; the message names the key.
    """
    parser.add_class_arguments(kind)
    try:
        namespace = parser.parse_args([*(f"--config={path}" for path in files), *argv])
        settings = dict(parser.instantiate(namespace))
    except ArgumentError as error:
        raise UsageError(explain_refusal(kind, argv, files, str(error))) from error
    except UserError:
        raise
    # The parser's errors for values of other types than it expects, such as a number for a group.
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise UsageError(explain_refusal(kind, argv, files, str(error))) from error
    settings.pop("config", None)
    return kind(**settings)


def load_saved(path: Path) -> TrainConfig:
    """Settings of an existing run, from its config.yaml.

    Raises:
        UsageError: when the file is missing or does not hold the settings of a run.
    """
    if not path.is_file():
        raise UsageError(f"{path.parent} is not a run folder: it has no {path.name}")
    return _parse([path], [])


def _split_off_files(argv: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files of settings that a command line names, the recipe's first, and its other words.

    The recipe is that of `--recipe`, or else of the last file that names one. A run that is
    continued without a recipe or a file takes the settings saved in its folder.
    """
    names, words = _split_off(argv, "--config")
    files = [Path(name) for name in names]
    recipe, _ = _split_off(words, "--recipe")
    out, _ = _split_off(words, "--out")
    recipe = recipe or [name for path in files if (name := read_settings_file(path).get("recipe"))]
    if recipe:
        files.insert(0, recipe_path(recipe[-1]))
    elif out and not files and (saved := Path(out[-1]) / "config.yaml").is_file():
        files.append(saved)
    return files, words


def _split_off(words: Sequence[str], flag: str) -> tuple[list[str], list[str]]:
    """Values of a flag, given as `--flag VALUE` or `--flag=VALUE`, and the remaining words.

    Raises:
        UsageError: for an empty value, such as an unset variable of a shell script.
    """
    values, rest = [], []
    remaining = iter(words)
    for word in remaining:
        if word == flag:
            values.append(next(remaining, ""))
        elif word.startswith(f"{flag}="):
            values.append(word.split("=", 1)[1])
        else:
            rest.append(word)
    if "" in values:
        raise UsageError(f"{flag} must not be empty")
    return values, rest
