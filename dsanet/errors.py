"""The one exception of this package that is meant for a user's eyes."""

from __future__ import annotations


class ModelError(ValueError):
    """A network, option, input or weights file that cannot be used; the message says the remedy."""

    exit_code = 1
