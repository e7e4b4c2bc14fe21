"""The errors of the loader."""

from __future__ import annotations

from dsanet.errors import UserError


class LoaderError(UserError, RuntimeError):
    """Videos cannot be loaded; the message says what is wrong, where, and what to do."""


class HangError(LoaderError):
    """No batch has come within `loader.hang`: a thread is left behind in a call that never ends."""


class LoaderUsageError(LoaderError):
    """A setting that cannot work; raised before any video is read."""

    exit_code = 2
