"""The errors of the whole project: each is shown to a user as one line, with an exit code.

This module imports nothing, so that every package, `shards` and `pipelines` too, may build on it.
"""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def printable(text: object, limit: int | None = None) -> str:
    """Return a text as one line that is safe to print, with escapes as in a Python literal.

    Line ends, control characters (ANSI sequences begin with one), characters that change the
    direction of text, invisible ones and lone surrogates become `\\n`, `\\x1b`, `\\u202e`, ...

    limit: most characters; what is longer ends in " ...".
    """
    line = str(text)
    if limit is not None and len(line) > limit:
        line = f"{line[:limit]} ..."
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class UserError(Exception):
    """Something a user can fix; the message says what is wrong, where, and what to do.

    Entry scripts print it as one line and exit with `exit_code`: 1 for a failure, 2 for a command
    or a setting that cannot work. Its text may quote names from files: see `printable`.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class ModelError(UserError, ValueError):
    """A network, input or weights file that cannot be used."""


class OptionError(ModelError):
    """A network that does not exist, or an option that it does not have or cannot take."""

    exit_code = 2


def require(
    condition: bool, name: str, must: str, value: object, error: type[UserError] = OptionError
) -> None:
    """Raise `error` unless `condition` holds: "NAME must MUST, got VALUE".

    name: the setting as a configuration spells it, such as "loader.threads".
    """
    if not condition:
        raise error(f"{name} must {must}, got {printable(repr(value), 200)}")


def check_choices(settings: Any, prefix: str, error: type[UserError] = OptionError) -> None:
    """Raise `error` for a field of a dataclass that is annotated with `Literal` and holds another
    value; a configuration file is checked by its parser, a call in Python only here. A field may
    be annotated `Literal[...] | None`."""
    for name, hint in get_type_hints(type(settings)).items():
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        choices = [get_args(part) for part in parts if get_origin(part) is Literal]
        value = getattr(settings, name)
        if not choices or (value is None and type(None) in parts):
            continue
        allowed = choices[0]
        known = ", ".join(str(choice) for choice in allowed)
        require(value in allowed, f"{prefix}{name}", f"be one of {known}", value, error)
