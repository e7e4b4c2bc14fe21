"""Errors of training and evaluation that a user can fix."""

from __future__ import annotations

from dsanet.errors import UserError


class EngineError(UserError, RuntimeError):
    """A run cannot continue; the message says what is wrong, where, and what to do."""


class UsageError(EngineError):
    """A command line or a setting that cannot work."""

    exit_code = 2


class NonFiniteError(EngineError):
    """The loss or the gradient is not finite."""
