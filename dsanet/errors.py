"""The exceptions of this package that are meant for a user's eyes."""

from __future__ import annotations


class ModelError(ValueError):
    """A network, option, input or weights file that cannot be used; the message says the remedy."""

    exit_code = 1


class OptionError(ModelError):
    """A network that does not exist, or an option that it does not have or can't take."""

    exit_code = 2
