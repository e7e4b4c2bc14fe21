"""Errors of the loader that a user can fix."""

from __future__ import annotations

from dsanet.errors import UserError


class LoaderError(UserError, RuntimeError):
    """Videos cannot be loaded; the message names the thing, the place and the remedy."""


class LoaderUsageError(LoaderError):
    """A setting that cannot work, known before any video is read."""

    exit_code = 2
