"""One line that explains why the command line was refused.

The parser decides what is refused. Which key is at fault is then looked up here from the types of
the settings, because the parser's own messages are long and name its internals.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from dsanet.engine.settings_file import read_settings_file
from dsanet.errors import printable

WITHOUT_VALUE = ("help", "print_config")
MISSING = object()  # where no value follows a key
LONGEST = 300  # characters of another library's message
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
}


class Option(NamedTuple):
    """A key with its value; `source` is the beginning of a message about it."""

    key: str
    value: Any
    source: str = ""


def explain_refusal(
    settings: type[Any], argv: Sequence[str], files: Sequence[Path], message: str
) -> str:
    """Explain in one line why the parser refused a command line.

    settings: the dataclass that was parsed; its fields, and those of the dataclasses in it, are
    the keys. files: YAML files of settings. message: what the parser reported.
    """
    types = dict(_types_of_keys(settings))
    options = list(_options(argv))
    for path in files:
        if not path.is_file():
            return f"{path}: no such file; --config takes a YAML file"
        options += _options_of_file(path, types)
    for option in options:
        if reason := _fault(option, types):
            return reason
    required = [
        field.name
        for field in dataclasses.fields(settings)
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    given = {option.key for option in options}
    if missing := [f"--{name}" for name in required if name not in given]:
        return f"{', '.join(missing)} must be given; --help lists all keys"
    return _shortened(message)


def check_group_files(settings: type[Any], path: Path) -> None:
    """Check the files that a file of settings names: `optim: FILE` stands for the content of FILE.

    The parser would wait for a pipe, and read a device without an end.

    Raises:
        UsageError: see `read_settings_file`.
    """
    types = dict(_types_of_keys(settings))
    for key, value, _ in _options_of_file(path, types):
        if not (isinstance(value, str) and dataclasses.is_dataclass(types.get(key))):
            continue
        for named in (path.parent / value, Path(value)):
            if len(value) < LONGEST and "\0" not in value and not named.is_dir():
                read_settings_file(named)


def nearest(name: str, keys: Sequence[str]) -> str | None:
    """The key that was most likely meant: of the same last part, else of similar spelling."""
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    last = name.split(".")[-1]
    if same := [key for key in leaves if key.split(".")[-1] == last]:
        return " or ".join(same[:3])
    close = difflib.get_close_matches(name, leaves, 1)
    by_last = {key.split(".")[-1]: key for key in leaves}
    close += [by_last[part] for part in difflib.get_close_matches(last, by_last, 1, 0.7)]
    return close[0] if close else None


def describe(hint: Any) -> str:
    """What a setting of this type takes, such as "a whole number or null"."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(describe(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        return "a list, such as [3, 4]" if ... in parts else f"a list of {len(parts)}"
    if dataclasses.is_dataclass(hint):
        first = dataclasses.fields(hint)[0].name
        return f"a mapping, such as {{{first}: ...}}, or a YAML file that holds one"
    return KINDS.get(hint, str(hint))


def _types_of_keys(settings: type[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with dots, also those of whole groups, and its type."""
    for name, hint in get_type_hints(settings).items():
        yield f"{prefix}{name}", hint
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _types_of_keys(hint, f"{prefix}{name}.")


def _options(argv: Sequence[str]) -> Iterator[Option]:
    """Options of a command line, given as `--key VALUE` or `--key=VALUE`."""
    for number, word in enumerate(argv):
        if not word.startswith("--"):
            continue
        key, equals, value = word[2:].partition("=")
        following = argv[number + 1 : number + 2]
        if equals:
            yield Option(key, value)
        elif following and not following[0].startswith("--"):
            yield Option(key, following[0])
        else:
            yield Option(key, MISSING)


def _options_of_file(path: Path, types: dict[str, Any]) -> list[Option]:
    """Settings of a YAML file, those of groups by keys with dots."""
    options = []

    def collect(content: dict[str, Any], prefix: str) -> None:
        for name, value in content.items():
            key = f"{prefix}{name}"
            if isinstance(value, dict) and dataclasses.is_dataclass(types.get(key)):
                collect(value, f"{key}.")
            else:
                options.append(Option(key, value, f"{path}: "))

    collect(read_settings_file(path), "")
    return options


def _fault(option: Option, types: dict[str, Any]) -> str | None:
    """What is wrong with an option: its key, its value, or nothing."""
    key, value, source = option
    if key in WITHOUT_VALUE:
        return None
    if key not in types:
        near = nearest(key, list(types))
        hint = f"did you mean {near}?" if near else "--help lists all keys"
        return f"{source}unknown key {key}; {hint}"
    is_group = dataclasses.is_dataclass(types[key]) and not isinstance(value, (dict, str))
    if value is MISSING or (not is_group and _accepts(types[key], value)):
        return None
    shown = printable(repr(_plain(value)), LONGEST)
    return f"{source}{key} must be {describe(types[key])}, got {shown}"


def _accepts(hint: Any, value: Any) -> bool:
    """Whether the parser takes a value, given as text or as an object of a YAML file."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        if isinstance(value, str):
            parser.parse_args([f"--value={value}"])
        else:
            parser.parse_object({"value": value})
    except ArgumentError:
        return False
    return True


def _plain(value: Any) -> Any:
    """A value as YAML reads it: the number 3 for the text "3"."""
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value


def _shortened(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
