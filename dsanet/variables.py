"""Whole numbers in the environment, as launchers such as torchrun and srun set them."""

from __future__ import annotations

import os
import re

from dsanet.errors import UserError, printable


class VariableError(UserError, ValueError):
    """An environment variable that cannot be used."""

    exit_code = 2


def read_number(name: str, default: int | None = None, least: int = 0) -> int:
    """The whole number in an environment variable.

    default: where the variable is empty or not set; None: it must be set.

    Raises:
        VariableError: for anything else than a whole number of at least `least`.
    """
    text = os.environ.get(name, "").strip()
    if not text and default is not None:
        return default
    if re.fullmatch("[0-9]{1,18}", text) is None or int(text) < least:
        raise VariableError(
            f"the environment variable {name} must be a whole number of at least {least}, got "
            f"'{printable(text, 80)}'; correct or unset it (torchrun or srun sets it for a job)"
        )
    return int(text)
