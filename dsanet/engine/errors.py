"""Errors a user can mend; entry scripts print them as one line and exit with their code."""

from __future__ import annotations

from dsanet.errors import UserError


class EngineError(UserError, RuntimeError):
    """A run cannot go on; the message names the thing, the place and the remedy."""


class UsageError(EngineError):
    """The command line or a configuration file asks for something that does not exist."""

    exit_code = 2


def require(met: bool, told: str) -> None:
    """Refuse a setting that can't work.

    Raises:
        UsageError: saying `told`, unless the condition is met.
    """
    if not met:
        raise UsageError(told)


class NonFiniteError(EngineError):
    """The loss or the gradient stopped being a number."""
